"""The guided step as DiDGen's released code takes it: the reference method of `guided_step`, in words of our own.

One image at a time. Processors write out the attention of every layer and keep the maps; guidance runs the whole U-Net;
the self-attention loss is a Python loop over map pixels inside autograd, run for both tokens with the same mask; the
fourth power of the mean self-attention map is taken at every step, though only the last one is used. What is restated
is the first step: later ones also add up the maps of all steps before. Guidance's graph is freed once it has served.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

KEPT_PIXELS = 64 * 64
"""The released code keeps no maps of more pixels."""


class MapStore:
    """The attention maps of a pass through the U-Net, with their history: (heads, N, S) by kind and N."""

    def __init__(self) -> None:
        self._maps: dict[tuple[bool, int], list[Tensor]] = {}

    def keep(self, maps: Tensor, *, cross: bool) -> None:
        if maps.shape[1] <= KEPT_PIXELS:
            self._maps.setdefault((cross, maps.shape[1]), []).append(maps)

    def mean(self, pixels: int, *, cross: bool) -> Tensor:
        """(N, S) over the layers and heads of one resolution, in float32."""
        return torch.cat(self._maps[cross, pixels]).mean(0, dtype=torch.float32)

    def clear(self) -> None:
        self._maps.clear()


class MaterialisingProcessor:
    """An attention layer that writes its map out and hands it to a store."""

    def __init__(self, store: MapStore) -> None:
        self._store = store

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_unused: Any
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        query, key, value = (attn.head_to_batch_dim(tokens) for tokens in projected)
        maps = torch.softmax(query @ key.mT * attn.scale, dim=-1).to(query.dtype)
        self._store.keep(maps, cross=encoder_hidden_states is not None)
        mixed = attn.batch_to_head_dim(maps @ value)
        for layer in attn.to_out:
            mixed = layer(mixed)
        return mixed


class ReleasedGuidance:
    """Guided steps of the released code; it takes over the attention processors of the U-Net for good."""

    def __init__(self, unet: UNet2DConditionModel, *, rate: float) -> None:
        self._unet, self._rate, self._store = unet, rate, MapStore()
        unet.set_attn_processor(MaterialisingProcessor(self._store))  # type: ignore[arg-type]

    def step(
        self,
        latents: Tensor,
        timestep: int,
        states: Tensor,
        tokens: Tensor,
        masks: Tensor,
        predict: Callable[[UNet2DConditionModel, Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return by how much guidance moves the latents (B, 4, h, w), and the noise predicted where they have come to.

        Args:
            states: (2, B, 77, d), the encoded empty and the case's own prompts.
            tokens: (B, 3), places of lesion, skin and the end of the prompt.
            masks: (B, 1, H, W) of 0 and 1.
            predict: of (network, latents, states), the noise under classifier-free guidance.
        """
        moves, noises = [], []
        for case in range(len(latents)):
            one = latents[case : case + 1]
            move = self._move(one, timestep, states[1, case : case + 1], tokens[case].tolist(), masks[case : case + 1])
            self._store.clear()
            moves.append(move)
            noises.append(predict(self._unet, one + move, states[:, case : case + 1]))
            self._store.clear()
        return torch.cat(moves), torch.cat(noises)

    @torch.enable_grad()
    def _move(self, latents: Tensor, timestep: int, states: Tensor, tokens: list[int], masks: Tensor) -> Tensor:
        leaf = latents.detach().requires_grad_()
        self._unet(leaf, timestep, states)
        edge = latents.shape[-1]
        cross, own = self._store.mean((edge // 4) ** 2, cross=True), self._store.mean((edge // 2) ** 2, cross=False)
        loss, _ = layout_loss(cross, own, tokens, masks)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return -self._rate * gradient


def layout_loss(cross: Tensor, own: Tensor, tokens: list[int], masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of one case, and the fourth power (N, N) of its self-attention, stretched to [0, 1].

    Args:
        cross: (n, 77), the mean map of cross-attention.
        tokens: places of lesion, skin and the end of the prompt.
        own: (N, N), the mean map of self-attention.
        masks: (1, 1, H, W).
    """
    *placeholders, end = tokens
    words = torch.softmax(100 * cross[:, 1:end], dim=-1)
    power = torch.linalg.matrix_power(own, 4)
    power = (power - power.min()) / (power.max() - power.min())
    lesion = on_grid(masks, len(cross)).flatten()
    terms = []
    for token, inside in zip(placeholders, (lesion, 1 - lesion), strict=True):
        values, outside = words[:, token - 1], 1 - inside
        term = 1 - (values * inside).sum() / inside.sum() + (values * outside).sum() / outside.sum()
        terms.append(term + pixel_by_pixel(own, (on_grid(masks, len(own)) > 0.5).float()))
    return torch.stack(terms).mean(), power


def pixel_by_pixel(own: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the pixels of a mask (E, E) of what they leak out of it, one pixel after the other."""
    edge, outside, leaked = len(mask), 1 - mask, []
    targets = own.view(edge, edge, edge, edge)
    for y in range(edge):
        for x in range(edge):
            if mask[y, x] > 0:
                leaked.append((targets[y, x] * outside).sum() / outside.sum())
    return torch.stack(leaked).mean()


def on_grid(masks: Tensor, pixels: int) -> Tensor:
    """Return a mask (1, 1, H, W) interpolated bilinearly over the area of each of the (E, E) pixels of a map."""
    size = (math.isqrt(pixels),) * 2
    return functional.interpolate(masks, size, mode="bilinear", align_corners=False, antialias=True)[0, 0]
