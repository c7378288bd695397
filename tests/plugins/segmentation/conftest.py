from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.plugins.segmentation.config import SegmentationConfig, SegmenterInfo
from lesionforge.plugins.segmentation.plugin import SegmentationTrainer
from lesionforge.plugins.segmentation.segmenter import Segmenter
from lesionforge.plugins.supervised.checkpoint import save_checkpoint
from lesionforge.testing import disc_dataset

TINY = {"size": 32, "width": 4, "depth": 2}


@pytest.fixture(autouse=True)
def computed_on_one_thread(one_thread):
    pass


@pytest.fixture
def discs() -> Dataset:
    return disc_dataset(24, 32)


@pytest.fixture
def make_trainer() -> Callable[..., SegmentationTrainer]:
    def make(progress: Any = lambda done, total, metrics: None, **values: Any) -> SegmentationTrainer:
        trainer = SegmentationTrainer(build_config(SegmentationConfig, {**TINY, **values}, where="test"))
        trainer.setup(Context(torch.device("cpu"), name="job", seed=7, progress=progress))
        return trainer

    return make


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A published network with random weights whose logits straddle zero."""
    info = SegmenterInfo(architecture="dilated-unet", **TINY)
    torch.manual_seed(3)
    segmenter = Segmenter(info).eval()
    with torch.no_grad():
        segmenter.network.head.bias -= segmenter(torch.rand(4, 3, 32, 32)).median()
    folder = tmp_path / "segmenter"
    folder.mkdir()
    save_checkpoint(folder, segmenter, info)
    return folder
