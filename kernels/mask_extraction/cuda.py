"""Mask extraction in CUDA (kernels/csrc/cuda/mask_extraction.cu): every launch takes the whole batch, none waits."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .. import cuda


def otsu_threshold(maps: Tensor, bins: int) -> Tensor:
    maps = maps.contiguous()
    out = torch.empty(len(maps), dtype=maps.dtype, device=maps.device)
    space = cuda.workspace("threshold_workspace", maps.device, len(maps))
    cuda.launch(
        "otsu_threshold",
        maps.device,
        maps.data_ptr(),
        out.data_ptr(),
        maps.dtype == torch.uint8,
        len(maps),
        *maps.shape[2:],
        bins,
        space.data_ptr(),
    )
    return out


def extract_masks(maps: Tensor, size: int, closing: int, largest_component: bool, taps: list[float]) -> Tensor:
    maps = maps.contiguous()
    out = torch.empty(len(maps), 1, size, size, dtype=torch.float32, device=maps.device)
    space = cuda.workspace("mask_workspace", maps.device, len(maps), size, size)
    cuda.launch(
        "extract_masks",
        maps.device,
        maps.data_ptr(),
        out.data_ptr(),
        maps.dtype == torch.uint8,
        len(maps),
        *maps.shape[2:],
        size,
        closing,
        largest_component,
        (ctypes.c_float * len(taps))(*taps),
        len(taps),
        space.data_ptr(),
    )
    return out


def clean_masks(masks: Tensor, closing: int, largest_component: bool) -> Tensor:
    masks = masks.contiguous()
    out = torch.empty(masks.shape, dtype=torch.float32, device=masks.device)
    space = cuda.workspace("mask_workspace", masks.device, len(masks), *masks.shape[2:])
    cuda.launch(
        "clean_masks",
        masks.device,
        masks.data_ptr(),
        out.data_ptr(),
        len(masks),
        *masks.shape[2:],
        closing,
        largest_component,
        space.data_ptr(),
    )
    return out
