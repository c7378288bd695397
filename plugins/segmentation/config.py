"""Typed settings of segmentation networks and their training; no torch here, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ...core.config import Checkpoint, PluginConfig
from ..supervised.settings import TrainingSettings

Architecture = Literal[
    "unet",
    "unetplusplus",
    "deeplabv3plus",
    "segformer",
    "dilated-unet",
    "fcn-resnet50",
    "fcn-resnet101",
    "deeplabv3-resnet50",
    "deeplabv3-resnet101",
]
Rate = Annotated[int, Field(ge=1, le=64)]
LossName = Literal["bce+dice", "dice", "bce", "focal", "tversky"]

DEFAULT_ENCODERS = {
    "unet": "resnet34",
    "unetplusplus": "resnet34",
    "deeplabv3plus": "resnet50",
    "segformer": "mit_b0",
}
DILATED_UNET = "dilated-unet"
ENCODER_STRIDE = 32


class NetworkConfig(PluginConfig):
    """What fixes a network's layers and the size of its input."""

    architecture: Architecture = Field(DILATED_UNET, description="network to train")
    encoder: str | None = Field(
        None,
        description="encoder of unet (resnet34 by default), unetplusplus (resnet34), deeplabv3plus (resnet50) or "
        "segformer (mit_b0), as segmentation-models-pytorch names it; tu-NAME takes one of timm",
    )
    width: int | None = Field(None, ge=1, le=512, description="dilated-unet: channels of the first level (64)")
    depth: int | None = Field(None, ge=1, le=6, description="dilated-unet: times that the resolution is halved (4)")
    dilations: tuple[Rate, Rate] | None = Field(
        None, description="dilated-unet: rates of the bottleneck's two convolutions ([2, 2]); [1, 1] is the plain U-Net"
    )
    size: int = Field(256, ge=16, le=2048, description="edge in pixels to which images and masks are resized")

    @field_validator("encoder", "width", "depth", "dilations")
    @classmethod
    def _applies(cls, value: Any, info: ValidationInfo) -> Any:
        architecture = info.data.get("architecture")
        fitting = tuple(DEFAULT_ENCODERS) if info.field_name == "encoder" else (DILATED_UNET,)
        if value is not None and architecture is not None and architecture not in fitting:
            raise ValueError(f"{info.field_name} applies to {', '.join(fitting)}, not to {architecture}")
        return value

    @field_validator("size")
    @classmethod
    def _halves(cls, value: int, info: ValidationInfo) -> int:
        architecture = info.data.get("architecture")
        stride = ENCODER_STRIDE if architecture in DEFAULT_ENCODERS else 1
        if architecture == DILATED_UNET:
            stride = 2 ** (info.data.get("depth") or 4)
        if value % stride:
            raise ValueError(f"{architecture} needs a multiple of {stride}")
        return value

    def network_values(self) -> dict[str, Any]:
        """Return what fixes the network with the architecture's defaults filled in, so that a checkpoint keeps them."""
        values: dict[str, Any] = {"architecture": self.architecture, "size": self.size}
        if self.architecture in DEFAULT_ENCODERS:
            values["encoder"] = self.encoder or DEFAULT_ENCODERS[self.architecture]
        if self.architecture == DILATED_UNET:
            values |= {"width": self.width or 64, "depth": self.depth or 4, "dilations": self.dilations or (2, 2)}
        return values


class SegmentationConfig(TrainingSettings, NetworkConfig):
    """Training of a segmentation network.

    EnhancedDDPM gives BCE + Dice, RMSprop with momentum 0.9, at most 50 epochs and batch 8; its learning rate, weight
    decay, input size and augmentation are missing from the text and chosen by us.
    """

    encoder_weights: Checkpoint | None = Field(
        None,
        description="local .safetensors or .pth file with pretrained weights of the encoder; nothing is downloaded",
    )
    loss: LossName = Field("bce+dice", description="loss on the logits")
    dice_smoothing: float = Field(1.0, gt=0, description="epsilon, in pixels, of the Dice and Tversky losses")
    focal_gamma: float = Field(2.0, ge=0, description="focusing exponent of the focal loss")
    focal_alpha: float = Field(0.25, ge=0, le=1, description="weight of lesion pixels in the focal loss")
    tversky_alpha: float = Field(0.3, ge=0, le=1, description="weight of false positives in the Tversky loss")
    tversky_beta: float = Field(0.7, ge=0, le=1, description="weight of false negatives in the Tversky loss")
    optimizer: Literal["rmsprop", "adamw"] = Field("rmsprop", description="optimiser")
    weight_decay: float = Field(1e-8, ge=0, description="weight decay (decoupled in AdamW)")
    batch_size: int = Field(8, ge=1, le=4096, description="cases in a batch")
    surface_convention: Literal["surface", "paper"] = Field(
        "surface",
        description="hd95 and asd of test images: between outlines, or over regions as SkinDualGen's equations",
    )


class SegmenterInfo(NetworkConfig):
    """What ``config.json`` beside a published ``model.safetensors`` says: enough to rebuild and feed the network.

    Attributes:
        kind, version: mark the file as ours.
        classes: what the output channels stand for.
        mean, std: normalisation of RGB in [0, 1], applied inside the network.
        dataset: name of the training data.
        phantom: True where the training data held phantoms.
    """

    kind: Literal["lesionforge-segmenter"] = "lesionforge-segmenter"
    version: Literal[1] = 1
    classes: tuple[str, ...] = ("lesion",)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    dataset: str = ""
    phantom: bool = False
