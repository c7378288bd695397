from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.plugins.classification.classifier import Classifier
from lesionforge.plugins.classification.config import ClassificationConfig, ClassifierInfo
from lesionforge.plugins.classification.networks import build_network
from lesionforge.plugins.classification.plugin import ClassificationTrainer
from lesionforge.plugins.supervised.checkpoint import save_checkpoint
from lesionforge.testing import disc_dataset

TINY = {"architecture": "timm:test_resnet", "size": 32}


@pytest.fixture(autouse=True)
def computed_on_one_thread(one_thread):
    pass


def tinted(count: int = 24, *, seed: int = 0) -> Dataset:
    """Discs on skin, those labelled melanoma on bluish one: classes that can be told apart."""
    data = disc_dataset(count, 32, seed=seed)
    tint = np.array([0.6, 0.8, 1.0])
    records = [
        replace(record, image=(record.image * tint).astype(np.uint8)) if record.label == "melanoma" else record
        for record in data.records
    ]
    return replace(data, records=tuple(records))


@pytest.fixture
def discs() -> Dataset:
    return tinted()


@pytest.fixture
def make_trainer() -> Callable[..., ClassificationTrainer]:
    def make(progress: Any = lambda done, total, metrics: None, **values: Any) -> ClassificationTrainer:
        trainer = ClassificationTrainer(build_config(ClassificationConfig, {**TINY, **values}, where="test"))
        trainer.setup(Context(torch.device("cpu"), name="job", seed=7, progress=progress))
        return trainer

    return make


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Function that publishes a network with random weights, which names about half of all images melanoma."""

    def make(architecture: str = "timm:test_resnet", **values: Any) -> Path:
        info = ClassifierInfo(
            architecture=architecture,
            size=32,
            **{"classes": ("melanoma", "nevus"), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), **values},
        )
        torch.manual_seed(3)
        classifier = Classifier(build_network(info, len(info.classes)), info.mean, info.std).eval()
        discs = disc_dataset(12, 32).fetch(range(12)).images
        with torch.no_grad():
            classifier.network.last_layer.weight *= 20
            gap = classifier(discs).diff(dim=1)[:, 0]
            classifier.network.last_layer.bias[1] -= gap.quantile(0.5)  # between two images
        folder = tmp_path / architecture.replace(":", "-")
        folder.mkdir()
        save_checkpoint(folder, classifier, info)
        return folder

    return make
