from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import DataError, StoreError
from lesionforge.plugins.data.coco import run_lengths
from lesionforge.plugins.data.exporters import register_plugins
from lesionforge.plugins.data.exporting import file_stem
from lesionforge.plugins.data.folders import Folder, ImageFolder
from lesionforge.plugins.data.isic import Isic2018

EXPORTERS = {plugin.name: plugin for plugin in register_plugins()}
SOURCES = {"folder": Folder, "imagefolder": ImageFolder, "isic2018": Isic2018}
IDS = ("plain", "лезия №1", "a/b/../c", "<script>", "..", ".hidden", "line\nbreak", "100%", "=1+1", "x" * 300)


def pixels(seed: int, size: tuple[int, int] = (12, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def mask(seed: int, size: tuple[int, int] = (12, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (size[1], size[0]), dtype=np.uint8)


def some_cases(*, splits: bool = True) -> Dataset:
    """Ten cases in memory with awkward ids and facts missing here and there."""
    records = tuple(
        Record(
            image_id=image_id,
            image=pixels(number),
            mask=mask(number) if number % 3 else None,
            label="nevus" if number % 2 else None,
            caption='said "so",\nand so' if number % 4 == 1 else None,
            group="L,1" if number < 3 else "",
            split=("train", "val", "test")[number % 3] if splits else None,
            metadata={"seed": str(2**63 + number)},
        )
        for number, image_id in enumerate(IDS)
    )
    return Dataset("some cases", records)


def by_content(dataset: Dataset) -> dict[bytes, Record]:
    return {dataset.image(row).tobytes(): record for row, record in enumerate(dataset.records)}


def export(name: str, dataset: Dataset, output: Path) -> Path:
    output.mkdir()
    EXPORTERS[name]().export(dataset, output)
    return output


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_exported_can_be_read_again(tmp_path, name):
    original = some_cases()
    again = SOURCES[name]().load(str(export(name, original, tmp_path / "out")))
    assert len(again) == len(original)
    found = by_content(again)
    for row, record in enumerate(original.records):
        twin = found[original.image(row).tobytes()]
        assert twin.image_id == (record.image_id if name == "imagefolder" else file_stem(record.image_id))
        assert (twin.label, twin.caption, twin.group, twin.split, twin.metadata) == (
            record.label,
            record.caption,
            record.group,
            record.split,
            record.metadata,
        )
        assert (twin.mask is None) == (record.mask is None)
        if record.mask is not None:
            np.testing.assert_array_equal(again.mask(again.ids.index(twin.image_id)), record.mask)


@pytest.mark.parametrize("name", EXPORTERS)
def test_nothing_is_written_outside_and_phantoms_stay_marked(tmp_path, name):
    dataset = some_cases(splits=False)
    phantoms = Dataset(dataset.name, dataset.records, phantom=True)
    output = export(name, phantoms, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "phantom" in (output / "README.md").read_text()
    assert all("script" not in path.name or "<" not in path.name for path in output.rglob("*"))
    if name in SOURCES:
        assert SOURCES[name]().load(str(output)).phantom


@pytest.mark.parametrize("name", EXPORTERS)
def test_files_are_copied_as_they_are_unless_they_are_resized(tmp_path, name, write_image):
    file = write_image(tmp_path / "photo.JPEG", size=(20, 10))
    dataset = Dataset("one", (Record("photo", file),))
    (copy,) = export(name, dataset, tmp_path / "out").rglob("photo.jpeg")
    assert copy.read_bytes() == file.read_bytes()
    (resized,) = export(name, dataset.resized(6), tmp_path / "small").rglob("photo.png")
    np.testing.assert_array_equal(np.asarray(Image.open(resized)), dataset.resized(6).image(0))


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_corrupt_file_stops_the_export(tmp_path, name):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"bad\.png cannot be decoded"):
        export(name, Dataset("bad", (Record("bad", tmp_path / "bad.png"),)), tmp_path / "out")


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_file_system_that_refuses_is_named(tmp_path, name):
    with pytest.raises(StoreError, match=r"cannot write .*absent"):
        EXPORTERS[name]().export(some_cases(), tmp_path / "absent")


def test_imagefolder_uses_the_hubs_split_names(tmp_path):
    output = export("imagefolder", some_cases(), tmp_path / "out")
    assert sorted(path.parent.name for path in output.rglob("metadata.jsonl")) == ["test", "train", "validation"]


def decoded(counts: list[int], shape: list[int]) -> np.ndarray:
    """Decode COCO's run lengths as its specification says: column by column, background first."""
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    return flat.reshape(shape, order="F").astype(np.uint8)


def test_coco_masks_are_exact(tmp_path):
    original = some_cases()
    output = export("coco", original, tmp_path / "out")
    seen = 0
    for path in sorted((output / "annotations").iterdir()):
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        assert all((output / "images" / image["file_name"]).is_file() for image in images.values())
        for annotation in content["annotations"]:
            image = images[annotation["image_id"]]
            record = original.records[original.ids.index(image["image_id"])]
            segmentation = annotation["segmentation"]
            found = decoded(segmentation["counts"], segmentation["size"])
            np.testing.assert_array_equal(found, record.mask)
            left, top, width, height = annotation["bbox"]
            assert found[top : top + height, left : left + width].sum() == found.sum() == annotation["area"]
            assert (image["width"], image["height"]) == (12, 8)
            assert names[annotation["category_id"]] == (record.label or "lesion")
            seen += 1
    assert seen == sum(record.mask is not None for record in original.records)


def test_coco_leaves_out_empty_masks(tmp_path):
    empty = Dataset("empty", (Record("a", pixels(0), mask=np.zeros((8, 12), np.uint8)),))
    output = export("coco", empty, tmp_path / "out")
    content = json.loads((output / "annotations" / "instances_all.json").read_text())
    assert content["annotations"] == [] and len(content["images"]) == 1


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_run_lengths_decode_to_the_mask(height, width, seed):
    original = mask(seed, (width, height))
    np.testing.assert_array_equal(decoded(run_lengths(original), [height, width]), original)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=250), unique=True, max_size=6))
def test_file_stems_are_safe_and_unique(ids):
    stems = [file_stem(image_id) for image_id in ids]
    assert len(set(stems)) == len(stems)
    for stem in stems:
        assert stem not in ("", ".", "..") and "/" not in stem and "\x00" not in stem and stem.isprintable()
        assert len(stem.encode()) <= 200
