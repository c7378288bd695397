"""Losses against their formulas in float64, term by term and together."""

from __future__ import annotations

import math

import pytest
import torch

from lesionforge.plugins.skindualgen.losses import bce_loss, dice_loss
from lesionforge.plugins.skindualgen.network import Prediction
from lesionforge.plugins.skindualgen.training import FineTuning
from lesionforge.plugins.stable_diffusion.base import load_base


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 1, 5, 7, generator=rng, dtype=torch.float64)
    return logits, (torch.rand(2, 1, 5, 7, generator=rng) < 0.4).double()


def test_cross_entropy_is_equation_6(case):
    terms = []
    for x, y in zip(*(tensor.flatten().tolist() for tensor in case), strict=True):
        p = 1 / (1 + math.exp(-x))
        terms.append(y * math.log(p) + (1 - y) * math.log(1 - p))
    assert float(bce_loss(*case)) == pytest.approx(-sum(terms) / len(terms), rel=1e-12)


def test_dice_is_equation_7_in_every_image(case):
    losses = []
    for logits, mask in zip(*case, strict=True):
        y, p = mask.flatten().tolist(), [1 / (1 + math.exp(-x)) for x in logits.flatten().tolist()]
        overlap = sum(a * b for a, b in zip(y, p, strict=True))
        losses.append(1 - (2 * overlap + 0.5) / (sum(y) + sum(p) + 0.5))
    assert float(dice_loss(*case, smoothing=0.5)) == pytest.approx(sum(losses) / 2, rel=1e-12)


def test_an_empty_mask_that_is_found_empty_costs_nothing():
    nothing = torch.zeros(1, 1, 4, 4)
    assert float(dice_loss(torch.full_like(nothing, -40), nothing, smoothing=1.0)) == pytest.approx(0, abs=1e-6)


def test_low_precision_logits_are_summed_in_fp32(case):
    logits, masks = case
    assert bce_loss(logits.bfloat16(), masks).dtype == torch.float32
    assert dice_loss(logits.bfloat16(), masks, smoothing=1.0).dtype == torch.float32


def test_the_whole_is_equation_8(settings, tiny_base, case):
    logits, masks = case
    rng = torch.Generator().manual_seed(1)
    output, target = torch.randn(2, 2, 4, 3, 3, generator=rng, dtype=torch.float64)
    config = settings(diffusion_weight=0.5, bce_weight=2.0, dice_weight=3.0, dice_smoothing=0.5)
    tuning = FineTuning(load_base(tiny_base), None, config, torch.device("cpu"))  # type: ignore[arg-type]
    colours = torch.zeros(2, 3, 5, 7, dtype=torch.float64)
    terms = tuning.terms(Prediction(output, target, torch.cat((colours, logits), dim=1)), masks)
    diffusion = ((output - target) ** 2).mean()
    expected = 0.5 * diffusion + 2 * bce_loss(*case) + 3 * dice_loss(*case, smoothing=0.5)
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["diffusion"], diffusion, rtol=1e-12, atol=0)
