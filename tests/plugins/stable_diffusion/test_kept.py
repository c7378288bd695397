"""What a training keeps for when it is resumed: captions, and images as latents."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, DataError, StoreError
from lesionforge.plugins.stable_diffusion import kept
from lesionforge.plugins.stable_diffusion.kept import kept_captions, kept_latents
from lesionforge.testing import disc_dataset

CONTEXT = Context(torch.device("cpu"), "fp32", "trainer")


def captions(data, captioner, output, **settings):
    return kept_captions(data, captioner, CONTEXT, output, **settings)


def test_captions_are_written_once_in_the_order_of_the_images(tmp_path, monkeypatch):
    data, calls = disc_dataset(5, size=64), []
    original = kept.Captioner.captions
    monkeypatch.setattr(kept.Captioner, "captions", lambda *given, **more: calls.append(1) or original(*given, **more))
    first = captions(data, "derm-prompt", tmp_path)
    assert captions(data, "derm-prompt", tmp_path) == first and len(calls) == 1
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert rows == [{"image_id": name, "prompt": text} for name, text in zip(data.ids, first, strict=True)]
    backwards = data.take([4, 3, 2, 1, 0])
    assert captions(backwards, "derm-prompt", tmp_path) == first[::-1]


def test_captions_that_cannot_be_used_are_not_kept(tmp_path):
    def refuse(found):
        raise DataError(found[0])

    with pytest.raises(DataError):
        captions(disc_dataset(2), "", tmp_path, check=refuse)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[1]\n", '{"image_id": "other", "prompt": "a"}\n'])
def test_captions_of_other_images_or_none_are_refused(tmp_path, content):
    (tmp_path / "captions.jsonl").write_text(content)
    with pytest.raises(StoreError, match=r"captions\.jsonl does not fit the training images.*delete it"):
        captions(disc_dataset(2), "", tmp_path)


def test_latents_keep_their_bits_and_are_encoded_once(loaded_base, tmp_path, monkeypatch):
    base, data = loaded_base(2, "epsilon"), disc_dataset(3, size=32).resized(32)
    encoded = kept.posterior_latents(base, data, CONTEXT)
    first = kept_latents(base, data, CONTEXT, tmp_path)
    monkeypatch.setattr(kept, "posterior_latents", None)
    again = kept_latents(base, data, CONTEXT, tmp_path)
    for made in (first, again):
        assert torch.equal(made.means, encoded.means) and torch.equal(made.deviations, encoded.deviations)


def test_latents_that_are_damaged_or_of_other_images_are_refused(loaded_base, tmp_path):
    base, data = loaded_base(2, "epsilon"), disc_dataset(3, size=32).resized(32)
    kept_latents(base, data, CONTEXT, tmp_path)
    with pytest.raises(CheckpointError, match=r"latents\.safetensors cannot be used: it is of other images; delete it"):
        kept_latents(base, replace(data, records=data.records[:2]), CONTEXT, tmp_path)
    (tmp_path / kept.LATENTS).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"latents\.safetensors cannot be used"):
        kept_latents(base, data, CONTEXT, tmp_path)
