"""Backbones of torchvision, timm and open_clip, each with weights from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch import nn
from torch.nn import functional

from ...core.errors import ConfigError
from .tapping import tapped
from .weights import find_weights, fingerprint, fit_state, imported, load_state

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.context import Context

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STAGES = ("layer1", "layer2", "layer3", "layer4")
TRUNKS = ("features", "trunk_output", "layers")


class TorchvisionNetwork:
    """A torchvision classifier without its last linear layer."""

    def __init__(self, model: str, weights: str | None, size: int, context: Context) -> None:
        if model not in torchvision.models.list_models(module=torchvision.models):
            raise ConfigError(f"extractor torchvision: {model!r} is no classification model of torchvision")
        standard = Path(torchvision.models.get_model_weights(model)["DEFAULT"].url).name
        how = f"get torchvision's {standard} and give its path as weights or put it into torch hub's checkpoints folder"
        path = find_weights(weights, extractor="torchvision", hub_names=(standard,), how=how)
        with torch.random.fork_rng(devices=[]):
            network = torchvision.models.get_model(model, weights=None)
        state = load_state(path)
        head = _last_linear(network)
        if head is not None:
            network.set_submodule(head, nn.Identity())
            state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
        fit_state(network, state, path, extractor=f"torchvision ({model})")
        self._network = network.to(context.device)
        self._model, self._size = model, (size, size)
        self.weights_hash = fingerprint(path)
        self.label = f"torchvision {model} {self.weights_hash}"

    @torch.no_grad()
    def vector(self, images: Tensor) -> Tensor:
        """Return what the classifier's last layer would see, (N, D)."""
        return self._network(_prepared(images, self._size, IMAGENET_MEAN, IMAGENET_STD)).float()

    @torch.no_grad()
    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return the last (N, C, H, W) maps at each resolution of a convolutional network."""
        prepared = _prepared(images, self._size, IMAGENET_MEAN, IMAGENET_STD)
        maps = tapped(self._stages(), lambda: self._network(prepared))
        return list({layer.shape[2:]: layer for layer in maps}.values())

    def _stages(self) -> list[nn.Module]:
        if all(hasattr(self._network, name) for name in STAGES):
            return [getattr(self._network, name) for name in STAGES]
        trunks = [getattr(self._network, name, None) for name in TRUNKS]
        found = [list(trunk) for trunk in trunks if isinstance(trunk, nn.Sequential)]
        if not found or "swin" in self._model:  # Swin's stages give out channels last
            raise ConfigError(
                f"extractor torchvision: the maps of {self._model} are not known here; take a convolutional network, "
                "resnet50, densenet121, efficientnet_b0 or convnext_tiny for example, or the extractor timm"
            )
        return found[0]


class TimmNetwork:
    """A timm backbone without its classifier."""

    def __init__(self, model: str, weights: str | None, context: Context) -> None:
        timm = imported("timm", "timm")
        if not timm.is_model(model):
            raise ConfigError(f"extractor timm: {model!r} is no model of timm")
        how = f"give a local file of timm's {model} as weights"
        path = find_weights(weights, extractor="timm", how=how)
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(model, pretrained=False, num_classes=0)
        known = network.state_dict()
        heads = network.pretrained_cfg.get("classifier") or ()
        prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        state = {k: v for k, v in load_state(path).items() if k in known or not k.startswith(prefixes)}
        fit_state(network, state, path, extractor=f"timm ({model})")
        self._network = network.to(context.device)
        surroundings = timm.data.resolve_model_data_config(network)
        self._preparation = (surroundings["input_size"][1:], surroundings["mean"], surroundings["std"])
        self.weights_hash = fingerprint(path)
        self.label = f"timm {model} {self.weights_hash}"

    @torch.no_grad()
    def vector(self, images: Tensor) -> Tensor:
        """Return the pooled features, (N, D)."""
        return self._network(_prepared(images, *self._preparation)).float()

    @torch.no_grad()
    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return timm's intermediate (N, C, H, W) maps."""
        prepared = _prepared(images, *self._preparation)
        return self._network.forward_intermediates(prepared, output_fmt="NCHW", intermediates_only=True)


class OpenClipNetwork:
    """The image tower of an open_clip model."""

    def __init__(self, model: str, weights: str | None, context: Context) -> None:
        open_clip = imported("open_clip", "open-clip")
        if model not in open_clip.list_models():
            raise ConfigError(f"extractor open-clip: {model!r} is no model of open_clip")
        how = f"give a local file of open_clip's {model} as weights"
        path = find_weights(weights, extractor="open-clip", how=how)
        with torch.random.fork_rng(devices=[]):
            network = open_clip.create_model(model, load_weights=False, pretrained_text=False)
        # Only the image tower is used, so a file without the text tower does as well.
        state = {name[7:]: value for name, value in load_state(path).items() if name.startswith("visual.")}
        fit_state(network.visual, state, path, extractor=f"open-clip ({model})")
        self._tower: Any = network.visual.to(context.device)
        surroundings = open_clip.get_model_preprocess_cfg(network)
        size = surroundings["size"]
        square = (size, size) if isinstance(size, int) else tuple(size)
        self._preparation = (square, surroundings["mean"], surroundings["std"])
        self.weights_hash = fingerprint(path)
        self.label = f"open_clip {model} {self.weights_hash}"

    @torch.no_grad()
    def vector(self, images: Tensor) -> Tensor:
        """Return the image embeddings, (N, D), not normalised."""
        features = self._tower(_prepared(images, *self._preparation))
        return (features[0] if isinstance(features, tuple) else features).float()

    @torch.no_grad()
    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return the image tower's intermediate (N, C, H, W) maps."""
        prepared = _prepared(images, *self._preparation)
        found = self._tower.forward_intermediates(prepared, output_fmt="NCHW", intermediates_only=True)
        return found["image_intermediates"]


def _prepared(images: Tensor, size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize (N, 3, H, W) images in [0, 1] to ``size`` (stretched, bilinear, antialiased) and standardise them."""
    if tuple(images.shape[2:]) != tuple(size):
        images = functional.interpolate(images, tuple(size), mode="bilinear", antialias=True)
    shift, scale = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (images - shift) / scale


def _last_linear(network: nn.Module) -> str | None:
    """Return the name of the classifier's last layer, which every torchvision classifier defines last."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None
