"""The networks that come with the trainer: those of segmentation-models-pytorch, of torchvision, and Dilated-UNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ...core.config import PluginConfig
from ...core.roles import Architecture
from .config import Rate

if TYPE_CHECKING:
    from .models.network import SegmentationNetwork

ENCODER = "encoder as segmentation-models-pytorch names it; tu-NAME takes one of timm"
ENCODER_STRIDE = 32


class _OnEncoder(Architecture):
    class Config(PluginConfig):
        encoder: str = Field("resnet34", description=ENCODER)

    @property
    def stride(self) -> int:
        return ENCODER_STRIDE

    def build(self) -> SegmentationNetwork:
        from .models.library import SmpNetwork

        return SmpNetwork(self.name, self.config.encoder)


class UNet(_OnEncoder):
    """U-Net (Ronneberger et al. 2015) of segmentation-models-pytorch on a choice of encoders."""

    name = "unet"


class UNetPlusPlus(_OnEncoder):
    """U-Net++ (Zhou et al. 2018) of segmentation-models-pytorch on a choice of encoders."""

    name = "unetplusplus"


class DeepLabV3Plus(_OnEncoder):
    """DeepLabV3+ (Chen et al. 2018) of segmentation-models-pytorch on a choice of encoders."""

    name = "deeplabv3plus"

    class Config(PluginConfig):
        encoder: str = Field("resnet50", description=ENCODER)


class SegFormer(_OnEncoder):
    """SegFormer (Xie et al. 2021) of segmentation-models-pytorch on a choice of encoders."""

    name = "segformer"

    class Config(PluginConfig):
        encoder: str = Field("mit_b0", description=ENCODER)


class DilatedUNet(Architecture):
    """Dilated-UNet of EnhancedDDPM: a U-Net whose bottleneck is two sequential dilated convolutions.

    Width, depth and dilation rates are missing from the paper and chosen by us.
    """

    name = "dilated-unet"

    class Config(PluginConfig):
        width: int = Field(64, ge=1, le=512, description="channels of the first level; each below has twice as many")
        depth: int = Field(4, ge=1, le=6, description="times that the resolution is halved")
        dilations: tuple[Rate, Rate] = Field(
            (2, 2), description="rates of the bottleneck's two convolutions; [1, 1] is the plain U-Net"
        )

    @property
    def stride(self) -> int:
        return 2**self.config.depth

    def build(self) -> SegmentationNetwork:
        from .models.dilated_unet import DilatedUNet

        return DilatedUNet(self.config.width, self.config.depth, self.config.dilations)


class _WithAuxiliaryHead(Architecture):
    def build(self) -> SegmentationNetwork:
        from .models.library import TorchvisionNetwork

        return TorchvisionNetwork(self.name)


class FcnResNet50(_WithAuxiliaryHead):
    """FCN (Long et al. 2015) on a dilated ResNet-50 with an auxiliary head, of torchvision."""

    name = "fcn-resnet50"


class FcnResNet101(_WithAuxiliaryHead):
    """FCN (Long et al. 2015) on a dilated ResNet-101 with an auxiliary head, of torchvision."""

    name = "fcn-resnet101"


class DeepLabV3ResNet50(_WithAuxiliaryHead):
    """DeepLabV3 (Chen et al. 2017) on a dilated ResNet-50 with an auxiliary head, of torchvision."""

    name = "deeplabv3-resnet50"


class DeepLabV3ResNet101(_WithAuxiliaryHead):
    """DeepLabV3 (Chen et al. 2017) on a dilated ResNet-101 with an auxiliary head, of torchvision."""

    name = "deeplabv3-resnet101"


ARCHITECTURES = [
    UNet,
    UNetPlusPlus,
    DeepLabV3Plus,
    SegFormer,
    DilatedUNet,
    FcnResNet50,
    FcnResNet101,
    DeepLabV3ResNet50,
    DeepLabV3ResNet101,
]
