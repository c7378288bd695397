from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss

from lesionforge.plugins.segmentation.config import SegmentationConfig
from lesionforge.plugins.segmentation.losses import (
    bce_dice_loss,
    bce_loss,
    dice_loss,
    focal_loss,
    make_loss,
    tversky_loss,
)

NAMES = ("bce+dice", "dice", "bce", "focal", "tversky")


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 1, 5, 7, generator=rng, dtype=torch.float64)
    masks = (torch.rand(3, 1, 5, 7, generator=rng) < 0.4).double()
    masks[2] = 0
    return logits, masks


def literal(logits: torch.Tensor, masks: torch.Tensor, gamma: float, alpha: float, beta: float, eps: float):
    """The formulas written out pixel by pixel in plain Python."""
    bce = focal = dice = tversky = 0.0
    for image, mask in zip(logits.flatten(1).tolist(), masks.flatten(1).tolist(), strict=True):
        p = [1 / (1 + math.exp(-z)) for z in image]
        truth = list(zip(p, mask, strict=True))
        bce -= sum(g * math.log(q) + (1 - g) * math.log(1 - q) for q, g in truth)
        for q, g in truth:
            p_true, weight = (q, alpha) if g else (1 - q, 1 - alpha)
            focal -= weight * (1 - p_true) ** gamma * math.log(p_true)
        overlap = sum(q * g for q, g in truth)
        dice += 1 - (2 * overlap + eps) / (sum(p) + sum(mask) + eps)
        missed = sum((1 - q) * g for q, g in truth)
        excess = sum(q * (1 - g) for q, g in truth)
        tversky += 1 - (overlap + eps) / (overlap + alpha * excess + beta * missed + eps)
    images = len(logits)
    return {
        "bce": bce / masks.numel(),
        "focal": focal / masks.numel(),
        "dice": dice / images,
        "tversky": tversky / images,
    }


@pytest.mark.parametrize("eps", [1e-6, 1.0, 30.0])
def test_losses_equal_the_literal_formulas(pair, eps):
    expected = literal(*pair, gamma=2.5, alpha=0.3, beta=0.8, eps=eps)
    assert bce_loss(*pair).item() == pytest.approx(expected["bce"], rel=1e-12)
    assert dice_loss(*pair, smoothing=eps).item() == pytest.approx(expected["dice"], rel=1e-12)
    assert bce_dice_loss(*pair, smoothing=eps).item() == pytest.approx(expected["bce"] + expected["dice"], rel=1e-12)
    assert focal_loss(*pair, gamma=2.5, alpha=0.3).item() == pytest.approx(expected["focal"], rel=1e-12)
    ours = tversky_loss(*pair, alpha=0.3, beta=0.8, smoothing=eps).item()
    assert ours == pytest.approx(expected["tversky"], rel=1e-12)


def test_losses_agree_with_monai(pair):
    dice = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(*pair)
    assert dice_loss(*pair).item() == pytest.approx(dice.item(), rel=1e-6)
    focal = FocalLoss(gamma=2.0, alpha=0.25)(*pair)
    assert focal_loss(*pair).item() == pytest.approx(focal.item(), rel=1e-6)
    tversky = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=1.0, smooth_dr=1.0)(*pair)
    assert tversky_loss(*pair).item() == pytest.approx(tversky.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right_and_finite_for_extreme_logits(pair, name):
    loss = make_loss(SegmentationConfig(loss=name))
    logits, masks = pair
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), logits.clone().requires_grad_())
    extreme = torch.tensor([-1e4, -80.0, 0.0, 80.0, 1e4]).view(1, 1, 1, 5).requires_grad_()
    for truth in (torch.zeros(1, 1, 1, 5), torch.ones(1, 1, 1, 5)):
        value = loss(extreme, truth)
        (gradient,) = torch.autograd.grad(value, extreme)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_low_precision_logits_are_summed_in_fp32(name):
    loss = make_loss(SegmentationConfig(loss=name))
    logits = torch.full((1, 1, 64, 64), 0.25, dtype=torch.bfloat16)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :32] = 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, masks)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.double(), masks.double()).item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_prediction_costs_nothing_and_a_batch_is_the_mean_of_its_images(pair, name):
    loss = make_loss(SegmentationConfig(loss=name))
    logits, masks = pair
    assert loss((2 * masks - 1) * 50, masks).item() == pytest.approx(0, abs=1e-9)
    alone = [loss(logits[row : row + 1], masks[row : row + 1]).item() for row in range(len(logits))]
    assert loss(logits, masks).item() == pytest.approx(sum(alone) / len(alone), rel=1e-12)
