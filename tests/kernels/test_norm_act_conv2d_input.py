from __future__ import annotations

import pytest
import torch

from lesionforge.kernels import BackendUnavailable, norm_act_conv2d

GOOD = {
    "x": torch.zeros(1, 4, 3, 3),
    "gamma": torch.ones(4),
    "beta": torch.zeros(4),
    "weight": torch.zeros(5, 4, 3, 3),
    "bias": torch.zeros(5),
    "groups": 2,
    "shift": torch.zeros(1, 5),
    "residual": torch.zeros(1, 5, 3, 3),
}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": torch.zeros(4, 3, 3)}, ValueError, r"x must have shape \(B, C, H, W\)"),
        ({"x": torch.zeros(1, 4, 0, 3)}, ValueError, "above 0"),
        ({"gamma": torch.zeros(3)}, ValueError, r"gamma must have shape \(4,\), not \(3,\)"),
        ({"weight": torch.zeros(5, 4, 1, 1)}, ValueError, r"weight must have shape \(D, 4, 3, 3\)"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must have shape \(5,\)"),
        ({"shift": torch.zeros(5)}, ValueError, r"shift must have shape \(1, 5\)"),
        ({"residual": torch.zeros(1, 5, 1, 1)}, ValueError, r"residual must have shape \(1, 5, 3, 3\)"),
        ({"groups": 3}, ValueError, "groups must divide the 4 channels, not be 3"),
        ({"groups": 0}, ValueError, "groups must divide"),
        ({"groups": 4.0}, TypeError, r"groups must be an integer, not 4\.0"),
        ({"dilation": 1.5}, TypeError, r"dilation must be an integer, not 1\.5"),
        ({"eps": -1.0}, ValueError, "eps must be at least 0"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1"),
        ({"weight": torch.zeros(5, 4, 3, 3, dtype=torch.float64)}, TypeError, r"x's dtype torch\.float32"),
        ({"gamma": torch.zeros(4, dtype=torch.float64)}, TypeError, "gamma and beta must be"),
        ({"x": torch.zeros(1, 4, 3, 3, dtype=torch.int32)}, TypeError, "floating point"),
        ({"bias": torch.zeros(5, device="meta")}, ValueError, "one device"),
        ({"backend": "cuda"}, BackendUnavailable, "no backend 'cuda'"),
    ],
)
def test_bad_input(changed: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        norm_act_conv2d(**{**GOOD, **changed})
