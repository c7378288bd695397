from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lesionforge.core.context import Context
from lesionforge.plugins.captions.config import PREFIX, DescriptionConfig
from lesionforge.plugins.captions.exporting import export_captions
from lesionforge.plugins.captions.reviewed import read_captions
from lesionforge.plugins.stable_diffusion.captioning import Captioner
from lesionforge.testing import disc_dataset

CONTEXT = Context(torch.device("cpu"), "fp32", "trainer")


@pytest.fixture
def mixed():
    """Six discs, the third without its mask."""
    data = disc_dataset(6, 64)
    records = [replace(record, mask=None if row == 2 else record.mask) for row, record in enumerate(data.records)]
    return replace(data, records=tuple(records))


def test_a_case_without_a_mask_changes_nothing_for_its_neighbours(mixed, tmp_path):
    captioner = Captioner("derm-prompt", CONTEXT)
    alone = [captioner.captions(mixed.take([row]))[0] for row in range(len(mixed))]
    assert captioner.captions(mixed) == alone
    bare = replace(mixed, records=tuple(replace(record, mask=None) for record in mixed.records))
    unseen = captioner.captions(bare)
    assert [row for row in range(6) if alone[row] == unseen[row]] == [2]
    export_captions(mixed, DescriptionConfig(), 64, tmp_path)
    exported = read_captions(tmp_path / "captions.jsonl")
    assert [f"{PREFIX} {exported[image_id]}" for image_id in mixed.ids] == alone


def test_a_row_without_a_mask_is_filled_with_an_empty_one(mixed):
    batch = mixed.fetch([1, 2], masks="filled")
    assert torch.equal(batch.masks[0], disc_dataset(6, 64).fetch([1]).masks[0])
    assert batch.masks.shape == (2, 1, 64, 64) and not batch.masks[1].any()
    assert mixed.fetch([1, 2]).masks is None
