"""Metrics that are means over pairs of images: LPIPS, MS-SSIM, SSIM, PSNR and MSE."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...core.config import Checkpoint, ExtractorName, PluginConfig
from ...core.metrics import Measurement
from ...core.roles import Metric
from .metric_parts import RESAMPLES, conventions_of, shared_extractor

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.metrics import Comparison
    from .pair_means import ChosenPairs
    from .pairing import PairScore

DATA_RANGE = Field(1.0, gt=0, description="value of white; black is 0. MSE scales with its square")
PAIR_BY: Any = Field("id", description="what makes two images a pair: the same image id, or the same mask")
PAIRS = Field(1000, ge=2, le=1_000_000, description="number of random pairs")
AMONG = Field(description="pairs of one image of each dataset, or of different lesions within one")
BACKBONE_WEIGHTS = Field(None, description="the extractor's weights: file or folder; by default from torch hub's cache")

PairBy = Literal["id", "mask"]
Among = Literal["between", "first", "second"]


class _PairMetric(Metric):
    """A mean over pairs of images: of the same cases, or drawn at random."""

    @abstractmethod
    def _score(self, comparison: Comparison) -> tuple[str, dict[str, Any], PairScore]:
        """Return the score's name, its conventions and its function of two (N, 3, H, W) image tensors in [0, 1]."""

    def _pairs(self, comparison: Comparison) -> ChosenPairs:
        from .pair_means import drawn_pairs, same_cases

        config, first, second = self.config, comparison.first, comparison.second
        if self.needs_pairs:
            return same_cases(first, second, config.pair_by)
        return drawn_pairs(first, second, config.among, config.pairs, comparison.context.seed)

    def check(self, comparison: Comparison) -> None:
        if not (self.needs_pairs and self.config.pair_by == "mask"):  # masks of the second set are not known yet
            self._pairs(comparison)
        score = self._score(comparison)[2]
        if comparison.first.size is not None:  # else nobody knows the size yet at which images are compared
            one = comparison.first.fetch([0], masks=False).images
            assert one is not None
            score(one.to(comparison.context.device), one.to(comparison.context.device))

    def measure(self, comparison: Comparison) -> Measurement:
        name, conventions, score = self._score(comparison)
        config, pairs = self.config, self._pairs(comparison)
        if self.needs_pairs:
            conventions["pairs"] = f"same {'image id' if config.pair_by == 'id' else config.pair_by}"
        else:
            among = "between both" if config.among == "between" else f"within the {config.among}"
            name = f"{name}, random pairs {among}"
            conventions |= {"pairs": f"random, {among}", "seed": comparison.context.seed}
        return pairs.mean(name, score, conventions | {"resamples": config.resamples}, config.resamples, comparison)


class _PixelMetric(_PairMetric):
    """A mean over pairs of a score of their pixels."""

    label: str
    function: str

    def _score(self, comparison: Comparison) -> tuple[str, dict[str, Any], PairScore]:
        from . import full_reference

        scale = self.config.data_range
        function = getattr(full_reference, self.function)

        def score(a: Tensor, b: Tensor) -> Tensor:
            return function(a.double() * scale, b.double() * scale, scale)

        return self.label, {"data_range": scale}, score


class _PairedPixelMetric(_PixelMetric):
    needs_pairs = True

    class Config(PluginConfig):
        data_range: float = DATA_RANGE
        pair_by: PairBy = PAIR_BY
        resamples: int = RESAMPLES


class Mse(_PairedPixelMetric):
    """Mean squared error of paired images."""

    name, label, function = "mse", "MSE", "mse"
    higher_is_better = False


class Psnr(_PairedPixelMetric):
    """Peak signal-to-noise ratio of paired images in dB, the mean over the pairs' own."""

    name, label, function = "psnr", "PSNR", "psnr"
    higher_is_better = True


class Ssim(_PairedPixelMetric):
    """Structural similarity of paired images."""

    name, label, function = "ssim", "SSIM", "ssim"
    higher_is_better = True


class MsSsim(_PairedPixelMetric):
    """Multi-scale structural similarity of paired images of at least 161 pixels."""

    name, label, function = "ms-ssim", "MS-SSIM", "ms_ssim"
    higher_is_better = True


class MsSsimDiversity(_PixelMetric):
    """Mean MS-SSIM of random pairs, between the datasets or within one; the lower, the more diverse."""

    name, label, function = "ms-ssim-diversity", "MS-SSIM", "ms_ssim"
    higher_is_better = False

    class Config(PluginConfig):
        data_range: float = DATA_RANGE
        among: Among = AMONG
        pairs: int = PAIRS
        resamples: int = RESAMPLES


class _PerceptualMetric(_PairMetric):
    """A mean over pairs of a distance between a network's maps."""

    def _score(self, comparison: Comparison) -> tuple[str, dict[str, Any], PairScore]:
        from .extractors import LPIPS_LABELS
        from .perceptual import embed

        extractor = shared_extractor(self.config, comparison, self.name)
        learned = extractor.label in LPIPS_LABELS.values()

        def score(a: Tensor, b: Tensor) -> Tensor:
            ends = [embed(extractor.feature_maps(x), extractor.channel_weights, None).double() for x in (a, b)]
            return (ends[0] - ends[1]).square().sum(1)

        name = extractor.label if learned else f"perceptual distance, {extractor.label}"
        return name, conventions_of(extractor), score


class Lpips(_PerceptualMetric):
    """LPIPS of paired images, or the distance of its form on another network."""

    name = "lpips"
    needs_pairs = True
    higher_is_better = False

    class Config(PluginConfig):
        extractor: ExtractorName = Field("lpips", description="extractor plugin whose maps are compared")
        model: str | None = Field(None, description="the extractor's model, where it has several")
        weights: Checkpoint | None = BACKBONE_WEIGHTS
        pair_by: PairBy = PAIR_BY
        resamples: int = RESAMPLES


class LpipsDiversity(_PerceptualMetric):
    """Mean LPIPS of random pairs, between the datasets or within one; the higher, the more diverse."""

    name = "lpips-diversity"
    higher_is_better = True

    class Config(PluginConfig):
        extractor: ExtractorName = Field("lpips", description="extractor plugin whose maps are compared")
        model: str | None = Field(None, description="the extractor's model, where it has several")
        weights: Checkpoint | None = BACKBONE_WEIGHTS
        among: Among = AMONG
        pairs: int = PAIRS
        resamples: int = RESAMPLES


PAIR_METRICS: list[type[Metric]] = [Mse, Psnr, Ssim, MsSsim, Lpips, LpipsDiversity, MsSsimDiversity]
