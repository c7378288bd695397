"""A mask as the fourth channel of the autoencoder: two convolutions widened, the latents as they were."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

COLOURS = 3
CONV_IN, CONV_OUT = "encoder.conv_in", "decoder.conv_out"


class WidenedInput(nn.Module):
    """The encoder's first convolution for (N, 4, H, W): the old one on the colours plus a new one on the mask.

    The new one starts at zero, so that the encoder begins as it was.
    """

    def __init__(self, rgb: nn.Conv2d) -> None:
        super().__init__()
        self.rgb = rgb
        self.mask = _like(rgb, 1, rgb.out_channels, bias=False)
        nn.init.zeros_(self.mask.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.rgb(pixels[:, :COLOURS]) + self.mask(pixels[:, COLOURS:])


class WidenedOutput(nn.Module):
    """The decoder's last convolution to (N, 4, H, W): the old one's colours, then the mask's logits.

    The new filter starts as the mean of those of the colours, and so does its bias (ours).
    """

    def __init__(self, rgb: nn.Conv2d) -> None:
        super().__init__()
        self.rgb = rgb
        self.mask = _like(rgb, rgb.in_channels, 1, bias=True)
        assert rgb.bias is not None and self.mask.bias is not None
        with torch.no_grad():
            self.mask.weight.copy_(rgb.weight.mean(0, keepdim=True))
            self.mask.bias.copy_(rgb.bias.mean(0, keepdim=True))

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat((self.rgb(features), self.mask(features)), dim=1)


def widen(vae: AutoencoderKL) -> tuple[WidenedInput, WidenedOutput]:
    """Give ``vae`` a fourth channel at both ends, in place, and return the two layers.

    Raises:
        ValueError: it does not take and give three channels.
    """
    channels = vae.config["in_channels"], vae.config["out_channels"]
    if channels != (COLOURS, COLOURS):
        raise ValueError(f"its vae takes {channels[0]} and gives {channels[1]} channels, where 3 and 3 can be widened")
    first, last = WidenedInput(vae.encoder.conv_in), WidenedOutput(vae.decoder.conv_out)
    vae.encoder.conv_in, vae.decoder.conv_out = first, last  # type: ignore[assignment]
    vae.register_to_config(in_channels=COLOURS + 1, out_channels=COLOURS + 1)
    return first, last


def widened_state(first: WidenedInput, last: WidenedOutput) -> dict[str, Tensor]:
    """Return both layers as plain convolutions of 4 channels, under the names that a 4-channel AutoencoderKL has."""
    tensors = {
        f"{CONV_IN}.weight": torch.cat((first.rgb.weight, first.mask.weight), dim=1),
        f"{CONV_IN}.bias": first.rgb.bias,
        f"{CONV_OUT}.weight": torch.cat((last.rgb.weight, last.mask.weight)),
        f"{CONV_OUT}.bias": torch.cat((last.rgb.bias, last.mask.bias)),  # type: ignore[list-item]
    }
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}  # type: ignore[union-attr]


@torch.no_grad()
def load_widened(first: WidenedInput, last: WidenedOutput, state: Mapping[str, Tensor]) -> None:
    """Take what :func:`widened_state` returned; raises KeyError or RuntimeError where it does not fit."""
    weight = state[f"{CONV_IN}.weight"]
    first.rgb.load_state_dict({"weight": weight[:, :COLOURS], "bias": state[f"{CONV_IN}.bias"]})
    first.mask.load_state_dict({"weight": weight[:, COLOURS:]})
    weight, bias = state[f"{CONV_OUT}.weight"], state[f"{CONV_OUT}.bias"]
    last.rgb.load_state_dict({"weight": weight[:COLOURS], "bias": bias[:COLOURS]})
    last.mask.load_state_dict({"weight": weight[COLOURS:], "bias": bias[COLOURS:]})


def _like(convolution: nn.Conv2d, inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(
        inputs,
        outputs,
        kernel_size=convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=bias,
        dtype=convolution.weight.dtype,
        device=convolution.weight.device,
    )
