"""The Inception network of the FID, as torch-fidelity rebuilds it from TensorFlow's weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...core.errors import CheckpointError
from .extractors import FID_LABEL
from .tapping import tapped
from .weights import find_weights, fingerprint, imported, load_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ...core.context import Context

HUB_NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
STANDARD_MARK = "6726825d"
MAPS = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
HOW = (
    f"get {HUB_NAMES[1]} (pytorch-fid's release fid_weights on GitHub) or {HUB_NAMES[0]} (torch-fidelity's v0.2.0), "
    "and give its path as weights or put it into torch hub's checkpoints folder"
)


class InceptionNetwork:
    """FID's Inception on a device; images are quantised to 8 bits and resized to 299 px as TensorFlow 1 does."""

    def __init__(self, weights: str | None, context: Context) -> None:
        path = find_weights(weights, extractor="inception", hub_names=HUB_NAMES, how=HOW)
        network = imported("torch_fidelity.feature_extractor_inceptionv3", "inception")
        content = _as_plain_file(path)
        try:
            with torch.random.fork_rng(devices=[]):
                self._network = network.FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048"], feature_extractor_weights_path=content
                ).to(context.device)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"weights {path} do not fit extractor inception: {reason}") from error
        self.weights_hash = mark = fingerprint(path)
        self.label = FID_LABEL if mark == STANDARD_MARK else f"Inception {mark}, not FID's"

    @torch.no_grad()
    def vector(self, images: Tensor) -> Tensor:
        """Return the (N, 2048) features of the last pooling for (N, 3, H, W) images in [0, 1]."""
        return self._network(_eight_bits(images))[0]

    @torch.no_grad()
    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return the last maps at each of five resolutions."""
        layers = [getattr(self._network, name) for name in MAPS]
        return tapped(layers, lambda: self._network(_eight_bits(images)))


def _eight_bits(images: Tensor) -> Tensor:
    return images.mul(255).round().clamp(0, 255).to(torch.uint8)


def _as_plain_file(path: Path) -> io.BytesIO:
    # torch-fidelity unpickles without restriction, so it gets a file that we have written ourselves.
    content = io.BytesIO()
    torch.save(load_state(path), content)
    content.seek(0)
    return content
