"""Typed settings of segmentation networks and their training; no torch here, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ...core.architectures import find_architecture, written_architecture
from ...core.config import Checkpoint, PluginConfig
from ...core.errors import ConfigError
from ...core.registry import PluginEntry, Registry, default_registry
from ...core.roles import Architecture
from ..supervised.settings import TrainingSettings

Rate = Annotated[int, Field(ge=1, le=64)]
LossName = Literal["bce+dice", "dice", "bce", "focal", "tversky"]

DILATED_UNET = "dilated-unet"
NETWORK_KEYS = ("encoder", "width", "depth", "dilations")


class NetworkConfig(PluginConfig):
    """What fixes a network's layers and the size of its input."""

    architecture: str = Field(
        DILATED_UNET,
        description="network to train, NAME or NAME(key=value): `lesionforge plugins list --role architecture` names "
        "them, `plugins show NAME` explains their keys",
    )
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

    def network(self, registry: Registry | None = None) -> tuple[PluginEntry, Architecture]:
        """Return the architecture's plugin and an instance with its values, looked up in what is installed by default.

        Raises:
            ConfigError: a value is not allowed or does not apply to this architecture, or ``size`` does not fit it.
            PluginError: no usable architecture has that name.
        """
        given = {key: getattr(self, key) for key in NETWORK_KEYS if getattr(self, key) is not None}
        entry, architecture = find_architecture(self.architecture, registry or default_registry(), given=given)
        if self.size % architecture.stride:
            raise ConfigError(f"size = {self.size}: {entry.name} needs a multiple of {architecture.stride}")
        return entry, architecture

    def network_values(self, registry: Registry | None = None) -> dict[str, Any]:
        """Return what a checkpoint keeps: the network with every default written out, and where its code is from."""
        entry, architecture = self.network(registry)
        written = written_architecture(architecture)
        return {"architecture": written, "distribution": entry.distribution, "size": self.size}


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
        distribution: whose architecture it is; needed to build the network again.
        classes: what the output channels stand for.
        mean, std: normalisation of RGB in [0, 1], applied inside the network.
        dataset: name of the training data.
        phantom: True where the training data held phantoms.
    """

    kind: Literal["lesionforge-segmenter"] = "lesionforge-segmenter"
    version: Literal[1] = 1
    distribution: str = "lesionforge"
    classes: tuple[str, ...] = ("lesion",)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    dataset: str = ""
    phantom: bool = False
