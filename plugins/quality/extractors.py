"""Networks whose features measure how alike images are, always with trained weights from a local file.

Only the standard weights earn the names FID and LPIPS; every other result is named after its extractor. Licences of
the weights: FID's Inception Apache-2.0 (TensorFlow models), torchvision's BSD-3-Clause, LPIPS BSD-2-Clause; those of
timm and open_clip differ from model to model.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...core.config import Checkpoint, PluginConfig
from ...core.hookspecs import hookimpl
from ...core.roles import Extractor, Plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...core.context import Context
    from .backbones import OpenClipNetwork, TimmNetwork, TorchvisionNetwork
    from .inception import InceptionNetwork
    from .lpips_network import LpipsNetwork

FID_LABEL = "FID's Inception"
LPIPS_LABELS = {"alex": "LPIPS (AlexNet)", "vgg": "LPIPS (VGG16)"}


class _NetworkExtractor(Extractor):
    """An extractor around one trained network."""

    @abstractmethod
    def _load(self, context: Context) -> Any:
        """Return the network on the context's device, with ``label``, ``weights_hash``, ``maps`` and ``vector``."""

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._network = self._load(context)

    @property
    def label(self) -> str:
        return self._network.label

    @property
    def weights_hash(self) -> str:
        return self._network.weights_hash

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        return self._network.maps(images)

    def features(self, images: Tensor) -> Tensor:
        return self._network.vector(images)


class InceptionExtractor(_NetworkExtractor):
    """The Inception network of the FID, last pooling, 2048 features (torch-fidelity's rebuild)."""

    name = "inception"

    class Config(PluginConfig):
        model: Literal["fid"] = Field("fid", description="the network of 2015-12-05 that FID is defined with")
        weights: Checkpoint | None = Field(
            None, description="file pt_inception-2015-12-05-6726825d.pth; by default looked up in torch hub's cache"
        )

    def _load(self, context: Context) -> InceptionNetwork:
        from .inception import InceptionNetwork

        return InceptionNetwork(self.config.weights, context)


class LpipsExtractor(_NetworkExtractor):
    """AlexNet or VGG16 with the learned channel weights of LPIPS v0.1."""

    name = "lpips"

    class Config(PluginConfig):
        model: Literal["alex", "vgg"] = Field("alex", description="backbone")
        weights: Checkpoint | None = Field(
            None, description="torchvision's file of the backbone; by default looked up in torch hub's cache"
        )

    def _load(self, context: Context) -> LpipsNetwork:
        from .lpips_network import LpipsNetwork

        return LpipsNetwork(self.config.model, self.config.weights, context)

    @property
    def channel_weights(self) -> Sequence[Tensor]:
        return self._network.channel_weights


class TorchvisionExtractor(_NetworkExtractor):
    """Any torchvision classifier by name; maps are known for its convolutional networks."""

    name = "torchvision"

    class Config(PluginConfig):
        model: str = Field(description="name as in torchvision.models, such as resnet50")
        weights: Checkpoint | None = Field(
            None, description="file of the model's weights; by default torchvision's own from torch hub's cache"
        )
        size: int = Field(224, ge=32, le=1024, description="edge in pixels to which images are resized")

    def _load(self, context: Context) -> TorchvisionNetwork:
        from .backbones import TorchvisionNetwork

        return TorchvisionNetwork(self.config.model, self.config.weights, self.config.size, context)


class TimmExtractor(_NetworkExtractor):
    """Any timm backbone by name, with a local weights file."""

    name = "timm"

    class Config(PluginConfig):
        model: str = Field(description="name as in timm, such as vit_small_patch14_dinov2")
        weights: Checkpoint | None = Field(None, description="local file (safetensors or state dict); required")

    def _load(self, context: Context) -> TimmNetwork:
        from .backbones import TimmNetwork

        return TimmNetwork(self.config.model, self.config.weights, context)


class OpenClipExtractor(_NetworkExtractor):
    """The image tower of any open_clip model by name, with a local weights file."""

    name = "open-clip"

    class Config(PluginConfig):
        model: str = Field(description="name as in open_clip, such as ViT-B-32")
        weights: Checkpoint | None = Field(None, description="local file (safetensors or state dict); required")

    def _load(self, context: Context) -> OpenClipNetwork:
        from .backbones import OpenClipNetwork

        return OpenClipNetwork(self.config.model, self.config.weights, context)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [InceptionExtractor, LpipsExtractor, TorchvisionExtractor, TimmExtractor, OpenClipExtractor]
