"""How well a trained classifier does on held-out real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.architectures import parameter_count
from ...core.context import Context
from ...core.dataset import Dataset
from ..supervised.tables import write_table
from .calibration import probabilities_of
from .classifier import load_classifier
from .config import ClassificationConfig
from .labelled import class_rows, labelled
from .metrics import Rates, aurocs, expected_calibration_error, probability_metrics
from .prediction import class_logits

PURPOSE = "evaluating a classifier"


def evaluate_classifier(
    config: ClassificationConfig, context: Context, test: Dataset, output: Path
) -> Mapping[str, float]:
    """Evaluate the checkpoint in ``output`` at its own size on the test images that have a label.

    Writes ``per_image.csv``, ``per_class.csv`` and ``confusion.csv`` (rows: true classes) there.

    Returns:
        The metrics of :mod:`metrics` with calibrated probabilities; ``ece_uncalibrated`` without the temperature;
        ``temperature``; ``parameters``; ``unlabelled``, images without a label, which were left out; and
        ``classes_absent``, classes of no test image, which means over classes leave out.

    Raises:
        DataError: no test case has a label, or one has an unknown one.
        CheckpointError: the checkpoint cannot be used.
    """
    classifier, info = load_classifier(output)
    classifier.on(context.device)
    known = labelled(test, PURPOSE)
    truth = class_rows(known, info.classes, PURPOSE).numpy()
    found = []
    for batch in known.resized(info.size).batches(config.batch_size, masks=False):
        assert batch.images is not None
        found.append(class_logits(classifier, batch.images.to(context.device), size=info.size, context=context).cpu())
        context.progress(sum(map(len, found)), len(known), {})
    logits = torch.cat(found)
    raw, calibrated = probabilities_of(logits), probabilities_of(logits, info.temperature)
    predicted = calibrated.argmax(1)
    rates = Rates.of(truth, predicted, len(info.classes))
    _write_tables(output, known, info.classes, truth, calibrated, rates)
    return {
        **rates.means(),
        **probability_metrics(calibrated, truth),
        "ece_uncalibrated": expected_calibration_error(raw.max(1), predicted == truth),
        "temperature": info.temperature,
        "parameters": float(parameter_count(classifier.network)),
        "unlabelled": float(len(test) - len(known)),
        "classes_absent": float((rates.images == 0).sum()),
    }


def _write_tables(
    output: Path,
    data: Dataset,
    classes: Sequence[str],
    truth: np.ndarray[Any, Any],
    probabilities: np.ndarray[Any, Any],
    rates: Rates,
) -> None:
    predicted = probabilities.argmax(1)
    rows = (
        (image_id, classes[true], classes[guess], int(true == guess), *row)
        for image_id, true, guess, row in zip(data.ids, truth, predicted, probabilities.tolist(), strict=True)
    )
    columns = [f"probability_{name}" for name in classes]
    write_table(output / "per_image.csv", ("image_id", "label", "predicted", "correct", *columns), rows)
    names = ("sensitivity", "specificity", "precision", "f1")
    measured = [getattr(rates, name).tolist() for name in names]
    by_class = zip(classes, rates.images.tolist(), *measured, aurocs(probabilities, truth).tolist(), strict=True)
    write_table(output / "per_class.csv", ("class", "images", *names, "auroc"), by_class)
    counts = ((name, *row) for name, row in zip(classes, rates.counts.tolist(), strict=True))
    write_table(output / "confusion.csv", ("label", *classes), counts)
