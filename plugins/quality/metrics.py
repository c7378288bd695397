"""Metrics that the papers print: FID, KID, LPIPS, MS-SSIM, SSIM, PSNR and MSE, each with its sample and conventions.

Distances are named after the network that they are measured with: only the published weights earn FID, KID and LPIPS.
Definitions and references stand beside the functions in `frechet`, `perceptual` and `full_reference`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ...core.config import Checkpoint, ExtractorName, PluginConfig
from ...core.metrics import Measurement
from ...core.roles import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.context import Context
    from ...core.metrics import Comparison
    from ...core.roles import Extractor
    from .feature_sets import FeatureSet
    from .pairing import PairScore

RESAMPLES = Field(1000, ge=0, le=100_000, description="bootstrap resamples of lesions for the interval; 0 for none")
FEW_RESAMPLES = Field(30, ge=0, le=100_000, description="bootstrap resamples of lesions for the interval; 0 for none")
DATA_RANGE = Field(1.0, gt=0, description="value of white; black is 0. MSE scales with its square")
PAIR_BY: Any = Field("id", description="what makes two images a pair: the same image id, or the same mask")
PAIRS = Field(1000, ge=2, le=1_000_000, description="number of random pairs")
AMONG = Field(description="pairs of one image of each dataset, or of different lesions within one")
INCEPTION_WEIGHTS = Field(None, description="Inception's file; by default looked up in torch hub's cache")
BACKBONE_WEIGHTS = Field(None, description="the extractor's weights: file or folder; by default from torch hub's cache")

PairBy = Literal["id", "mask"]
Among = Literal["between", "first", "second"]


class FeatureDistance(PluginConfig):
    """Settings of a distance in any extractor's space."""

    extractor: ExtractorName = Field(description="extractor plugin whose features are compared")
    model: str | None = Field(None, description="the extractor's model, where it has several")
    weights: Checkpoint | None = Field(None, description="the extractor's weights: file or folder")


class Frechet(Metric):
    """Frechet distance between the features of two datasets; needs more images than features."""

    name = "frechet"
    higher_is_better = False

    class Config(FeatureDistance):
        resamples: int = FEW_RESAMPLES

    def check(self, comparison: Comparison) -> None:
        from .frechet import check_sample_sizes

        extractor = _extractor(self.config, comparison, self.name)
        first = comparison.first.fetch([0], masks=False).images
        assert first is not None
        width = extractor.features(first.to(comparison.context.device)).shape[1]
        check_sample_sizes(len(comparison.first), len(comparison.second), width)

    def measure(self, comparison: Comparison) -> Measurement:
        from .feature_sets import feature_sets, frechet_interval
        from .frechet import frechet_distance, frechet_name

        self.check(comparison)
        extractor = _extractor(self.config, comparison, self.name)
        a, b = feature_sets(self.config, extractor, comparison)
        value = frechet_distance(a.features, b.features)
        context = comparison.context
        interval = frechet_interval(
            a,
            b,
            value,
            resamples=self.config.resamples,
            seed=context.seed,
            progress=lambda done, total: context.progress(done, total, {}),
        )
        return _distance(frechet_name(extractor.label), value, interval, extractor, (a, b), self.config.resamples)


class Fid(Frechet):
    """Frechet Inception Distance; needs 2049 images in each dataset."""

    name = "fid"

    class Config(PluginConfig):
        extractor: Literal["inception"] = Field("inception", description="the network that FID is defined with")
        model: Literal["fid"] = Field("fid", description="its model")
        weights: Checkpoint | None = INCEPTION_WEIGHTS
        resamples: int = FEW_RESAMPLES


class Kernel(Metric):
    """Kernel distance (unbiased squared MMD) between the features of two datasets; serves small ones too."""

    name = "kernel"
    higher_is_better = False

    class Config(FeatureDistance):
        resamples: int = RESAMPLES

    def check(self, comparison: Comparison) -> None:
        from .frechet import check_pairs

        check_pairs(len(comparison.first), len(comparison.second))
        _extractor(self.config, comparison, self.name)

    def measure(self, comparison: Comparison) -> Measurement:
        from .feature_sets import feature_sets, kernel_interval
        from .frechet import kernel_distance, kernel_name

        extractor = _extractor(self.config, comparison, self.name)
        a, b = feature_sets(self.config, extractor, comparison)
        value = kernel_distance(a.features, b.features)
        interval = kernel_interval(a, b, resamples=self.config.resamples, seed=comparison.context.seed)
        return _distance(kernel_name(extractor.label), value, interval, extractor, (a, b), self.config.resamples)


class Kid(Kernel):
    """Kernel Inception Distance over all images at once; serves small datasets too."""

    name = "kid"

    class Config(PluginConfig):
        extractor: Literal["inception"] = Field("inception", description="the network that KID is defined with")
        model: Literal["fid"] = Field("fid", description="its model")
        weights: Checkpoint | None = INCEPTION_WEIGHTS
        resamples: int = RESAMPLES


class _PairMetric(Metric):
    """A mean over pairs of images: of the same cases, or drawn at random."""

    @abstractmethod
    def _score(self, comparison: Comparison) -> tuple[str, dict[str, Any], PairScore]:
        """Return the score's name, its conventions and its function of two (N, 3, H, W) image tensors in [0, 1]."""

    def check(self, comparison: Comparison) -> None:
        from .pairing import pairs_by_id

        if self.needs_pairs and self.config.pair_by == "id":
            pairs_by_id(comparison.first, comparison.second)
        score = self._score(comparison)[2]
        if comparison.first.size is not None:  # else nobody knows the size yet at which images are compared
            one = comparison.first.fetch([0], masks=False).images
            assert one is not None
            score(one.to(comparison.context.device), one.to(comparison.context.device))

    def measure(self, comparison: Comparison) -> Measurement:
        name, conventions, score = self._score(comparison)
        config, first, second = self.config, comparison.first, comparison.second
        if self.needs_pairs:
            from .pair_means import same_cases

            chosen = same_cases(first, second, config.pair_by)
            conventions["pairs"] = f"same {'image id' if config.pair_by == 'id' else config.pair_by}"
        else:
            from .pair_means import drawn_pairs

            chosen = drawn_pairs(first, second, config.among, config.pairs, comparison.context.seed)
            among = "between both" if config.among == "between" else f"within the {config.among}"
            name = f"{name}, random pairs {among}"
            conventions |= {"pairs": f"random, {among}", "seed": comparison.context.seed}
        return chosen.mean(name, score, conventions | {"resamples": config.resamples}, config.resamples, comparison)


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

        extractor = _extractor(self.config, comparison, self.name)
        learned = extractor.label in LPIPS_LABELS.values()

        def score(a: Tensor, b: Tensor) -> Tensor:
            ends = [embed(extractor.feature_maps(x), extractor.channel_weights, None).double() for x in (a, b)]
            return (ends[0] - ends[1]).square().sum(1)

        name = extractor.label if learned else f"perceptual distance, {extractor.label}"
        return name, _conventions(extractor), score


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


PAIRED = [Mse, Psnr, Ssim, MsSsim, Lpips]
METRICS: list[type[Metric]] = [Frechet, Fid, Kernel, Kid, *PAIRED, LpipsDiversity, MsSsimDiversity]


def _extractor(config: Any, comparison: Comparison, metric: str) -> Extractor:
    from .real_features import ready_extractor

    context: Context = comparison.context
    return comparison.shared(
        ("extractor", config.extractor, config.model, config.weights),
        lambda: ready_extractor(config.extractor, config.model, config.weights, context, where=f"metric {metric}"),
        of_second=False,
    )


def _conventions(extractor: Extractor) -> dict[str, Any]:
    return {"extractor": extractor.label, "weights": extractor.weights_hash}


def _distance(
    name: str,
    value: float,
    interval: tuple[float | None, float | None],
    extractor: Extractor,
    sets: tuple[FeatureSet, FeatureSet],
    resamples: int,
) -> Measurement:
    a, b = sets
    return Measurement(
        name=name,
        value=value,
        low=interval[0],
        high=interval[1],
        images=(len(a.features), len(b.features)),
        groups=(a.groups.count, b.groups.count),
        pairs=None,
        conventions={**_conventions(extractor), "features": a.features.shape[1], "resamples": resamples},
    )
