"""real-masks: conditions drawn from the real training split, kept in the run."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

import lesionforge as lf
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import PluginError
from lesionforge.plugins.data.real_masks import symmetric
from lesionforge.testing import assert_contract, disc_dataset


def dataset(*masks: np.ndarray) -> Dataset:
    image = np.zeros((16, 16, 3), np.uint8)
    return Dataset("made", tuple(Record(f"{row}", image, mask) for row, mask in enumerate(masks)))


def quarter() -> np.ndarray:
    """A shape that differs under every symmetry of the square."""
    mask = np.zeros((16, 16), np.uint8)
    mask[2:5, 1:12] = 1
    mask[5:9, 1:3] = 1
    return mask


def opened(data: Dataset, settings: str = "size=16"):
    return lf.Chain.parse(f"real-masks({settings})").open(data=data, device="cpu", precision="fp32")[0]


def test_the_contract_holds():
    assert_contract("real-masks(size=32, symmetries=true)", data=disc_dataset())


def test_every_mask_comes_from_the_data_and_all_of_them_come():
    masks = [np.roll(quarter(), shift, axis=0) for shift in range(5)]
    made = opened(dataset(*masks))(lf.Batch.blank(200)).masks
    stored = torch.from_numpy(np.stack(masks)).float()[:, None]
    same = (made[:, None] == stored[None]).flatten(2).all(-1)
    assert same.any(1).all()
    counts = same.sum(0)
    assert counts.min() > 20  # 40 expected; below 20 has a probability of 1e-4


def test_symmetries_are_the_squares_eight():
    made = opened(dataset(quarter()), "size=16, symmetries=true")(lf.Batch.blank(100)).masks
    assert len({mask.numpy().tobytes() for mask in made}) == 8
    assert {symmetric(quarter(), number).tobytes() for number in range(8)} == {
        mask[0].to(torch.uint8).numpy().tobytes() for mask in made
    }


def test_provenance_names_the_condition_by_its_hash():
    batch = opened(dataset(quarter()))(lf.Batch.blank(1))
    assert batch.provenance[0]["condition_sha256"] == hashlib.sha256(quarter().tobytes()).hexdigest()


def test_empty_masks_are_left_out():
    made = opened(dataset(np.zeros((16, 16), np.uint8), quarter()))(lf.Batch.blank(20)).masks
    assert made.flatten(1).any(1).all()


def test_only_empty_masks_are_an_error():
    with pytest.raises(PluginError, match="every mask of made is empty"):
        opened(dataset(np.zeros((16, 16), np.uint8)))


def test_only_the_training_split_is_drawn_from():
    data = lf.load_dataset("phantom(count=40, size=32)")
    train = {data.mask(row).tobytes() for row, record in enumerate(data.records) if record.split == "train"}
    made = opened(data, "size=32")(lf.Batch.blank(64)).masks
    assert {mask[0].to(torch.uint8).numpy().tobytes() for mask in made} <= train


def test_a_case_is_made_again_without_the_data(tmp_path):
    chain = lf.Chain.parse("real-masks(size=32) | phantom(size=32)")
    run = chain.run(count=4, output=tmp_path / "run", data=disc_dataset(), device="cpu", report=False)
    assert run.regenerate("case-00000002").identical
