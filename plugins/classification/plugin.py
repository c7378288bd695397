"""Trainer, annotator, filter and feature extractor around one classification network, and what explains it.

The networks are those that SkinDualGen compares and more, of torchvision (BSD-3-Clause) and timm (Apache-2.0). No
weights are downloaded; those that the trainer publishes are the user's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...core.config import Checkpoint, PluginConfig
from ...core.errors import ConfigError, PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Annotator, Extractor, Filter, Plugin, Trainer
from .config import ClassificationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset
    from ...core.explaining import Explainer

CHECKPOINT_HELP = "folder that the trainer classification wrote, or train:JOB"


class ClassificationTrainer(Trainer):
    """Trains a classification network and measures accuracy, F1, AUROC, calibration ... on the test split."""

    name = "classification"
    Config = ClassificationConfig

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        from .trainer import train_classifier

        train_classifier(self.config, self.context, train, val, output)

    def evaluate(self, test: Dataset, output: Path) -> Mapping[str, float]:
        from .evaluation import evaluate_classifier

        return evaluate_classifier(self.config, self.context, test, output)


class ClassifierAnnotator(Annotator):
    """Names what every image shows with a trained classification network; fills labels and a confidence.

    The score ``classifier_confidence`` in [0, 1] is the calibrated probability of the predicted class.
    """

    name = "classifier"

    class Config(PluginConfig):
        checkpoint: Checkpoint = Field(description=CHECKPOINT_HELP)
        labels: Literal["missing", "all", "none"] = Field("missing", description="which labels are filled")

    def setup(self, context: Context) -> None:
        from .classifier import load_classifier

        super().setup(context)
        classifier, self._info = load_classifier(self.config.checkpoint)
        self._classifier = classifier.on(context.device)

    def annotate(self, batch: Batch) -> Batch:
        from .prediction import class_probabilities

        batch.require("images", stage=self.context.name or self.name)
        assert batch.images is not None
        best = class_probabilities(self._classifier, self._info, batch.images, self.context).max(dim=1)
        named = [self._info.classes[number] for number in best.indices.tolist()]
        old = batch.labels or (None,) * len(batch)
        if self.config.labels == "missing":
            named = [found if known is None else known for known, found in zip(old, named, strict=True)]
        labels = None if self.config.labels == "none" else named
        return batch.with_columns(labels=labels, scores={"classifier_confidence": best.values})


class Agreement(Filter):
    """Rejects cases whose predicted class is not their label.

    Scores: ``label_probability``, the calibrated probability of the label, and ``label_margin``, by how much it exceeds
    that of every other class. A margin below the limit, 0 by default, is turned down: another class is more probable.
    """

    name = "agreement"

    class Config(PluginConfig):
        checkpoint: Checkpoint = Field(description=CHECKPOINT_HELP)
        min_margin: float = Field(
            0.0, ge=0, lt=1, description="by how much the label's probability must exceed that of every other class"
        )

    def setup(self, context: Context) -> None:
        from .classifier import load_classifier

        super().setup(context)
        classifier, self._info = load_classifier(self.config.checkpoint)
        self._classifier = classifier.on(context.device)

    def screen(self, batch: Batch) -> Batch:
        """Return ``batch`` scored.

        Raises:
            PluginError: a case has no label, or one that the classifier does not know.
        """
        from .prediction import class_probabilities, label_scores

        stage = self.context.name or self.name
        batch.require("images", "labels", stage=stage)
        assert batch.images is not None and batch.labels is not None
        for case, label in zip(batch.ids, batch.labels, strict=True):
            if label not in self._info.classes:
                raise PluginError(
                    f"stage {stage}: the label of {case} is {label!r}, which is none of the classifier's classes "
                    f"{', '.join(self._info.classes)}"
                )
        rows = [self._info.classes.index(str(label)) for label in batch.labels]
        probabilities = class_probabilities(self._classifier, self._info, batch.images, self.context)
        scores = label_scores(probabilities, rows)
        limit = self.config.min_margin
        scored = batch.with_columns(scores=scores)
        return scored.rejected_where(
            ~(scores["label_margin"] >= limit), plugin=stage, score="label_margin", threshold=limit
        )


class ClassifierExtractor(Extractor):
    """Features that a classification checkpoint makes its decisions from: works offline, for any domain.

    A vector is what the last layer sees. Distances in it are named after it and cannot be compared with FID, nor
    between two checkpoints. Maps are the last ones alone, of networks that have maps.
    """

    name = "classifier"

    class Config(PluginConfig):
        model: None = Field(None, description="unused: the checkpoint says which network it is")
        weights: Checkpoint = Field(description=CHECKPOINT_HELP)

    def setup(self, context: Context) -> None:
        from .classifier import load_classifier

        super().setup(context)
        classifier, self._info = load_classifier(self.config.weights)
        self._classifier = classifier.on(context.device)

    @property
    def label(self) -> str:
        return "classifier features (trained on phantoms)" if self._info.phantom else "classifier features"

    @property
    def weights_hash(self) -> str:
        from ..supervised.checkpoint import weights_hash

        return weights_hash(self.config.weights)

    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        from .prediction import maps_and_features

        maps, _ = maps_and_features(self._classifier, images, size=self._info.size)
        if maps is None:
            raise ConfigError(f"extractor classifier: {self._info.architecture} has tokens, no maps of features")
        return [maps]

    def features(self, images: Tensor) -> Tensor:
        from .prediction import maps_and_features

        return maps_and_features(self._classifier, images, size=self._info.size)[1]


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    """Register what this module offers."""
    return [ClassificationTrainer, ClassifierAnnotator, Agreement, ClassifierExtractor]


@hookimpl
def open_explainer(checkpoint: Path, context: Context) -> Explainer | None:
    """Return what explains a classification checkpoint, None for any other folder."""
    from .explanation import ClassifierExplainer, is_classifier

    return ClassifierExplainer(checkpoint, context) if is_classifier(checkpoint) else None
