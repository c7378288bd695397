from __future__ import annotations

import pytest

from lesionforge.core.errors import ConfigError, DataError
from lesionforge.plugins.data import isic

SOURCES = isic.register_plugins()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_each_source_says_what_is_wrong_with_a_location(source, tmp_path, write_image):
    with pytest.raises(DataError, match=f"needs a folder: {source.name}:PATH"):
        source().load(None)
    with pytest.raises(DataError, match="does not exist"):
        source().load(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="official layout"):
        source().load(str(tmp_path))
    file = write_image(tmp_path / "image.png")
    with pytest.raises(DataError, match="is not a folder"):
        source().load(str(file))


def test_corrupt_and_ill_sized_files_are_named_when_decoded(task1, write_mask, load):
    image = task1 / "ISIC2018_Task1-2_Training_Input" / "ISIC_0000001.jpg"
    image.write_bytes(image.read_bytes()[:200])
    write_mask(task1 / "ISIC2018_Task1_Validation_GroundTruth" / "ISIC_0000002_segmentation.png", size=(12, 9))
    dataset = load(isic.Isic2018, task1)
    with pytest.raises(DataError, match=r"ISIC_0000001\.jpg cannot be decoded"):
        dataset.fetch([0])
    with pytest.raises(DataError, match=r"ISIC_0000002_segmentation\.png has 12x9 pixels but its image 12x8"):
        dataset.fetch([1])


LABELS = "image_id,melanoma,seborrheic_keratosis\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ISIC-2017_Training_Part3_GroundTruth.csv", f"{LABELS}ISIC_0000001,1,1\n", "labelled both melanoma and"),
        ("ISIC-2017_Training_Part3_GroundTruth.csv", f"{LABELS}ISIC_0000001,yes,0\n", "expected 0 or 1, found 'yes'"),
        ("ISIC-2017_Training_Part3_GroundTruth.csv", f"{LABELS}ISIC_0000001,nan,0\n", "expected 0 or 1, found 'nan'"),
        ("ISIC-2017_Training_Part3_GroundTruth.csv", "image_id,melanoma\nISIC_0000001,0\n", "lacks column"),
        ("ISIC-2017_Training_Part3_GroundTruth.csv", f"{LABELS}ISIC_0000001,1\n", "line 2: 2 cells where 3 columns"),
        ("ISIC2018_Task3_Training_GroundTruth.csv", "image,MEL,NV\nISIC_1,0,1\nISIC_1,0,1\n", "'ISIC_1' appears twice"),
        ("splits.csv", "image_id,split\nISIC_0000001,training-ish\n", "split 'training-ish' is not train, val or test"),
        ("splits.csv", "image_id,split\nISIC_9,train\n", "fits no image: its ids are like 'ISIC_9'"),
        ("splits.csv", "split,name\ntrain,ISIC_0000001\n", "no column of image ids"),
        ("splits.csv", "", "is empty"),
        ("splits.csv", 'image_id,split\n"ISIC_0000001,train\n', "malformed CSV"),
        ("splits.csv", b"image_id,split\n\xff\xfe,train\n", "not UTF-8"),
        ("captions.json", '{"ISIC_0000001": ', "malformed JSON"),
        ("captions.json", '{"ISIC_0000001": 3}', "no text but 3"),
        ("captions.json", '["brown"]', "captions must be"),
        ("captions.json", '{"other": "brown"}', "fits no image"),
    ],
)
def test_malformed_tables_are_refused_in_one_line(task1, name, content, message, load):
    (task1 / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        load(isic.Isic2018, task1)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_contradictions_between_files_are_refused(task1, write_image, load):
    for split in ("Training", "Test"):
        value = "1,0" if split == "Test" else "0,1"
        (task1 / f"ISIC-2017_{split}_Part3_GroundTruth.csv").write_text(f"{LABELS}ISIC_0000001,{value}\n")
    with pytest.raises(DataError, match=r"'ISIC_0000001' is seborrheic_keratosis, but melanoma|is melanoma, but"):
        load(isic.Isic2018, task1)
    write_image(task1 / "ISIC2018_Task1-2_Test_Input" / "ISIC_0000001.jpg", size=(20, 20))
    with pytest.raises(DataError, match=r"is both in .*_Input and in .*_Input; keep"):
        load(isic.Isic2018, task1)
    write_image(task1 / "ISIC2018_Task1-2_Test_Input" / "ISIC_0000001.png")
    with pytest.raises(DataError, match="both belong to image id 'ISIC_0000001'"):
        load(isic.Isic2018, task1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0.5, 0.2, 0.2]}, "add up to 1"),
        ({"fractions": [1.2, -0.4, 0.2]}, "must be positive"),
        ({"fractions": [0.5, 0.5]}, "fractions"),
        ({"fractions": [0.8, 0.1, 0.1], "split_file": "s.csv"}, "either fractions or split_file"),
        ({"split_seed": -1}, "split_seed"),
        ({"task": 2}, "task"),
        ({"masks": True}, "unknown key 'masks'; allowed are split_file, captions, fractions, split_seed, task"),
    ],
)
def test_options_are_checked(task1, options, message, load):
    with pytest.raises(ConfigError, match=message):
        load(isic.Isic2018, task1, **options)
