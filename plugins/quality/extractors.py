"""Networks whose features measure how alike images are, always with trained weights from a local file.

Only the standard weights earn the names FID and LPIPS; every other result is named after its extractor. Licences of
the weights: FID's Inception Apache-2.0 (TensorFlow models), torchvision's BSD-3-Clause, LPIPS BSD-2-Clause; those of
timm and open_clip differ from model to model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...core.config import Checkpoint, PluginConfig
from ...core.hookspecs import hookimpl
from ...core.roles import Extractor, Plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...core.context import Context

FID_LABEL = "FID's Inception"
LPIPS_LABELS = {"alex": "LPIPS (AlexNet)", "vgg": "LPIPS (VGG16)"}


class InceptionExtractor(Extractor):
    """The Inception network of the FID, last pooling, 2048 features (torch-fidelity's rebuild)."""

    name = "inception"

    class Config(PluginConfig):
        model: Literal["fid"] = Field("fid", description="the network of 2015-12-05 that FID is defined with")
        weights: Checkpoint | None = Field(
            None, description="file pt_inception-2015-12-05-6726825d.pth; by default looked up in torch hub's cache"
        )

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .inception import InceptionNetwork

        self._network = InceptionNetwork(self.config.weights, context)

    @property
    def label(self) -> str:
        return self._network.label

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        return self._network.maps(images)

    def features(self, images: Tensor) -> Tensor:
        return self._network.vector(images)


class LpipsExtractor(Extractor):
    """AlexNet or VGG16 with the learned channel weights of LPIPS v0.1."""

    name = "lpips"

    class Config(PluginConfig):
        model: Literal["alex", "vgg"] = Field("alex", description="backbone")
        weights: Checkpoint | None = Field(
            None, description="torchvision's file of the backbone; by default looked up in torch hub's cache"
        )

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .lpips_network import LpipsNetwork

        self._network = LpipsNetwork(self.config.model, self.config.weights, context)

    @property
    def label(self) -> str:
        return self._network.label

    @property
    def channel_weights(self) -> Sequence[Tensor]:
        return self._network.channel_weights

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        return self._network.maps(images)

    def features(self, images: Tensor) -> Tensor:
        return self._network.vector(images)


class TorchvisionExtractor(Extractor):
    """Any torchvision classifier by name; maps are known for its convolutional networks."""

    name = "torchvision"

    class Config(PluginConfig):
        model: str = Field(description="name as in torchvision.models, such as resnet50")
        weights: Checkpoint | None = Field(
            None, description="file of the model's weights; by default torchvision's own from torch hub's cache"
        )
        size: int = Field(224, ge=32, le=1024, description="edge in pixels to which images are resized")

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .backbones import TorchvisionNetwork

        self._network = TorchvisionNetwork(self.config.model, self.config.weights, self.config.size, context)

    @property
    def label(self) -> str:
        return self._network.label

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        return self._network.maps(images)

    def features(self, images: Tensor) -> Tensor:
        return self._network.vector(images)


class TimmExtractor(Extractor):
    """Any timm backbone by name, with a local weights file."""

    name = "timm"

    class Config(PluginConfig):
        model: str = Field(description="name as in timm, such as vit_small_patch14_dinov2")
        weights: Checkpoint | None = Field(None, description="local file (safetensors or state dict); required")

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .backbones import TimmNetwork

        self._network = TimmNetwork(self.config.model, self.config.weights, context)

    @property
    def label(self) -> str:
        return self._network.label

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        return self._network.maps(images)

    def features(self, images: Tensor) -> Tensor:
        return self._network.vector(images)


class OpenClipExtractor(Extractor):
    """The image tower of any open_clip model by name, with a local weights file."""

    name = "open-clip"

    class Config(PluginConfig):
        model: str = Field(description="name as in open_clip, such as ViT-B-32")
        weights: Checkpoint | None = Field(None, description="local file (safetensors or state dict); required")

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .backbones import OpenClipNetwork

        self._network = OpenClipNetwork(self.config.model, self.config.weights, context)

    @property
    def label(self) -> str:
        return self._network.label

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        return self._network.maps(images)

    def features(self, images: Tensor) -> Tensor:
        return self._network.vector(images)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [InceptionExtractor, LpipsExtractor, TorchvisionExtractor, TimmExtractor, OpenClipExtractor]
