from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesionforge.core.config import build_config
from lesionforge.core.dataset import Dataset
from lesionforge.core.roles import Source

WriteImage = Callable[..., Path]
Load = Callable[..., Dataset]


@pytest.fixture
def write_image() -> WriteImage:
    """Return a function that writes a small image whose pixels depend on its name."""

    def write(path: Path, size: tuple[int, int] = (12, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(path.stem.encode("utf-8", "surrogateescape")))
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def write_mask() -> WriteImage:
    """Return a function that writes a mask with a rectangle of 255."""

    def write(path: Path, size: tuple[int, int] = (12, 8), mode: str = "L") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((size[1], size[0]), np.uint8)
        pixels[2:5, 3:7] = 255
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def load() -> Load:
    """Return a function that loads a folder with a source and its options."""

    def load_with(source: type[Source], root: Path, **options: object) -> Dataset:
        return source(build_config(source.Config, options, where=source.name)).load(str(root))

    return load_with


@pytest.fixture
def task1(tmp_path: Path, write_image: WriteImage, write_mask: WriteImage) -> Path:
    """Three images in the layout of ISIC 2018 Task 1, one a split; the test image has no mask."""
    for number, split in enumerate(("Training", "Validation", "Test"), 1):
        write_image(tmp_path / f"ISIC2018_Task1-2_{split}_Input" / f"ISIC_000000{number}.jpg")
        if split != "Test":
            folder = tmp_path / f"ISIC2018_Task1_{split}_GroundTruth"
            write_mask(folder / f"ISIC_000000{number}_segmentation.png")
    (tmp_path / "ISIC2018_Task1-2_Training_Input" / "LICENSE.txt").write_text("CC")
    (tmp_path / "ISIC2018_Task1-2_Training_Input" / "._ISIC_0000001.jpg").write_bytes(b"resource fork")
    return tmp_path
