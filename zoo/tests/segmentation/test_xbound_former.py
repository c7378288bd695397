from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from lesionforge_zoo.segmentation.plugin import XBoundFormer
from lesionforge_zoo.segmentation.xbound_former import Predictions, boundary_points, sine_positions


def build(**values):
    torch.manual_seed(0)
    return XBoundFormer(XBoundFormer.Config(encoder="pvt_v2_b0", channels=16, heads=4, **values)).build()


def literal_points(mask: np.ndarray) -> np.ndarray:
    """Key points of an (H, W) mask of 64 pixels, spread, pixel by pixel: disc radius 1, reach 8, spread 2."""
    size = len(mask)
    bend = np.full(mask.shape, np.nan)
    for y, x in zip(*np.nonzero(mask), strict=True):
        window = mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if not window.all():
            disc = [(y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = sum(mask[min(max(i, 0), size - 1), min(max(j, 0), size - 1)] for i, j in disc)
            bend[y, x] = abs(inside - 4) / 5
    points = np.zeros(mask.shape)
    for y, x in zip(*np.nonzero(~np.isnan(bend)), strict=True):
        near = bend[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9]
        if bend[y, x] == np.nanmax(near) > np.nanmin(near):
            points[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = 1
    return points


def test_key_points_are_where_the_outline_bends():
    square, cut, empty, full = (torch.zeros(64, 64) for _ in range(4))
    square[16:48, 12:52] = 1
    cut[20:, 20:] = 1
    full[:] = 1
    found = boundary_points(torch.stack([square, cut, empty, full]).unsqueeze(1))
    assert found.shape == (4, 1, 64, 64) and not found[2:].any()
    centres = [[(y, x) for y in (16, 47) for x in (12, 51)], [(20, 20)]]
    for maps, corners in zip(found[:2, 0], centres, strict=True):
        expected = torch.zeros(64, 64)
        for y, x in corners:
            expected[y - 2 : y + 3, x - 2 : x + 3] = 1
        assert torch.equal(maps, expected)


def test_key_points_agree_with_a_search_pixel_by_pixel():
    noise = F.avg_pool2d(torch.rand(3, 1, 76, 76, generator=torch.Generator().manual_seed(1)), 13, stride=1)
    masks = (noise > noise.mean()).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = boundary_points(masks)
    assert found.dtype == torch.float32 and 0 < found.mean() < 0.5
    for maps, mask in zip(found, masks, strict=True):
        assert np.array_equal(maps[0].numpy(), literal_points(mask[0].numpy()))


def test_the_loss_is_that_of_the_paper():
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 10:40, 20:50] = 1
    outputs = Predictions(torch.randn(2, 4, 64, 64), [torch.randn(2, 1, edge, edge) for edge in (8, 8, 4, 2)])
    truth = boundary_points(masks)
    entropies = [
        F.binary_cross_entropy_with_logits(p, F.adaptive_max_pool2d(truth, p.shape[-1])) for p in outputs.points
    ]
    of_masks = [(outputs.masks[:, n : n + 1] - masks).square().mean() for n in range(4)]
    expected = sum(of_masks) / 4 + 0.5 * sum(entropies) / 4
    network = build(boundary_weight=0.5, im_blocks=1, ex_blocks=1)
    assert network.training_loss(outputs, masks, F.mse_loss).item() == pytest.approx(float(expected), rel=1e-5)


def test_a_prediction_of_every_scale_and_a_map_of_every_block_are_trained():
    network = build(im_blocks=2, ex_blocks=1).train()
    outputs = network(torch.randn(2, 3, 64, 96))
    assert outputs.masks.shape == (2, 4, 64, 96)
    assert [tuple(points.shape[2:]) for points in outputs.points] == [*[(8, 12)] * 3, *[(4, 6)] * 3, *[(2, 3)] * 3]


def test_attention_to_one_embedding_is_one_linear_map_of_it():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    queries, embedding = torch.randn(3, 5, 8), torch.randn(3, 1, 8)
    attended, _ = attention(queries, embedding, embedding)
    value = F.linear(embedding, attention.in_proj_weight[16:], attention.in_proj_bias[16:])
    assert torch.allclose(attended, attention.out_proj(value).expand(-1, 5, -1), atol=1e-6)


def test_positions_tell_rows_from_columns():
    positions = sine_positions(3, 5, 16, device=torch.device("cpu")).unflatten(1, (3, 5))
    assert torch.equal(positions[..., :8], positions[:, :, :1, :8].expand(-1, -1, 5, -1))
    assert torch.equal(positions[..., 8:], positions[:, :1, :, 8:].expand(-1, 3, -1, -1))
    assert len(positions.flatten(0, 2).unique(dim=0)) == 15


def test_pretrained_pyramids_of_timm_fit():
    names = timm.create_model("pvt_v2_b0", pretrained=False).state_dict().keys()
    body = {name for name in names if not name.startswith("head.")}
    assert build(im_blocks=1, ex_blocks=1).encoder_module().state_dict().keys() == body
