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


class UNet(Architecture):
    """U-Net (Ronneberger et al. 2015) of segmentation-models-pytorch on a choice of encoders."""

    name = "unet"

    class Config(PluginConfig):
        encoder: str = Field("resnet34", description=ENCODER)

    @property
    def stride(self) -> int:
        return ENCODER_STRIDE

    def build(self) -> SegmentationNetwork:
        from .models.library import SmpNetwork

        return SmpNetwork(self.name, self.config.encoder)


class UNetPlusPlus(Architecture):
    """U-Net++ (Zhou et al. 2018) of segmentation-models-pytorch on a choice of encoders."""

    name = "unetplusplus"

    class Config(PluginConfig):
        encoder: str = Field("resnet34", description=ENCODER)

    @property
    def stride(self) -> int:
        return ENCODER_STRIDE

    def build(self) -> SegmentationNetwork:
        from .models.library import SmpNetwork

        return SmpNetwork(self.name, self.config.encoder)


class DeepLabV3Plus(Architecture):
    """DeepLabV3+ (Chen et al. 2018) of segmentation-models-pytorch on a choice of encoders."""

    name = "deeplabv3plus"

    class Config(PluginConfig):
        encoder: str = Field("resnet50", description=ENCODER)

    @property
    def stride(self) -> int:
        return ENCODER_STRIDE

    def build(self) -> SegmentationNetwork:
        from .models.library import SmpNetwork

        return SmpNetwork(self.name, self.config.encoder)


class SegFormer(Architecture):
    """SegFormer (Xie et al. 2021) of segmentation-models-pytorch on a choice of encoders."""

    name = "segformer"

    class Config(PluginConfig):
        encoder: str = Field("mit_b0", description=ENCODER)

    @property
    def stride(self) -> int:
        return ENCODER_STRIDE

    def build(self) -> SegmentationNetwork:
        from .models.library import SmpNetwork

        return SmpNetwork(self.name, self.config.encoder)


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


class FcnResNet50(Architecture):
    """FCN (Long et al. 2015) on a dilated ResNet-50 with an auxiliary head, of torchvision."""

    name = "fcn-resnet50"

    def build(self) -> SegmentationNetwork:
        from .models.library import TorchvisionNetwork

        return TorchvisionNetwork(self.name)


class FcnResNet101(Architecture):
    """FCN (Long et al. 2015) on a dilated ResNet-101 with an auxiliary head, of torchvision."""

    name = "fcn-resnet101"

    def build(self) -> SegmentationNetwork:
        from .models.library import TorchvisionNetwork

        return TorchvisionNetwork(self.name)


class DeepLabV3ResNet50(Architecture):
    """DeepLabV3 (Chen et al. 2017) on a dilated ResNet-50 with an auxiliary head, of torchvision."""

    name = "deeplabv3-resnet50"

    def build(self) -> SegmentationNetwork:
        from .models.library import TorchvisionNetwork

        return TorchvisionNetwork(self.name)


class DeepLabV3ResNet101(Architecture):
    """DeepLabV3 (Chen et al. 2017) on a dilated ResNet-101 with an auxiliary head, of torchvision."""

    name = "deeplabv3-resnet101"

    def build(self) -> SegmentationNetwork:
        from .models.library import TorchvisionNetwork

        return TorchvisionNetwork(self.name)


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
