from __future__ import annotations

import json

import numpy as np
import pytest

from lesionforge.core.errors import DataError
from lesionforge.plugins.data.folders import Folder
from lesionforge.plugins.data.options import DataOptions

HOSTILE = (
    "лезия №1",
    "皮膚 病変",
    "a'b\"c; rm -rf $(HOME) `id` & | <b>",
    "--flag",
    "semi;colon,comma",
    "line\nbreak",
    "dots..",
    "100%",
    "emoji 🧴",
)


@pytest.fixture
def mine(tmp_path, write_image, write_mask):
    """Four images, three with masks, two of one lesion, as a user would lay them out."""
    for name in ("a.png", "b.JPG", "c.tif", "d.webp"):
        write_image(tmp_path / "mine" / "images" / name)
    for name in ("a", "b", "c"):
        write_mask(tmp_path / "mine" / "masks" / f"{name}.png")
    root = tmp_path / "mine"
    (root / "labels.csv").write_text(
        "image_id,label,group,split,site\na,nevus,L1,train,back\nb.JPG,melanoma,L1,train,\nc,,,val,\nzzz,nevus,,,\n"
    )
    (root / "captions.json").write_text(json.dumps([{"file_name": "d.webp", "caption": "brown"}]))
    return root


def test_everything_optional_is_read(mine):
    dataset = Folder().load(str(mine))
    assert dataset.name == "mine" and dataset.ids == ("a", "b", "c", "d") and not dataset.phantom
    assert [record.label for record in dataset.records] == ["nevus", "melanoma", None, None]
    assert [record.split for record in dataset.records] == ["train", "train", "val", None]
    assert [record.lesion for record in dataset.records] == ["L1", "L1", "c", "d"]
    assert [record.mask is not None for record in dataset.records] == [True, True, True, False]
    assert dataset.records[3].caption == "brown" and dataset.records[0].metadata == {"site": "back"}
    batch = dataset.resized(8).fetch([0, 1, 2], masks=True)
    assert batch.images.shape == (3, 3, 8, 8) and set(np.unique(batch.masks)) == {0.0, 1.0}


def test_images_alone_get_a_split_that_does_not_depend_on_the_file_system(tmp_path, write_image):
    for number in range(20):
        write_image(tmp_path / "images" / f"{number}.png")
    dataset = Folder().load(str(tmp_path))
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [14, 2, 4]
    other = Folder(DataOptions(split_seed=1)).load(str(tmp_path))
    assert [record.split for record in dataset.records] != [record.split for record in other.records]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(tmp_path, write_image, write_mask, name):
    root = tmp_path / name
    write_image(root / "images" / f"{name}.png")
    write_mask(root / "masks" / f"{name}.png")
    (root / "captions.json").write_text(json.dumps({name: "caption"}), encoding="utf-8")
    dataset = Folder().load(str(root))
    assert dataset.ids == (name,) and dataset.records[0].caption == "caption"
    assert dataset.fetch([0]).masks.sum() == 12
    (root / "images" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        Folder().load(str(root)).fetch([0])
    assert str(caught.value).isprintable()


def test_a_name_that_is_not_unicode_is_refused(tmp_path, write_image):
    write_image(tmp_path / "images" / "ok.png")
    try:
        write_image(tmp_path / "images" / b"\xff.png".decode("utf-8", "surrogateescape"))
    except OSError:
        pytest.skip("this file system has Unicode names only")
    with pytest.raises(DataError, match="not valid UTF-8; rename"):
        Folder().load(str(tmp_path))


def test_a_folder_of_phantoms_stays_marked(mine):
    (mine / "PHANTOM.txt").write_text("procedural")
    assert Folder().load(str(mine)).phantom


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: (root / "images").rename(root / "pictures"), "has no images/"),
        (lambda root: [path.unlink() for path in (root / "images").iterdir()], "holds no image files"),
        (lambda root: [path.rename(path.with_stem(path.stem + "_m")) for path in (root / "masks").iterdir()], "'a_m'"),
        (lambda root: (root / "labels.csv").write_text("image_id,label\nA,nevus\n"), "ids are like 'A'"),
        (lambda root: (root / "labels.csv").write_text("image_id,label,label\na,x,y\n"), "repeats column 'label'"),
        (lambda root: (root / "labels.csv").write_text("image_id,split\na,holdout\n"), "'holdout' is not train"),
        (lambda root: (root / "labels.csv").write_text("image_id,label\n,nevus\n"), "line 2: image id '' is empty"),
        (lambda root: (root / "images" / "a.jpg").write_bytes(b""), "a.jpg and a.png both belong to image id 'a'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(mine, make, message):
    make(mine)
    with pytest.raises(DataError, match=message) as caught:
        Folder().load(str(mine))
    assert str(mine) in str(caught.value)
