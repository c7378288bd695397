"""Layout guidance while sampling, and the soft mask of what was sampled (paper, section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stable_diffusion.attention import record_attention
from ..stable_diffusion.base import StableDiffusionBase
from .layout import LayoutLoss
from .losses import Compat
from .maps import lesion_soft_masks


@dataclass(frozen=True)
class MapPlaces:
    """Where in the U-Net maps are taken: ``cross`` and ``own`` latents per map pixel, along an edge."""

    cross: int = 4
    own: int = 2


class LayoutGuide:
    """Moves the latents of a batch down the gradient of a layout loss, and reads the maps at the last step.

    The U-Net of guidance sees the prompts alone and stops after the last layer that the loss needs. Losses are summed
    over cases, so each case goes down its own gradient. Pass it to ``stable_diffusion.sampling.sample`` as ``guide``.

    Attributes:
        soft_masks: (N, 1, E, E) fp32 in [0, 1] after sampling, E the edge of the self-attention maps.
        losses: one (N,) tensor for every guided step.
    """

    def __init__(
        self,
        base: StableDiffusionBase,
        states: Tensor,
        tokens: Tensor,
        *,
        steps: int,
        places: MapPlaces,
        tau: int,
        compat: Compat = "paper",
        masks: Tensor | None = None,
        loss: LayoutLoss | None = None,
        rates: Sequence[float] = (),
    ) -> None:
        """Guide the first ``len(rates)`` of ``steps`` steps.

        Args:
            states: (N, 77, d), the encoded prompts.
            tokens: (N, 2), places of the lesion and the skin token in each prompt.
            steps: of the whole sampling; the maps are read before the last.
            tau: power of the self-attention in the soft masks.
            masks: (N, 1, H, W) of 0 and 1, the layout; needed where ``rates`` are given, as is ``loss``.
            rates: factor on the gradient at each guided step, eta in equation 6.
        """
        self._unet, self._states, self._tokens, self._steps = base.unet, states, tokens, steps
        self._masks, self._loss, self._rates = masks, loss, rates
        self._tau = tau
        self._compat: Compat = compat
        self._recorder = record_attention(
            base.unet, cross_attention=[places.cross], self_attention=[places.own], stop=True
        )
        self.losses: list[Tensor] = []
        self.soft_masks: Tensor | None = None

    def __call__(self, latents: Tensor, step: int, timestep: int) -> Tensor:
        """Return the latents (N, 4, h, w) to go on with."""
        if step < len(self._rates):
            latents = self._descend(latents, step, timestep)
        if step == self._steps - 1:
            self._record(latents, timestep)
            self.soft_masks = lesion_soft_masks(
                self._recorder.cross_attention(),
                self._recorder.self_attention(),
                self._tokens[:, 0],
                tau=self._tau,
                compat=self._compat,
            )
            self._recorder.clear()
        return latents

    def _descend(self, latents: Tensor, step: int, timestep: int) -> Tensor:
        assert self._loss is not None and self._masks is not None
        with torch.enable_grad():
            moved = latents.detach().requires_grad_()
            self._record(moved, timestep)
            losses = self._loss(
                self._recorder.cross_attention(), self._recorder.self_attention(), self._tokens, self._masks
            )
            (gradient,) = torch.autograd.grad(losses.sum(), moved)
        self._recorder.clear()
        self.losses.append(losses.detach())
        return latents - self._rates[step] * gradient.to(latents.dtype)

    def _record(self, latents: Tensor, timestep: int) -> None:
        with self._recorder:
            self._unet(latents, timestep, self._states, return_dict=False)


def guidance_rates(rate: float, share: float, steps: int, *, compat: Compat = "paper") -> list[float]:
    """Return eta for each of the first ``share`` of ``steps``: constant, or falling as in the released code.

    The released code multiplies by the root of a line from 1 to 0.5 over the guided steps.
    """
    count = int(share * steps)
    if compat == "paper":
        return [rate] * count
    return (rate * torch.linspace(1, 0.5, count).sqrt()).tolist()
