"""Filters that screen synthetic cases: the shape of masks, and how far images lie from the real ones. And metrics.

EnhancedDDPM screens by "FID percentile" and "LPIPS outlier filtering" without defining either for one image. What
stands here instead is ours: `feature-gate` and `lpips-outlier` turn down what would be rare among the real images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ...core.config import Checkpoint, ExtractorName, PluginConfig
from ...core.errors import ConfigError, DataError, PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Filter, Plugin
from ...core.seeding import name_seed
from .metrics import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset

GIB = 2**30


class MaskQuality(Filter):
    """Rejects masks of implausible area, in several pieces, cut by the border or with holes."""

    name = "mask-quality"

    class Config(PluginConfig):
        """The defaults are ours: 97 of 100 expert masks of ISIC 2018 Task 1 pass them at 256 px."""

        min_area: float = Field(0.01, ge=0, le=1, description="smallest share of the image that is lesion")
        max_area: float = Field(0.98, ge=0, le=1, description="largest share of the image that is lesion")
        max_components: int = Field(1, ge=1, description="largest number of 8-connected pieces")
        min_component_area: float = Field(
            0.0005, ge=0, le=1, description="pieces below this share of the image are specks and not counted"
        )
        max_border: float = Field(0.6, ge=0, le=1, description="largest share of the outermost pixels that is lesion")
        max_holes: float = Field(0.01, ge=0, le=1, description="largest share of the filled lesion that is hole")

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            if self.min_area > self.max_area:
                raise ValueError(f"min_area {self.min_area} must not exceed max_area {self.max_area}")
            return self

    def screen(self, batch: Batch) -> Batch:
        stage = self.context.name or self.name
        batch.require("masks", stage=stage)
        from .mask_scores import mask_scores

        assert batch.masks is not None
        config = self.config
        scores = mask_scores(batch.masks, min_component_area=config.min_component_area)
        scored = batch.with_columns(scores={name: score.to(batch.masks.device) for name, score in scores.items()})
        limits = (
            ("mask_area", scores["mask_area"] < config.min_area, config.min_area),
            ("mask_area", scores["mask_area"] > config.max_area, config.max_area),
            ("mask_components", scores["mask_components"] > config.max_components, config.max_components),
            ("mask_border", scores["mask_border"] > config.max_border, config.max_border),
            ("mask_holes", scores["mask_holes"] > config.max_holes, config.max_holes),
        )
        for score, failed, threshold in limits:
            scored = scored.rejected_where(failed, plugin=stage, score=score, threshold=threshold)
        return scored


class _DistanceFilter(Filter):
    """A filter that rejects images further from the real ones than a threshold fitted on those."""

    needs_fit = True
    _score: str

    @property
    @abstractmethod
    def measure(self) -> str:
        """What the score measures, with the extractor's label."""

    @abstractmethod
    def distances(self, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the (N,) distances of (N, 3, H, W) images under the fitted ``state``."""

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .real_features import ready_extractor

        config = self.config
        self._stage = context.name or self.name
        self._extractor = ready_extractor(config.extractor, config.model, config.weights, context, where=self._stage)
        self._state: Mapping[str, Tensor] | None = None

    def load_fit(self, state: Mapping[str, Tensor]) -> None:
        from .real_features import check_measure

        check_measure(state, self.measure, stage=self._stage)
        self._state = {name: tensor.to(self.context.device) for name, tensor in state.items()}

    def screen(self, batch: Batch) -> Batch:
        """Return ``batch`` scored; above the fitted threshold, or not a number, is rejected."""
        batch.require("images", stage=self._stage)
        from .real_features import check_size

        assert batch.images is not None
        if self._state is None:
            raise PluginError(f"stage {self._stage} has not been fitted on real images; call load_fit(fit(real)) first")
        check_size(batch.images, self._state, stage=self._stage)
        found = self.distances(batch.images.float(), self._state)
        threshold = float(self._state["threshold"])
        scored = batch.with_columns(scores={self._score: found})
        return scored.rejected_where(~(found <= threshold), plugin=self._stage, score=self._score, threshold=threshold)


class FeatureGate(_DistanceFilter):
    """Rejects images whose features lie further from the real images' Gaussian than most real images do [ours].

    Score: squared Mahalanobis distance to the real training images' Gaussian (Ledoit-Wolf covariance). Threshold: a
    percentile of the real images' own distances, each to the Gaussian of all the others.
    """

    name = "feature-gate"

    class Config(PluginConfig):
        extractor: ExtractorName = Field("inception", description="extractor plugin whose feature space is used")
        model: str | None = Field(None, description="the extractor's model, where it has several")
        weights: Checkpoint | None = Field(None, description="the extractor's weights: file, folder or train:NAME")
        percentile: float = Field(95.0, gt=0, le=100, description="percentile of the real images' distances to keep")

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._score = f"mahalanobis_{self.config.extractor.replace('-', '_')}"

    @property
    def measure(self) -> str:
        """What the score measures, with the extractor's label."""
        return f"squared Mahalanobis distance, {self._extractor.label}"

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Return ``mean`` (D,), ``whitening`` (D, D), ``threshold`` and the real images' own distances."""
        from .gaussian import ShrunkGaussian, leave_one_out
        from .real_features import described, over_real

        features = over_real(real, self._extractor.features, self.context)
        gaussian = ShrunkGaussian.fit(features)
        own = leave_one_out(features)
        return {
            "mean": gaussian.mean,
            "whitening": gaussian.whitening,
            "threshold": own.quantile(self.config.percentile / 100),
            f"reference/{self._score}": own,
            **described(self.measure, real),
        }

    def distances(self, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        from .gaussian import mahalanobis

        return mahalanobis(self._extractor.features(images), state["mean"], state["whitening"])


class LpipsOutlier(_DistanceFilter):
    """Rejects images whose nearest real images are further away than most real images' own nearest are [ours].

    Score: mean perceptual distance to the nearest real training images; it may be called LPIPS only with the standard
    weights of the extractor ``lpips`` on full maps. Threshold: a percentile of the real images' own scores, each
    without itself.
    """

    name = "lpips-outlier"

    class Config(PluginConfig):
        extractor: ExtractorName = Field("lpips", description="extractor plugin whose maps are compared")
        model: str | None = Field(None, description="the extractor's model, where it has several")
        weights: Checkpoint | None = Field(None, description="the extractor's weights: file, folder or train:NAME")
        percentile: float = Field(95.0, gt=0, le=100, description="percentile of the real images' distances to keep")
        neighbours: int = Field(5, ge=1, description="number of nearest real images whose distances are averaged")
        map_size: int = Field(8, ge=0, description="edge in cells to which larger maps are averaged; 0 keeps full maps")
        gallery: int = Field(2000, ge=2, description="largest number of real images to compare with, chosen by id")
        memory_gib: float = Field(4.0, gt=0, description="largest size in GiB of the real images' maps")

    def setup(self, context: Context) -> None:
        super().setup(context)
        from .extractors import LPIPS_LABELS

        self._learned = self._extractor.label in LPIPS_LABELS.values()
        exact = self._learned and not self.config.map_size
        self._score = "lpips" if exact else f"perceptual_{self.config.extractor.replace('-', '_')}"

    @property
    def measure(self) -> str:
        """What the score measures, with the extractor's label and the reduction of its maps."""
        size = self.config.map_size
        name = self._extractor.label if self._learned else f"perceptual distance, {self._extractor.label}"
        return f"{name}, maps averaged to {size}x{size}" if size else name

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Return the ``gallery`` (R, K) of real images, ``threshold`` and the real images' own distances."""
        from .perceptual import own_nearest_mean
        from .real_features import described, over_real

        gallery = self._chosen(real)
        vectors = over_real(gallery, lambda images: self._vectors(images, len(gallery)), self.context)
        own = own_nearest_mean(vectors, self.config.neighbours)
        return {
            "gallery": vectors,
            "threshold": own.quantile(self.config.percentile / 100),
            f"reference/{self._score}": own,
            **described(self.measure, gallery),
        }

    def distances(self, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        from .perceptual import nearest_mean, squared_distances

        found = squared_distances(self._vectors(images), state["gallery"], apart=True)
        return nearest_mean(found, self.config.neighbours)

    def _chosen(self, real: Dataset) -> Dataset:
        """Return at most ``gallery`` real images, the same ones whatever their order."""
        if len(real) <= self.config.neighbours:
            raise DataError(
                f"stage {self._stage}: {self.config.neighbours} neighbours need more real images than {len(real)}"
            )
        by_hash = sorted(range(len(real)), key=lambda row: name_seed("gallery", real.ids[row]))
        return real.take(sorted(by_hash[: self.config.gallery]))

    def _vectors(self, images: Tensor, rows: int = 0) -> Tensor:
        """Return the images' vectors; where ``rows`` of them are to be kept, refuse more memory than is allowed."""
        from .perceptual import embed

        maps = self._extractor.feature_maps(images)
        vectors = embed(maps, self._extractor.channel_weights, self.config.map_size or None)
        needed = rows * vectors.shape[1] * vectors.element_size() / GIB
        if needed > self.config.memory_gib:
            raise ConfigError(
                f"stage {self._stage}: the maps of {rows} real images take {needed:.1f} GiB, more than memory_gib = "
                f"{self.config.memory_gib}; lower map_size or gallery, or raise memory_gib"
            )
        return vectors


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [MaskQuality, FeatureGate, LpipsOutlier, *METRICS]
