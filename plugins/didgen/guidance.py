"""Layout guidance while sampling, and the soft mask of what was sampled (paper, section 2.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from ..stable_diffusion.attention import AttentionRecorder, record_attention
from .layout import LayoutLoss
from .losses import Compat
from .maps import lesion_soft_masks


class MapRecorders:
    """Recordings of the maps of one U-Net, of both kinds and of cross-attention alone; each ends the pass it records.

    Made once, they serve any number of batches.
    """

    def __init__(self, unet: UNet2DConditionModel, *, cross_factor: int = 4, self_factor: int = 2) -> None:
        """Take maps where a pixel is so many latents wide.

        Raises:
            ValueError: the U-Net has no such layers.
        """
        self.both = record_attention(unet, cross_attention=[cross_factor], self_attention=[self_factor], stop=True)
        self.cross = record_attention(unet, cross_attention=[cross_factor], stop=True)


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
        unet: UNet2DConditionModel,
        states: Tensor,
        tokens: Tensor,
        *,
        recorders: MapRecorders,
        reading_step: int,
        tau: int,
        compat: Compat = "paper",
        masks: Tensor | None = None,
        loss: LayoutLoss | None = None,
        rates: Sequence[float] = (),
    ) -> None:
        """Guide the first ``len(rates)`` steps.

        Args:
            states: (N, 77, d), the encoded prompts.
            tokens: (N, 3), places of the lesion, the skin and the end token in each prompt.
            recorders: of ``unet``.
            reading_step: number of the step before which the maps are read.
            tau: power of the self-attention in the soft masks.
            masks: (N, 1, H, W) of 0 and 1, the layout; needed where ``rates`` are given, as is ``loss``.
            rates: factor on the gradient at each guided step, eta in equation 6.
        """
        self._unet, self._states, self._tokens, self._reading_step = unet, states, tokens, reading_step
        self._masks, self._loss, self._rates = masks, loss, rates
        self._tau = tau
        self._compat: Compat = compat
        self._reader = recorders.both
        self._recorder = recorders.both if loss is None or loss.uses_self else recorders.cross
        self.losses: list[Tensor] = []
        self.soft_masks: Tensor | None = None

    def __call__(self, latents: Tensor, step: int, timestep: int) -> Tensor:
        """Return the latents (N, 4, h, w) to go on with."""
        if step < len(self._rates):
            latents = self._descend(latents, step, timestep)
        if step == self._reading_step:
            self._run(self._reader, latents, timestep)
            self.soft_masks = lesion_soft_masks(
                self._reader.cross_attention(),
                self._reader.self_attention(),
                self._tokens,
                tau=self._tau,
                compat=self._compat,
            )
            self._reader.clear()
        return latents

    def _descend(self, latents: Tensor, step: int, timestep: int) -> Tensor:
        assert self._loss is not None and self._masks is not None
        recorder = self._recorder
        with torch.enable_grad():
            moved = latents.detach().requires_grad_()
            self._run(recorder, moved, timestep)
            own = recorder.self_attention() if self._loss.uses_self else None
            # A loss is a difference of small numbers, and smoothing a convolution that autocast would round.
            with torch.autocast(latents.device.type, enabled=False):
                losses = self._loss(recorder.cross_attention(), own, self._tokens, self._masks)
            (gradient,) = torch.autograd.grad(losses.sum(), moved)
        recorder.clear()
        self.losses.append(losses.detach())
        return latents - self._rates[step] * gradient.to(latents.dtype)

    def _run(self, recorder: AttentionRecorder, latents: Tensor, timestep: int) -> None:
        # Not compiled where the U-Net is: recorded layers would break it into pieces, more than torch compiles.
        with recorder:
            self._unet.forward(latents, timestep, self._states, return_dict=False)


def guidance_rates(
    rate: float, share: float, steps: int, *, compat: Compat = "paper", timesteps: int | None = None
) -> list[float]:
    """Return eta for each of the first ``share`` of ``steps``, rounded down: constant, or falling as released.

    The released code multiplies by the root of a line from 1 at the first timestep to 0.5 at the last, of which it
    guides the first ones.

    Args:
        timesteps: of the scheduler, PNDM has one more than steps; default ``steps``.
    """
    count = math.floor(share * steps + 1e-9)
    if compat == "paper":
        return [rate] * count
    return (rate * torch.linspace(1, 0.5, timesteps or steps).sqrt())[:count].tolist()
