"""Typed settings of classification networks and their training; no torch here, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ...core.config import Checkpoint, PluginConfig
from ..supervised.settings import TrainingSettings

TORCHVISION_NAMES = (
    "densenet121",
    "resnet18",
    "resnet34",
    "resnet50",
    "squeezenet1_1",
    "swin_t",
    "vgg16",
    "vit_b_16",
)
TIMM = "timm:"
VIT_PATCH = 16

Monitor = Literal["f1_macro", "auroc", "loss"]
ClassWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NetworkConfig(PluginConfig):
    """What fixes a network's layers, except for its classes, and the size of its input."""

    architecture: str = Field(
        "resnet34", description=f"network to train: one of torchvision's {', '.join(TORCHVISION_NAMES)}, or timm:NAME"
    )
    size: int = Field(224, ge=16, le=2048, description="edge in pixels to which images are resized")

    @field_validator("architecture")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TORCHVISION_NAMES and not (value.startswith(TIMM) and value != TIMM):
            raise ValueError(f"take one of {', '.join(TORCHVISION_NAMES)}, or timm:NAME with a name of timm")
        return value

    @field_validator("size")
    @classmethod
    def _in_patches(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("architecture") == "vit_b_16" and value % VIT_PATCH:
            raise ValueError(f"vit_b_16 needs a multiple of {VIT_PATCH}")
        return value


class ClassificationConfig(TrainingSettings, NetworkConfig):
    """Training of a classification network.

    SkinDualGen gives 224 pixels, batch 32, a learning rate of 1e-4 and 50 epochs (40 for SqueezeNet1.1 and Swin);
    optimiser, loss, augmentation and early stopping are missing from the text and chosen by us.
    """

    weights: Checkpoint | None = Field(
        None,
        description="local .safetensors or .pth file with pretrained weights of this architecture, whose last layer is "
        "left out; nothing is downloaded",
    )
    classes: tuple[str, ...] | None = Field(
        None, description="class names, in order; by default the labels of the training cases, sorted"
    )
    loss: Literal["cross-entropy", "focal"] = Field("cross-entropy", description="loss on the logits")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="cross-entropy: share of the target given to all alike")
    focal_gamma: float = Field(2.0, ge=0, description="focusing exponent of the focal loss")
    class_weights: Literal["none", "balanced"] | dict[str, ClassWeight] = Field(
        "none", description="weight of each class in the loss: none, balanced (n / (classes n_class)), or a table"
    )
    monitor: Monitor = Field("f1_macro", description="score on val by which the best weights are kept")
    calibrate: bool = Field(True, description="fit a temperature on val, by which probabilities are calibrated")

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) < len(value)):
            raise ValueError("name two classes or more, each once")
        return value

    @field_validator("label_smoothing")
    @classmethod
    def _goes_with_loss(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("loss") == "focal":
            raise ValueError("label smoothing applies to cross-entropy, not to focal")
        return value

    def network_values(self) -> dict[str, Any]:
        """Return what fixes the network."""
        return {"architecture": self.architecture, "size": self.size}


class ClassifierInfo(NetworkConfig):
    """What ``config.json`` beside a published ``model.safetensors`` says: enough to rebuild and feed the network.

    Attributes:
        kind, version: mark the file as ours.
        classes: what the logits stand for, in order.
        cases: training cases of each class.
        mean, std: normalisation of RGB in [0, 1], applied inside the network.
        temperature: what logits are divided by before the softmax; 1 where it was not fitted.
        calibrated: True where it was fitted on val.
        dataset: name of the training data.
        phantom: True where the training data held phantoms.
    """

    kind: Literal["lesionforge-classifier"] = "lesionforge-classifier"
    version: Literal[1] = 1
    classes: tuple[str, ...] = Field(min_length=2)
    cases: tuple[int, ...] = ()
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    temperature: float = Field(1.0, gt=0)
    calibrated: bool = False
    dataset: str = ""
    phantom: bool = False
