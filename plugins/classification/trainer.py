"""Training of a classification network from the first step, or from where a killed job stopped, to its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.context import Context
from ...core.dataset import Dataset
from ...core.errors import DataError
from ...core.seeding import name_seed
from ...core.training import Losses, TrainingLoop, Validation
from ..supervised.checkpoint import read_weights, save_checkpoint
from ..supervised.training import batch_rows, check_input, make_augmentation, supervised_loop, validation_steps
from .calibration import fit_temperature, probabilities_of
from .classifier import Classifier
from .config import ClassificationConfig, ClassifierInfo
from .labelled import LabelledImages, class_rows, labelled
from .losses import class_weights, make_loss
from .metrics import Rates, probability_metrics
from .networks import build_network
from .prediction import class_logits

PURPOSE, HELD_OUT = "training a classifier", "validating a classifier"


def train_classifier(
    config: ClassificationConfig, context: Context, train: Dataset, val: Dataset | None, output: Path
) -> None:
    """Train on the labelled cases of ``train``, keep the weights that are best on ``val`` (the last ones without it),
    fit the temperature on ``val``, and publish to ``output``.

    Raises:
        DataError: there are fewer than two classes, a label is unknown, or a file cannot be used.
        ConfigError: timm has no such model, the class weights do not fit, or the network cannot take such images.
        CheckpointError: the pretrained weights or the state to resume from cannot be used.
    """
    known = labelled(train, PURPOSE)
    classes = config.classes or known.classes
    if len(classes) < 2:
        raise DataError(f"{PURPOSE}: all labelled images of {train.name} are of one class, {', '.join(classes)}")
    labels = class_rows(known, classes, PURPOSE)
    weights = class_weights(config, classes, labels)
    classifier = initial_classifier(config, len(classes), context.seed).to(context.device)
    images = LabelledImages(known, labels, config.size, context.device)
    held_out = None if val is None else _held_out(val, classes, config, context)
    loop = supervised_loop(config, classifier, examples=len(known), output=output, context=context)
    every = validation_steps(config, len(known))
    validation = None if held_out is None else _validation(config, context, held_out, every)
    loop.run(_losses(config, loop, images, weights), validation=validation)
    temperature = None
    if held_out is not None and config.calibrate:
        temperature = fit_temperature(all_logits(classifier, held_out, config, context), held_out.labels)
    info = ClassifierInfo(
        **config.network_values(),
        classes=classes,
        cases=tuple(torch.bincount(labels, minlength=len(classes)).tolist()),
        mean=classifier.network.mean,
        std=classifier.network.std,
        temperature=temperature or 1.0,
        calibrated=temperature is not None,
        dataset=train.name,
        phantom=train.phantom,
    )
    save_checkpoint(output, classifier, info)


def _held_out(val: Dataset, classes: tuple[str, ...], config: ClassificationConfig, context: Context) -> LabelledImages:
    known = labelled(val, HELD_OUT)
    return LabelledImages(known, class_rows(known, classes, HELD_OUT), config.size, context.device)


def _losses(
    config: ClassificationConfig, loop: TrainingLoop, examples: LabelledImages, weights: Tensor | None
) -> Losses:
    augment, loss = make_augmentation(config), make_loss(config, None if weights is None else weights.to(loop.device))

    def losses(rows: list[int], step: int) -> Mapping[str, Tensor]:
        images, labels = examples.take(batch_rows(rows))
        return {"loss": loss(loop.network(augment.images(images)), labels)}

    return losses


def _validation(config: ClassificationConfig, context: Context, held_out: LabelledImages, every: int) -> Validation:
    def evaluate(model: nn.Module) -> Mapping[str, float]:
        logits = all_logits(model, held_out, config, context)
        probabilities, truth = probabilities_of(logits), held_out.labels.cpu().numpy()
        means = Rates.of(truth, probabilities.argmax(1), logits.shape[1]).means()
        scores = probability_metrics(probabilities, truth)
        return {
            "val_f1_macro": means["f1_macro"],
            "val_auroc": scores["auroc"],
            "val_loss": scores["log_loss"],
            "val_accuracy": means["accuracy"],
        }

    return Validation(
        every=every,
        evaluate=evaluate,
        monitor=f"val_{config.monitor}",
        higher_is_better=config.monitor != "loss",
        patience=config.patience or None,
    )


def initial_classifier(config: ClassificationConfig, classes: int, seed: int) -> Classifier:
    """Return the untrained network: the same one for every job with this seed, so that arms of a study start alike.

    Raises:
        CheckpointError: the pretrained weights cannot be used.
        ConfigError: timm has no such model, or the network cannot take images of this size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name_seed(str(seed), "classifier weights") >> 1)
        network = build_network(config, classes)
    if config.weights is not None:
        network.load(read_weights(Path(config.weights)), where=config.weights)
    classifier = Classifier(network, network.mean, network.std)
    check_input(classifier, config.size, name=config.architecture)
    return classifier


def all_logits(model: nn.Module, examples: LabelledImages, config: ClassificationConfig, context: Context) -> Tensor:
    """Return the (N, K) logits of ``model``, in evaluation mode, for all ``examples``."""
    starts = range(0, len(examples), config.batch_size)
    batches = (examples.take(range(first, min(first + config.batch_size, len(examples))))[0] for first in starts)
    return torch.cat([class_logits(model, images, size=config.size, context=context) for images in batches])
