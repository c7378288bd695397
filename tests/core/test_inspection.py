from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.inspection import inspect


def noise(seed: int, size: tuple[int, int] = (10, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def rectangle(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (10, 8)) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def kinds(dataset: Dataset) -> list[tuple[str, str]]:
    return [(problem.kind, problem.image_id) for problem in inspect(dataset).problems]


def test_counts_and_statistics():
    records = (
        Record("a", noise(0), rectangle(1, 3, 1, 5), label="nevus", split="train", group="L"),
        Record("b", noise(1), rectangle(0, 4, 0, 10), label="nevus", split="train", group="L", caption="brown"),
        Record("c", noise(2, (6, 4)), label="melanoma", split="val"),
        Record("d", noise(3)),
    )
    found = inspect(Dataset("four", records, phantom=True))
    assert (found.cases, found.masks, found.missing_masks, found.missing_labels, found.captions) == (4, 2, 2, 1, 1)
    assert dict(found.splits) == {"train": 2, "val": 1, "unassigned": 1} and found.phantom
    assert found.labels == {"melanoma": {"val": 1}, "nevus": {"train": 2}, "unlabelled": {"unassigned": 1}}
    assert (found.lesions, found.repeated_lesions) == (3, 1)
    assert list(found.sizes.items()) == [("10x8", 3), ("6x4", 1)]
    assert found.mask_statistics is not None and found.mask_statistics.border_touching == 0.5
    assert found.mask_statistics.area["min"] == 0.1 and found.mask_statistics.area["max"] == 0.5
    assert found.mask_statistics.area["mean"] == found.mask_statistics.area["median"] == pytest.approx(0.3)
    assert found.problems == () and json.loads(json.dumps(found.as_dict()))["cases"] == 4


def test_bad_files_become_problems(tmp_path):
    def save(name: str, pixels: np.ndarray) -> object:
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    good = save("good.png", noise(0))
    truncated = tmp_path / "truncated.jpg"
    Image.fromarray(noise(1, (64, 64))).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:400])
    records = (
        Record("corrupt", truncated, save("ok.png", rectangle(1, 3, 1, 3) * 255)),
        Record("missing", tmp_path / "absent.png"),
        Record("badmask", good, truncated),
        Record("size", noise(2), save("size.png", rectangle(1, 3, 1, 3, (9, 8)) * 255)),
        Record("empty", noise(3), save("empty.png", rectangle(0, 0, 0, 0))),
        Record("ones", noise(4), save("ones.png", rectangle(1, 3, 1, 3))),
        Record("grey", noise(5), save("grey.png", rectangle(1, 3, 1, 3) * 200)),
        Record("full", noise(6), rectangle(0, 8, 0, 10)),
    )
    found = inspect(Dataset("bad", records))
    assert [(problem.kind, problem.image_id) for problem in found.problems] == [
        ("unreadable-image", "corrupt"),
        ("unreadable-image", "missing"),
        ("unreadable-mask", "badmask"),
        ("size-mismatch", "size"),
        ("empty-mask", "empty"),
        ("non-binary-mask", "ones"),
        ("empty-mask", "ones"),
        ("non-binary-mask", "grey"),
        ("full-mask", "full"),
    ]
    assert found.problem_counts["empty-mask"] == 2
    messages = {(problem.kind, problem.image_id): problem.message for problem in found.problems}
    assert "has 9x8 pixels, the image 10x8" in messages["size-mismatch", "size"]
    assert "highest value is 1, a lesion must be 255" in messages["empty-mask", "ones"]
    assert "truncated.jpg cannot be decoded" in messages["unreadable-image", "corrupt"]


def test_duplicates_and_lesions_across_splits(tmp_path):
    Image.fromarray(noise(0)).save(tmp_path / "copy.png")
    Image.fromarray(noise(0)).save(tmp_path / "other.bmp")
    records = (
        Record("a", tmp_path / "copy.png", split="train"),
        Record("b", tmp_path / "other.bmp", split="test"),
        Record("c", noise(1), split="train", group="L"),
        Record("d", noise(1), split="train"),
        Record("e", noise(2), split="val", group="L"),
    )
    found = inspect(Dataset("leaky", records))
    assert [(problem.kind, problem.message) for problem in found.problems] == [
        ("duplicate-across-splits", "2 images have equal pixels: a (train), b (test)"),
        ("duplicate-image", "2 images have equal pixels: c (train), d (train)"),
        ("lesion-across-splits", "lesion 'L' has 2 images in the splits train and val"),
    ]


def test_images_of_equal_bytes_but_other_shape_are_no_duplicates():
    flat = np.zeros((4, 6, 3), np.uint8)
    assert kinds(Dataset("shapes", (Record("a", flat), Record("b", flat.reshape(6, 4, 3))))) == []


def test_progress_is_reported():
    seen: list[tuple[int, int]] = []
    records = tuple(Record(str(number), noise(number)) for number in range(3))
    inspect(Dataset("three", records), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
