"""Where a classifier looks, by captum: GradCAM, saliency and occlusion."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.context import Context
from ...core.errors import ConfigError, PluginError
from ..supervised.checkpoint import INFO_FILE
from .classifier import load_classifier
from .config import ClassifierInfo

WINDOW = 8
"""The covered square is an eighth of the image's edge and moves by half of itself (ours)."""
WINDOWS_AT_ONCE = 16


def is_classifier(folder: Path) -> bool:
    """True where the folder says that it holds a checkpoint of ours, be it whole or damaged."""
    try:
        found = json.loads((folder / INFO_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") == ClassifierInfo.model_fields["kind"].default


class ClassifierExplainer:
    """Explains a classification checkpoint, always in fp32, see :class:`core.explaining.Explainer`.

    Raises:
        CheckpointError: the checkpoint is damaged.
        PluginError: captum is not installed.
    """

    def __init__(self, folder: Path, context: Context) -> None:
        try:
            self._captum: Any = importlib.import_module("captum.attr")
        except ImportError as error:
            raise PluginError(
                f'explaining needs the package captum ({error}); pip install "lesionforge[explain]"'
            ) from error
        classifier, self._info = load_classifier(folder)
        self._classifier = classifier.on(context.device)
        self.classes, self.size = self._info.classes, self._info.size
        self._methods = {"gradcam": self._gradcam, "saliency": self._saliency, "occlusion": self._occlusion}

    def probabilities(self, images: Tensor) -> Tensor:
        """Return (N, K) calibrated probabilities for (N, 3, size, size) images in [0, 1]."""
        with torch.no_grad():
            return (self._classifier(images) / self._info.temperature).softmax(dim=1)

    def heat(self, method: str, images: Tensor, targets: Sequence[int]) -> Tensor:
        """Return (N, h, w) heat of ``gradcam``, ``saliency`` or ``occlusion`` for the classes ``targets``."""
        return self._methods[method](images, torch.tensor(list(targets), device=images.device)).detach()

    def _gradcam(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return Grad-CAM (Selvaraju et al. 2017, eqs. 1 and 2) of the logit on the last maps before pooling."""
        network = self._classifier.network
        with torch.no_grad():
            maps, _ = self._classifier.observe(images[:1])
        if maps is None or network.map_layer is None:
            raise ConfigError(
                f"GradCAM needs maps of features, but {self._info.architecture} has tokens; take the methods saliency "
                "and occlusion"
            )
        method = self._captum.LayerGradCam(self._classifier, network.map_layer)
        return method.attribute(images, target=targets, relu_attributions=True)[:, 0]

    def _saliency(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the largest absolute derivative of the logit by a pixel's channels (Simonyan et al. 2014, 3.1)."""
        method = self._captum.Saliency(self._classifier)
        return method.attribute(images.clone().requires_grad_(), target=targets, abs=True).amax(dim=1)

    def _occlusion(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return how much of the class's probability is lost where a square is covered (Zeiler and Fergus 2014, 4.2).

        The square has the image's mean colour; gains count as 0 (both ours).
        """
        edge = max(1, self.size // WINDOW)
        covered = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
        method = self._captum.Occlusion(self.probabilities)
        lost = method.attribute(
            images,
            target=targets,
            sliding_window_shapes=(3, edge, edge),
            strides=(3, max(1, edge // 2), max(1, edge // 2)),
            baselines=covered,
            perturbations_per_eval=WINDOWS_AT_ONCE,
        )
        return lost[:, 0].clamp(min=0)
