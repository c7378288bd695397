"""What learns: LoRA in the U-Net and the mask's filters in the autoencoder, with all that is frozen around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft.peft_model import PeftModel
from torch import Tensor, nn

from ...core.errors import CheckpointError, ConfigError, first_line
from ..stable_diffusion.adaptation import with_lora
from ..stable_diffusion.base import StableDiffusionBase
from .widening import COLOURS, WidenedInput, WidenedOutput, widen

if TYPE_CHECKING:
    from .plugin import SkinDualGenTrainerConfig


@dataclass(frozen=True)
class Prediction:
    """What one step says of N noised latents.

    Attributes:
        output, target: (N, 4, h, w), the U-Net's prediction and what it should be.
        channels: (N, 4, H, W), the predicted clean latents decoded: colours in [-1, 1] or so, then the mask's logits.
    """

    output: Tensor
    target: Tensor
    channels: Tensor

    @property
    def logits(self) -> Tensor:
        """The mask's logits (N, 1, H, W)."""
        return self.channels[:, COLOURS:]


class PairNetwork(nn.Module):
    """A base with a widened autoencoder and LoRA. Only what may learn is registered: resume points are small.

    Attributes:
        adapted: the U-Net as peft's model; its frozen weights are not registered here.
        first, last: the two widened convolutions.
    """

    def __init__(self, base: StableDiffusionBase, adapted: PeftModel, first: WidenedInput, last: WidenedOutput) -> None:
        super().__init__()
        self.adapter = nn.ParameterList(weight for weight in adapted.parameters() if weight.requires_grad)
        self.first, self.last = first, last
        # A tuple hides them from torch's registration.
        self._frozen = (base, adapted)

    @property
    def adapted(self) -> PeftModel:
        return self._frozen[1]

    def forward(
        self, images: Tensor, masks: Tensor, draws: Tensor, noise: Tensor, timesteps: Tensor, states: Tensor
    ) -> Prediction:
        """Encode, noise, predict, and decode what the prediction means (paper, section 3.3).

        The encoder learns from the masks alone: the U-Net's input and target are cut off from it, since it could make
        noise easy to predict by making latents useless (ours).

        Args:
            images: (N, 3, H, W) in [0, 1].
            masks: (N, 1, H, W) of 0 and 1, encoded as they are (ours).
            draws: standard normals shaped like the latents, which draw them from their posterior.
            noise: standard normals shaped like the latents.
            timesteps: (N,).
            states: (N, 77, d) of the prompts.
        """
        base, adapted = self._frozen
        vae, schedule = base.vae, base.schedule
        scale = vae.config["scaling_factor"]
        posterior = vae.encode(torch.cat((images * 2 - 1, masks), dim=1)).latent_dist  # type: ignore[union-attr]
        clean = (posterior.mean + posterior.std * draws) * scale
        noisy = schedule.noised(clean.to(noise.dtype), noise, timesteps)
        output = adapted(noisy.detach(), timesteps, states, return_dict=False)[0].to(noise.dtype)
        denoised = schedule.denoised(output, noisy, timesteps)
        channels = vae.decode(denoised / scale, return_dict=False)[0]  # type: ignore[union-attr]
        return Prediction(output, schedule.target(clean.detach().to(noise.dtype), noise, timesteps), channels)


def pair_network(base: StableDiffusionBase, config: SkinDualGenTrainerConfig, seed: int) -> PairNetwork:
    """Widen and adapt ``base`` in place, freeze the rest, and return what learns.

    Raises:
        CheckpointError: its autoencoder is not one of three channels.
        ConfigError: it has no layers of the names in ``targets``.
    """
    for network in (base.unet, base.vae, base.text_encoder):
        network.requires_grad_(False)
    first, last = widened(base)
    for layer in (first, last):
        layer.mask.requires_grad_(not config.strict_frozen)
        layer.rgb.requires_grad_(not config.strict_frozen and not config.keep_rgb)
    if config.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
        base.vae.enable_gradient_checkpointing()
    if config.vae_slicing:
        base.vae.enable_slicing()
    try:
        adapted = with_lora(base, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=seed)
    except ValueError as error:
        raise ConfigError(f"targets = {list(config.targets)} do not fit the base: {first_line(error)}") from error
    return PairNetwork(base, adapted, first, last)


def widened(base: StableDiffusionBase) -> tuple[WidenedInput, WidenedOutput]:
    """Widen the autoencoder of ``base``, see :func:`widening.widen`; raises CheckpointError where it cannot be."""
    try:
        return widen(base.vae)
    except ValueError as error:
        raise CheckpointError(f"Stable Diffusion base {base.folder}: {error}") from error
