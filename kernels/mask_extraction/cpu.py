"""Mask extraction in C++ (kernels/csrc/mask_extraction.cpp), one map a thread, on as many threads as torch uses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native
from .ellipse import half_widths


def otsu_threshold(maps: Tensor, bins: int) -> Tensor:
    maps = maps.contiguous()
    out = torch.empty(len(maps), dtype=maps.dtype)
    native.module().otsu_threshold(
        maps.data_ptr(),
        out.data_ptr(),
        maps.dtype == torch.uint8,
        len(maps),
        maps.shape[2] * maps.shape[3],
        bins,
        torch.get_num_threads(),
    )
    return out


def extract_masks(maps: Tensor, size: int, closing: int, largest_component: bool, taps: list[float]) -> Tensor:
    maps = maps.contiguous()
    out = torch.empty(len(maps), 1, size, size)
    native.module().extract_masks(
        maps.data_ptr(),
        out.data_ptr(),
        maps.dtype == torch.uint8,
        len(maps),
        maps.shape[2],
        maps.shape[3],
        size,
        half_widths(closing) if closing else [],
        largest_component,
        taps,
        torch.get_num_threads(),
    )
    return out


def clean_masks(masks: Tensor, closing: int, largest_component: bool) -> Tensor:
    masks = masks.contiguous()
    out = torch.empty(masks.shape, dtype=torch.float32)
    native.module().clean_masks(
        masks.data_ptr(),
        out.data_ptr(),
        len(masks),
        *masks.shape[2:],
        half_widths(closing) if closing else [],
        largest_component,
        torch.get_num_threads(),
    )
    return out
