"""DiDGen's losses against the equations written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from lesionforge.plugins.didgen.layout import DiDGenLoss, RefocusingLoss, ZestLoss
from lesionforge.plugins.didgen.losses import cross_loss, on_grid, region_loss, self_loss, sharpened_maps, token_maps
from lesionforge.plugins.stable_diffusion.attention import RecordedAttention

from . import literal

WORDS = 9
PLACES = torch.tensor([[2, 4, 8], [5, 3, 6]])
"""Lesion, skin and end token of both cases; the second one's prompt is padded."""
TOKENS = PLACES[:, :2]


def recorded(query: Tensor, key: Tensor) -> RecordedAttention:
    """One layer whose maps are the given ones."""
    return RecordedAttention((query,), (key,))


def attention(edge: int, keys: int | None = None, *, seed: int = 0) -> RecordedAttention:
    """Queries and keys of two cases and three maps in float64, for an edge x edge grid."""
    rng = torch.Generator().manual_seed(seed)
    shape = (2, 3, edge * edge, 8)
    query = 2 * torch.randn(shape, generator=rng, dtype=torch.float64)
    key = 2 * torch.randn((2, 3, keys or edge * edge, 8), generator=rng, dtype=torch.float64)
    return recorded(query.requires_grad_(), key.requires_grad_())


def masks(size: int = 32, *, seed: int = 0) -> Tensor:
    """Two (1, size, size) masks: an ellipse and a rectangle."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    ellipse = ((y - 13) / 9.0) ** 2 + ((x - 18 + seed) / 6.0) ** 2 < 1
    rectangle = (y > 5) & (y < 21) & (x > 3) & (x < 15)
    return torch.stack((ellipse, rectangle))[:, None].double()


def assert_same(made: Tensor, literally: list[Tensor], attentions: RecordedAttention, tolerance: float = 1e-9) -> None:
    """Values of both cases, and the gradients of their sum to queries and keys."""
    expected = torch.stack(literally)
    torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance)
    inputs = (*attentions.queries, *attentions.keys)
    for ours, theirs in zip(
        torch.autograd.grad(made.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_masks_come_to_the_grid_by_area():
    regions = on_grid(masks(), 64)
    for case, mask in enumerate(masks()):
        torch.testing.assert_close(regions[case, :, 0], literal.area_mask(mask[0], 8).flatten())
    torch.testing.assert_close(regions.sum(-1), torch.ones(2, 64, dtype=torch.float64))


def test_the_released_codes_masks_are_bicubic():
    """Keys' kernel with a = -0.75 halfway between pixels: a map pixel's middle lies between pixels 4i + 1, 4i + 2."""
    weights = torch.tensor([-0.09375, 0.59375, 0.59375, -0.09375], dtype=torch.float64)
    windows = masks()[0, 0].unfold(0, 4, 4).unfold(1, 4, 4)  # pixels 4i to 4i + 3
    expected = torch.einsum("ijkl,k,l->ij", windows, weights, weights)
    torch.testing.assert_close(on_grid(masks(), 64, "bicubic")[0, :, 0].view(8, 8), expected)


@pytest.mark.parametrize("edge", [4, 8, 12])
def test_the_released_codes_masks_for_guidance_are_pillows_bilinear_ones(edge):
    regions = on_grid(masks(), edge * edge, "bilinear")[..., 0].view(2, edge, edge)
    for made, mask in zip(regions, masks(), strict=True):
        picture = Image.fromarray((255 * mask[0]).byte().numpy())
        expected = np.asarray(picture.resize((edge, edge), Image.Resampling.BILINEAR)) / 255
        assert np.abs(made.numpy() - expected).max() < 1.5 / 255  # Pillow rounds to levels, once in each direction
    assert float(regions.min()) >= 0 and float(((regions > 0.01) & (regions < 0.99)).double().mean()) > 0.1


def test_smoothing_is_in_full_precision_under_autocast():
    cross = attention(8, WORDS)
    narrow = recorded(cross.query.detach().float(), cross.key.detach().float())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
        maps = token_maps(narrow, TOKENS)
    assert maps.dtype == torch.float32
    expected = literal.mean_map(narrow.query, narrow.key)[torch.arange(2)[:, None], :, TOKENS].mT
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)


def test_region_loss_is_equation_3():
    cross = attention(8, WORDS)
    maps = literal.mean_map(cross.query, cross.key)
    expected = [literal.region_loss(maps[i], TOKENS[i].tolist(), masks()[i, 0]) for i in range(2)]
    assert_same(region_loss(cross, TOKENS, masks()), expected, cross)


def test_region_loss_of_the_released_code_stretches_each_map_first():
    cross = attention(8, WORDS)
    maps = literal.mean_map(cross.query, cross.key)
    regions = on_grid(masks(), 64, "bicubic")
    expected = []
    for case in range(2):
        chosen = maps[case][:, TOKENS[case]]
        low, high = chosen.min(0).values, chosen.max(0).values
        expected.append(torch.nn.functional.mse_loss((chosen - low) / (high - low), regions[case]))
    assert_same(region_loss(cross, TOKENS, masks(), compat="reference"), expected, cross)


def test_cross_loss_is_equation_3_on_smoothed_maps():
    cross = attention(8, WORDS)
    maps = literal.mean_map(cross.query, cross.key)
    expected = [
        literal.region_loss(literal.blurred(maps[i]), TOKENS[i].tolist(), masks()[i, 0]) for i in range(2)
    ]
    assert_same(cross_loss(cross, PLACES, masks()), expected, cross, 1e-6)


def test_cross_loss_of_the_released_code_compares_inside_with_outside():
    cross = attention(8, WORDS)
    maps = literal.mean_map(cross.query, cross.key)
    sharpened = [literal.sharpened(maps[case], int(PLACES[case, 2])) for case in range(2)]
    regions = on_grid(masks(), 64, "bilinear")
    expected = []
    for case in range(2):
        terms = []
        for i in range(2):
            values, inside = sharpened[case][:, TOKENS[case, i] - 1], regions[case, :, i]
            outside = 1 - regions[case, :, i]
            terms.append(1 - (values * inside).sum() / inside.sum() + (values * outside).sum() / outside.sum())
        expected.append(torch.stack(terms).mean())
    assert_same(cross_loss(cross, PLACES, masks(), compat="reference"), expected, cross)
    made = sharpened_maps(cross, TOKENS, PLACES[:, 2])
    for case in range(2):
        torch.testing.assert_close(made[case], sharpened[case][:, TOKENS[case] - 1])


@pytest.mark.parametrize("two_sided", [True, False])
def test_self_loss_is_equation_5(two_sided):
    own = attention(8)
    maps = literal.mean_map(own.query, own.key)
    expected = [literal.self_loss(maps[i], masks()[i, 0], two_sided=two_sided) for i in range(2)]
    assert_same(self_loss(own, masks(), two_sided=two_sided), expected, own)


def test_self_loss_of_the_released_code_is_a_mean_over_the_lesion():
    own = attention(8)
    maps = literal.mean_map(own.query, own.key)
    expected = []
    for case in range(2):
        inside = on_grid(masks(), 64, "bilinear")[case, :, 0] > 0.5
        leaked = [maps[case, p][~inside].sum() / (~inside).sum() for p in inside.nonzero().flatten()]
        expected.append(torch.stack(leaked).mean())
    assert_same(self_loss(own, masks(), compat="reference"), expected, own)


def test_an_ideal_map_has_no_loss_and_a_wrong_one_has():
    """A cross map that is 1 on its region costs nothing, its opposite 1; self-attention within regions nothing."""
    lesion = masks(8)[:1]
    inside = lesion.flatten() > 0.5
    query = torch.where(inside[:, None], torch.tensor([1.0, 0]), torch.tensor([0, 1.0])).double()[None, None]
    key = 1000 * torch.eye(2, dtype=torch.float64)[None, None]
    ideal = recorded(query, torch.cat((torch.zeros(1, 1, 1, 2), key), dim=2))
    tokens = torch.tensor([[1, 2]])
    assert float(region_loss(ideal, tokens, lesion)) < 1e-12
    assert float(region_loss(ideal, tokens.flip(1), lesion)) == pytest.approx(1, abs=1e-9)
    assert float(self_loss(recorded(1000 * query, query), lesion)) < 1e-12


@settings(max_examples=20, deadline=None)
@given(
    loss=st.sampled_from([DiDGenLoss(), DiDGenLoss("reference"), ZestLoss(), RefocusingLoss()]), seed=st.integers(0, 99)
)
def test_a_cases_gradient_is_its_own(loss, seed):
    """The value and the gradients of a case do not change with its neighbour."""
    cross, own = attention(4, WORDS, seed=seed), attention(8, seed=seed + 1)
    together = loss(cross, own, PLACES, masks())
    alone = loss(
        recorded(cross.query[:1], cross.key[:1]), recorded(own.query[:1], own.key[:1]), PLACES[:1], masks()[:1]
    )
    torch.testing.assert_close(together[:1], alone)
    inputs = (*cross.queries, *cross.keys, *own.queries, *own.keys)
    grads = torch.autograd.grad(together.sum(), inputs, allow_unused=True)
    for both, single in zip(grads, torch.autograd.grad(alone.sum(), inputs, allow_unused=True), strict=True):
        assert (both is None) == (single is None)
        if both is not None:
            torch.testing.assert_close(both[:1], single[:1])


@pytest.mark.parametrize("loss", [DiDGenLoss(), ZestLoss(), RefocusingLoss()], ids=["didgen", "zest", "refocusing"])
def test_descending_a_layout_loss_moves_attention_into_the_region(loss):
    cross, own = attention(4, WORDS), attention(8)
    tensors = [*cross.queries, *cross.keys, *own.queries, *own.keys]
    optimizer = torch.optim.Adam(tensors, lr=0.1)
    inside = on_grid(masks(), 16)

    def share() -> float:
        maps = literal.mean_map(cross.query, cross.key)[torch.arange(2)[:, None], :, TOKENS].mT.detach()
        return float((maps * inside).sum() / maps.sum())

    before = share()
    for _ in range(60):
        optimizer.zero_grad()
        loss(cross, own, PLACES, masks()).sum().backward()
        optimizer.step()
    assert share() > before + 0.25


def test_terms_can_be_left_out():
    cross, own = attention(4, WORDS), attention(8)
    parts = [
        DiDGenLoss(use_self=False)(cross, own, PLACES, masks()),
        DiDGenLoss(use_cross=False)(cross, own, PLACES, masks()),
    ]
    torch.testing.assert_close(sum(parts), DiDGenLoss()(cross, own, PLACES, masks()))
    assert all(float(part.detach().min()) > 0 for part in parts)
