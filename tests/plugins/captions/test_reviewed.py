from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from lesionforge.core.context import Context
from lesionforge.core.errors import DataError
from lesionforge.core.exporting import export_dataset
from lesionforge.plugins.captions.config import PREFIX
from lesionforge.plugins.captions.plugin import DermPrompt
from lesionforge.plugins.captions.reviewed import caption_lines, read_captions
from lesionforge.testing import disc_dataset


def test_captions_come_back_as_they_were_written(tmp_path):
    captions = {"a": 'A "red" lesion.', "ü/1": "Zwei\nZeilen — ok"}
    file = tmp_path / "captions.jsonl"
    file.write_text(caption_lines(captions.items()) + "\n", encoding="utf-8")
    assert read_captions(file) == captions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"image_id": "a", "caption": "x"}\n{"image_id": "a", "caption": "y"}', "line 2: image 'a' has a caption"),
        (b'{"image_id": "a"}', "line 1: expected"),
        (b'\n{"image_id": "a", "caption": " "}', "line 2: expected"),
        (b"[1]", "line 1: expected"),
        (b"not json", "line 1: expected"),
        (b"\xff", "are not UTF-8"),
    ],
)
def test_a_malformed_file_is_said_in_one_line(tmp_path, content, message):
    file = tmp_path / "captions.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_captions(file)
    with pytest.raises(DataError, match="No such file"):
        read_captions(tmp_path / "none.jsonl")


def test_a_dataset_s_captions_can_be_reviewed_and_used(tmp_path):
    data = disc_dataset(3)
    folder = export_dataset(data, 'captions(wording="plain")', tmp_path / "review")
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == list(data.ids)
    assert all(row["caption"].startswith("A ") and "lesion" in row["caption"] for row in rows)

    with Image.open(folder / "captions.jpg") as sheet:
        assert sheet.width == 3 * 192 and len(sheet.convert("L").getcolors()) > 10

    edited = folder / "captions.jsonl"
    edited.write_text(caption_lines([(data.ids[1], "A lesion that a dermatologist has seen.")]))
    stage = DermPrompt(DermPrompt.Config(captions=str(edited), wording="plain"))
    stage.setup(Context(torch.device("cpu"), name="derm-prompt"))
    prompts = stage.annotate(data.resized(256).fetch(range(3))).prompts
    assert prompts == (
        f"{PREFIX} {rows[0]['caption']}",
        f"{PREFIX} A lesion that a dermatologist has seen.",
        f"{PREFIX} {rows[2]['caption']}",
    )
