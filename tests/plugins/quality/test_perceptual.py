"""Perceptual distances against the formula of the LPIPS paper, written out, and against the package lpips."""

from __future__ import annotations

import pytest
import torch

from lesionforge.plugins.quality.perceptual import embed, nearest_mean, own_nearest_mean, squared_distances


def maps(count: int, seed: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(count, channels, size, size, generator=rng) for channels, size in ((3, 9), (5, 4), (7, 2))]


def literal(one: list[torch.Tensor], other: list[torch.Tensor], weights: list[torch.Tensor] | None) -> float:
    """Zhang et al. (2018), eq. 1, in float64 for two images' lists of (C, H, W) maps."""
    total = 0.0
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        a, b = (x.double() / x.double().norm(dim=0) for x in (a, b))
        squares = (a - b) ** 2
        if weights is not None:
            squares = squares * weights[number].double()[:, None, None]
        total += float(squares.sum(0).mean())
    return total


@pytest.mark.parametrize("learned", [False, True])
def test_distances_match_the_formula(learned: bool) -> None:
    weights = [torch.rand(channels) for channels in (3, 5, 7)] if learned else None
    one, other = maps(3, seed=1), maps(6, seed=2)
    found = squared_distances(embed(one, weights, None), embed(other, weights, None))
    expected = [[literal([m[i] for m in one], [m[j] for m in other], weights) for j in range(6)] for i in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=0)


def test_reduced_maps_never_enlarge_a_distance() -> None:
    one, other = maps(4, seed=3), maps(5, seed=4)
    full = squared_distances(embed(one, None, None), embed(other, None, None))
    reduced = squared_distances(embed(one, None, 3), embed(other, None, 3))
    assert (reduced <= full).all() and (reduced > 0).all()
    large = squared_distances(embed(one, None, 9), embed(other, None, 9))
    assert torch.equal(large, full)


def test_neither_chunks_nor_other_queries_change_a_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = torch.randn(6, 50), torch.randn(23, 50)
    whole = squared_distances(queries, gallery)
    torch.testing.assert_close(whole, torch.cdist(queries.double(), gallery.double()).square())
    for name in ("CHUNK_BYTES", "CACHED_BYTES"):
        monkeypatch.setattr(f"lesionforge.plugins.quality.perceptual.{name}", 8 * 50 * 4)
    torch.testing.assert_close(squared_distances(queries, gallery), whole)
    apart = squared_distances(queries, gallery, apart=True)
    alone = torch.cat([squared_distances(query[None], gallery, apart=True) for query in queries])
    assert torch.equal(apart, alone)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_nearest_real_images_exclude_the_image_itself(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("lesionforge.plugins.quality.perceptual.CHUNK_BYTES", 8 * rows)
    gallery = torch.tensor([[0.0], [1.0], [3.0], [3.0]])
    assert own_nearest_mean(gallery, 1).tolist() == [1, 1, 0, 0]
    assert own_nearest_mean(gallery, 2).tolist() == [5, 2.5, 2, 2]
    assert nearest_mean(squared_distances(torch.tensor([[2.0]]), gallery), 3).tolist() == [1]


def test_zero_maps_have_no_distance() -> None:
    nothing = [torch.zeros(2, 3, 4, 4)]
    assert squared_distances(embed(nothing, None, None), embed(nothing, None, None)).abs().max() == 0
