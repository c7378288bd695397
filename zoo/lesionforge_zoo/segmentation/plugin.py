"""Four segmentation networks by which papers judge synthetic lesions: DFF-UNet, DCSAU-Net, XBound-Former, MEFP-Net.

The code is our own, from the papers' descriptions. Each network's file says what its paper gives, what it leaves open
and what we chose. No weights come with them, and none are downloaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

import lesionforge as lf

if TYPE_CHECKING:
    from torch import nn

Rate = Annotated[int, Field(ge=1, le=64)]


class DffUNet(lf.Architecture):
    """DFF-UNet (Khan et al. 2025): a light U-Net of residual refinement, a dilated pyramid and bottleneck decoders.

    A re-creation from the paper's abstract: the three modules and their order are the paper's, all sizes are ours,
    chosen so that the network has the 0.19 M parameters that EnhancedDDPM prints for it. Its scores are not those of
    the authors' network.
    """

    name = "dff-unet"

    class Config(lf.PluginConfig):
        width: int = Field(
            20,
            ge=4,
            le=256,
            multiple_of=4,
            description="channels of the first level; level n has n times as many (ours)",
        )
        depth: int = Field(4, ge=1, le=6, description="times that the resolution is halved (ours)")
        rates: tuple[Rate, ...] = Field(
            (1, 2, 4, 8), min_length=1, max_length=8, description="dilation rates of the pyramid's branches (ours)"
        )

    @property
    def stride(self) -> int:
        return 2**self.config.depth

    def build(self) -> nn.Module:
        from .dff_unet import DffUNet

        return DffUNet(self.config.width, self.config.depth, self.config.rates)


class DcsauNet(lf.Architecture):
    """DCSAU-Net (Xu et al. 2023): a U-Net of compact split-attention blocks behind a wide first convolution.

    Blocks and channels are those of the published code, written anew.
    """

    name = "dcsau-net"

    class Config(lf.PluginConfig):
        width: int = Field(
            64,
            ge=8,
            le=512,
            multiple_of=8,
            description="channels of the first level, of which all others are multiples (published: 64)",
        )

    @property
    def stride(self) -> int:
        return 16

    def build(self) -> nn.Module:
        from .dcsau_net import DcsauNet

        return DcsauNet(self.config.width)


class XBoundFormer(lf.Architecture):
    """XBound-Former (Wang et al. 2023): a pyramid transformer that learns the lesion's boundary at and across scales.

    Trained on the mask at four scales and on key points of the boundary, which it finds in the mask by itself. The
    authors start from a pyramid that was trained on ImageNet: give timm's file of it as encoder_weights of the trainer.
    From random weights it will do worse than they say.
    """

    name = "xbound-former"

    class Config(lf.PluginConfig):
        encoder: Literal["pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5"] = Field(
            "pvt_v2_b2", description="PVTv2 pyramid, as timm names it (published: pvt_v2_b2)"
        )
        channels: int = Field(
            128, ge=16, le=1024, multiple_of=16, description="channels of every scale's tokens (published: 128)"
        )
        heads: int = Field(8, ge=1, le=16, description="attention heads, which divide the channels (published: 8)")
        im_blocks: int = Field(
            2, ge=1, le=8, description="implicit boundary blocks of each scale (paper: 2, its code: 1)"
        )
        ex_blocks: int = Field(
            2, ge=1, le=8, description="explicit boundary blocks of each scale (paper: 2, its code: 1)"
        )
        boundary_weight: float = Field(1.0, ge=0, description="weight of the key points' loss (published: 1)")

        @model_validator(mode="after")
        def _heads_divide(self) -> Self:
            if self.channels % self.heads:
                raise ValueError(f"channels = {self.channels} must be a multiple of heads = {self.heads}")
            return self

    @property
    def stride(self) -> int:
        return 32

    def build(self) -> nn.Module:
        from .xbound_former import XBoundFormer

        config = self.config
        return XBoundFormer(
            config.encoder,
            config.channels,
            heads=config.heads,
            im_blocks=config.im_blocks,
            ex_blocks=config.ex_blocks,
            boundary_weight=config.boundary_weight,
        )


class MefpNet(lf.Architecture):
    """MEFP-Net (Hao et al. 2024): two encoders, one for detail and one for context, and a decoder that feels for edges.

    A re-creation from the paper's abstract: which modules there are and what each is for is the paper's, their insides
    and all sizes are ours. Its scores are not those of the authors' network.
    """

    name = "mefp-net"

    class Config(lf.PluginConfig):
        width: int = Field(
            32,
            ge=8,
            le=256,
            multiple_of=8,
            description="channels of the first level; each below has twice as many (ours)",
        )
        depth: int = Field(4, ge=1, le=6, description="times that the resolution is halved (ours)")

    @property
    def stride(self) -> int:
        return 2**self.config.depth

    def build(self) -> nn.Module:
        from .mefp_net import MefpNet

        return MefpNet(self.config.width, self.config.depth)


@lf.hookimpl
def register_plugins() -> list[type[lf.Architecture]]:
    """Register what this module offers."""
    return [DffUNet, DcsauNet, XBoundFormer, MefpNet]
