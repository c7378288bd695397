"""Metrics that the papers print: FID, KID, LPIPS, MS-SSIM, SSIM, PSNR and MSE, each with its sample and conventions.

Distances are named after the network that they are measured with: only the published weights earn FID, KID and LPIPS.
Definitions and references stand beside the functions in `frechet`, `perceptual` and `full_reference`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...core.config import Checkpoint, ExtractorName, PluginConfig
from ...core.metrics import Measurement
from ...core.roles import Metric
from .metric_parts import RESAMPLES, conventions_of, shared_extractor
from .pair_metrics import PAIR_METRICS

if TYPE_CHECKING:
    from ...core.metrics import Comparison
    from ...core.roles import Extractor
    from .feature_sets import FeatureSet

FEW_RESAMPLES = Field(30, ge=0, le=100_000, description="bootstrap resamples of lesions for the interval; 0 for none")
INCEPTION_WEIGHTS = Field(None, description="Inception's file; by default looked up in torch hub's cache")


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

        extractor = shared_extractor(self.config, comparison, self.name)
        first = comparison.first.fetch([0], masks=False).images
        assert first is not None
        width = extractor.features(first.to(comparison.context.device)).shape[1]
        check_sample_sizes(len(comparison.first), len(comparison.second), width)

    def measure(self, comparison: Comparison) -> Measurement:
        from .feature_sets import feature_sets, frechet_interval
        from .frechet import frechet_distance, frechet_name

        self.check(comparison)
        extractor = shared_extractor(self.config, comparison, self.name)
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
        shared_extractor(self.config, comparison, self.name)

    def measure(self, comparison: Comparison) -> Measurement:
        from .feature_sets import feature_sets, kernel_interval
        from .frechet import kernel_distance, kernel_name

        extractor = shared_extractor(self.config, comparison, self.name)
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


METRICS: list[type[Metric]] = [Frechet, Fid, Kernel, Kid, *PAIR_METRICS]


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
        conventions={**conventions_of(extractor), "features": a.features.shape[1], "resamples": resamples},
    )
