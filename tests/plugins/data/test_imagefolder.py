from __future__ import annotations

import json
from pathlib import Path

import pytest

from lesionforge.core.errors import DataError
from lesionforge.plugins.data.folders import ImageFolder


def write_rows(path: Path, *rows: object) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def test_metadata_in_split_folders(tmp_path, write_image, write_mask):
    for split in ("train", "validation"):
        write_image(tmp_path / split / "0001.png")
        write_mask(tmp_path / split / "masks" / "0001.png")
    write_rows(
        tmp_path / "train" / "metadata.jsonl",
        {"file_name": "0001.png", "mask_file_name": "masks/0001.png", "text": "brun, à gauche", "label": 3, "age": 61},
    )
    write_rows(tmp_path / "validation" / "metadata.jsonl", {"file_name": "0001.png", "lesion_id": "L", "label": None})
    dataset = ImageFolder().load(str(tmp_path))
    assert dataset.ids == ("train/0001", "validation/0001")
    first, second = dataset.records
    assert (first.split, first.label, first.caption, first.metadata) == ("train", "3", "brun, à gauche", {"age": "61"})
    assert (second.split, second.label, second.group, second.mask) == ("val", None, "L", None)
    assert dataset.fetch([0], masks=True).masks.sum() == 12


def test_metadata_csv_and_ids_of_ones_own(tmp_path, write_image):
    write_image(tmp_path / "pictures" / "x.png")
    (tmp_path / "metadata.csv").write_text("file_name,image_id,split,caption\npictures/x.png,case 7,test,brown\n")
    (record,) = ImageFolder().load(str(tmp_path)).records
    assert (record.image_id, record.split, record.caption) == ("case 7", "test", "brown")


def test_class_folders_below_split_folders(tmp_path, write_image):
    for path in ("train/nevus/1.png", "train/melanoma/2.png", "test/nevus/3.jpg"):
        write_image(tmp_path / path)
    dataset = ImageFolder().load(str(tmp_path))
    assert [(record.image_id, record.split, record.label) for record in dataset.records] == [
        ("1", "train", "nevus"),
        ("2", "train", "melanoma"),
        ("3", "test", "nevus"),
    ]


def test_plain_images_have_no_label_and_repeated_stems_give_paths_as_ids(tmp_path, write_image):
    for name in ("1.png", "sub/1.png", "sub/1.jpg"):
        write_image(tmp_path / name)
    records = ImageFolder().load(str(tmp_path)).records
    assert {record.image_id: record.label for record in records} == {"1": None, "sub/1.png": "sub", "sub/1.jpg": "sub"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.png", "leads out of"),
        ("sub/../../secret.png", "leads out of"),
        ("{outside}/secret.png", "leads out of"),
        ("link.png", "leads out of"),
        ("linked/secret.png", "leads out of"),
        ("absent.png", "does not exist"),
        (".", "does not exist"),
        ("nul\x00.png", "no usable file name"),
        ("loop.png", "no usable file name|does not exist"),
    ],
)
@pytest.mark.parametrize("key", ["file_name", "mask_file_name"])
def test_file_names_must_stay_inside(tmp_path, write_image, name, message, key):
    root = tmp_path / "data"
    write_image(tmp_path / "secret.png")
    write_image(root / "ok.png")
    (root / "sub").mkdir()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    write_rows(root / "metadata.jsonl", {"file_name": "ok.png", key: name.format(outside=tmp_path)})
    with pytest.raises(DataError, match=message) as caught:
        ImageFolder().load(str(root))
    assert "metadata.jsonl line 1" in str(caught.value) and str(caught.value).isprintable()


def test_links_between_files_of_the_folder_are_fine(tmp_path, write_image):
    write_image(tmp_path / "blobs" / "x.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "blobs" / "x.png")
    write_rows(tmp_path / "metadata.jsonl", {"file_name": "link.png", "image_id": "one"})
    assert ImageFolder().load(str(tmp_path)).ids == ("one",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no images"),
        ("not json\n", "line 1: malformed JSON"),
        ('{"file_name": ""}\n', "line 1: expected one row with a file_name"),
        ('{"file_name": 7}\n', "line 1: expected one row with a file_name"),
        ('{"file_name": "x.png"}\n\n["x.png"]\n', "line 3: expected one row with a file_name"),
        ('{"file_name": "x.png"}\n{"file_name": "x.png"}\n', "line 2: image id 'x.png' appears twice"),
        ('{"file_name": "x.png", "label": ["a"]}\n', "label must be text"),
        ('{"file_name": "x.png", "split": "all"}\n', "split 'all' is not train"),
        ('{"file_name": "x.png", "age": ' + "[" * 100_000 + "\n", "malformed JSON"),
    ],
)
def test_malformed_metadata_is_refused_in_one_line(tmp_path, write_image, text, message):
    write_image(tmp_path / "x.png")
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        ImageFolder().load(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_the_folder_layout_is_not_mistaken_for_classes(tmp_path, write_image, write_mask):
    write_image(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="use folder:"):
        ImageFolder().load(str(tmp_path))
