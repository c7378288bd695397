"""The contract of an architecture: what its network must keep for a trainer, an annotator and an extractor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from ..roles import Architecture

CASES = 2
EDGE = 64
TOLERANCE = 1e-3
COARSE = 0.1


@dataclass(frozen=True)
class ArchitectureBench:
    """Builds the network on the CPU and tries it at the smallest edge from 64 pixels on that it takes."""

    architecture: Architecture

    def rules(self) -> dict[str, Callable[[], None]]:
        """Return the rules by name; each raises AssertionError where it is broken."""
        return {
            "one logit a pixel": self.one_logit_a_pixel,
            "the same random state builds the same network": self.builds_repeatably,
            "evaluation is repeatable and knows no neighbours": self.evaluation_is_pure,
            "training reaches every parameter": self.training_reaches_everything,
            "runs channels last under bf16 autocast": self.runs_in_bf16,
            "weights survive being saved": self.weights_are_portable,
            "encoder maps are maps": self.encoder_maps_are_maps,
        }

    def one_logit_a_pixel(self) -> None:
        """The logits have one channel, the images' size, and finite values."""
        images = self._images()
        logits = self._evaluated(self._kept, images)
        assert logits.shape == (CASES, 1, *images.shape[-2:]), f"logits are {tuple(logits.shape)}"
        assert torch.isfinite(logits).all(), "logits are not finite"

    def builds_repeatably(self) -> None:
        """Two networks built from one random state have equal weights."""
        one, other = self._kept.state_dict(), self._network().state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), "weights differ"

    def evaluation_is_pure(self) -> None:
        """The same images give the same bits, and a case alone nearly what it gives among others."""
        network, images = self._kept, self._images()
        logits = self._evaluated(network, images)
        assert torch.equal(logits, self._evaluated(network, images)), "two evaluations of the same images differ"
        distance = float((self._evaluated(network, images[:1]) - logits[:1]).abs().max())
        limit = TOLERANCE * max(1.0, float(logits.abs().max()))
        assert distance <= limit, f"logits of a case differ by {distance:.3g} without its neighbours"

    def training_reaches_everything(self) -> None:
        """The training loss is a finite scalar from which a gradient reaches every trainable parameter."""
        network = copy.deepcopy(self._kept).train()
        images = self._images()
        masks = (images[:, :1] > 0.5).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            outputs = network(images)
        own = getattr(network, "training_loss", None)
        if own is None:
            shape = tuple(outputs.shape)
            assert len(shape) == 4 and masks.shape == (shape[0], 1, *shape[2:]), f"outputs are {shape}"
            loss = F.binary_cross_entropy_with_logits(outputs, masks.expand_as(outputs))
        else:
            loss = own(outputs, masks, F.binary_cross_entropy_with_logits)
        assert loss.ndim == 0 and torch.isfinite(loss), "the training loss is no finite scalar"
        loss.backward()
        learnt = [(name, parameter.grad) for name, parameter in network.named_parameters() if parameter.requires_grad]
        untouched = [name for name, gradient in learnt if gradient is None]
        assert learnt and not untouched, f"no gradient reaches {', '.join(untouched[:3]) or 'anything'}"
        wild = [name for name, gradient in learnt if gradient is not None and not torch.isfinite(gradient).all()]
        assert not wild, f"the gradient of {', '.join(wild[:3])} is not finite"

    def runs_in_bf16(self) -> None:
        """Under bf16 autocast and channels last the logits stay near those in fp32."""
        images = self._images()
        logits = self._evaluated(self._kept, images)
        network = copy.deepcopy(self._kept).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse = self._evaluated(network, images.contiguous(memory_format=torch.channels_last)).float()
        assert torch.isfinite(coarse).all(), "logits are not finite"
        distance = float((coarse - logits).abs().mean())
        assert distance <= COARSE * max(1.0, float(logits.abs().mean())), f"logits differ by {distance:.3g} on average"

    def weights_are_portable(self) -> None:
        """A network with the saved weights gives the same bits as the one they were saved from."""
        network, images = self._kept, self._images()
        file = save({name: value.contiguous() for name, value in network.state_dict().items()})
        again = self._network(seed=5)
        again.load_state_dict(load(file))
        assert torch.equal(self._evaluated(network, images), self._evaluated(again, images)), "logits differ"

    def encoder_maps_are_maps(self) -> None:
        """``encode``, where there is one, returns a list of (N, C, h, w) maps that are finite."""
        encode = getattr(self._kept.eval(), "encode", None)
        if encode is None:
            return
        with torch.no_grad():
            maps = list(encode(self._images()))
        shapes = [tuple(features.shape) for features in maps]
        assert maps and all(len(shape) == 4 and shape[0] == CASES and min(shape) for shape in shapes), f"maps {shapes}"
        assert all(torch.isfinite(features).all() for features in maps), "maps are not finite"

    def _images(self) -> Tensor:
        edge = -(-EDGE // self.architecture.stride) * self.architecture.stride
        return torch.randn(CASES, 3, edge, edge, generator=torch.Generator().manual_seed(0))

    @cached_property
    def _kept(self) -> nn.Module:
        return self._network()

    def _network(self, seed: int = 3) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.architecture.build()

    @staticmethod
    @torch.no_grad()
    def _evaluated(network: nn.Module, images: Tensor) -> Tensor:
        return network.eval()(images)
