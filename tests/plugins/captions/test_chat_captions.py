from __future__ import annotations

import base64
import io
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lesionforge.core.batch import Batch
from lesionforge.core.chain import Chain
from lesionforge.core.context import Context
from lesionforge.core.errors import PluginError, StoreError
from lesionforge.plugins.captions.answers import AnswerCache
from lesionforge.plugins.captions.config import PREFIX
from lesionforge.plugins.captions.plugin import DermPrompt, DermPromptSampler
from lesionforge.testing import disc_dataset

KEY = "sk-very-secret-0123"
Reply = tuple[int, dict[str, str], bytes]


def completion(text: Any) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def stage(model: Any, tmp_path, *, eye: str = "eye", **values: Any) -> DermPrompt:
    values = {"url": model.url, "model": eye, "cache": str(tmp_path / "answers.jsonl"), **values}
    annotator = DermPrompt(DermPrompt.Config(backend="endpoint", requests_per_minute=1e6, **values))
    annotator.setup(Context(torch.device("cpu"), name="derm-prompt"))
    return annotator


def batch_of(count: int, size: int = 24) -> Batch:
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Batch.blank(count).with_columns(images=images)


def test_images_are_sent_whole_and_nothing_is_asked_twice(model, tmp_path):
    batch = batch_of(3)
    assert stage(model, tmp_path).annotate(batch).prompts == (f"{PREFIX} A lesion, seen by a model.",) * 3
    assert len(model.requests) == 3
    sent = []
    for body, _ in model.requests:
        instruction, picture = body["messages"][0]["content"]
        assert "dermoscopic" in instruction["text"]
        head, data = picture["image_url"]["url"].split(",")
        assert head == "data:image/png;base64"
        sent.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).tobytes())
    assert batch.images is not None
    assert set(sent) == {(image.permute(1, 2, 0) * 255).round().byte().numpy().tobytes() for image in batch.images}
    stage(model, tmp_path).annotate(batch.select([2, 0]))
    assert len(model.requests) == 3
    stage(model, tmp_path, eye="another").annotate(batch.select([0]))
    assert len(model.requests) == 4


def test_a_killed_run_goes_on_after_a_torn_line(model, tmp_path):
    batch, file = batch_of(3), tmp_path / "answers.jsonl"
    stage(model, tmp_path, concurrency=1).annotate(batch)
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    assert stage(model, tmp_path).annotate(batch).prompts == (f"{PREFIX} A lesion, seen by a model.",) * 3
    assert len(model.requests) == 4
    assert len(AnswerCache(file)) == 3
    stage(model, tmp_path).annotate(batch)
    assert len(model.requests) == 4


def test_an_endpoint_that_dies_leaves_a_run_that_can_go_on(model, tmp_path):
    values = f'backend="endpoint", url="{model.url}", model="eye", cache="{tmp_path / "a.jsonl"}", retries=0'
    chain = Chain.parse(f"phantom(size=32) | derm-prompt({values}, concurrency=1, requests_per_minute=1000000)")
    options: dict[str, Any] = {"count": 4, "output": tmp_path / "run", "device": "cpu", "report": False}
    options |= {"shard_size": 2, "batch_size": 2}
    model.replies = [completion("A lesion.")] * 3 + [(500, {}, b"down")]
    with pytest.raises(PluginError, match="failed 1 times") as error:
        chain.run(**options)
    assert error.value.exit_code == 2
    run = chain.run(**options, resume=True)
    answers = ["A lesion."] * 3 + ["A lesion, seen by a model."]
    assert [case.prompt for case in run.cases()] == [f"{PREFIX} {answer}" for answer in answers]
    assert len(model.requests) == 5


def test_long_answers_are_rewritten_and_what_is_still_too_long_is_cut(model, tmp_path):
    long = "A lesion, " + ", ".join(["with a pigmented network"] * 40) + "."

    def reply(body: dict[str, Any]) -> Reply:
        content = body["messages"][0]["content"]
        return completion(long if isinstance(content, list) else '"A short lesion."')

    model.always = reply
    out = stage(model, tmp_path).annotate(batch_of(1))
    assert out.prompts == (f"{PREFIX} A short lesion.",) and out.provenance == ({},)
    assert long in model.requests[1][0]["messages"][0]["content"]

    model.always = lambda body: completion(long)
    cut = stage(model, tmp_path / "other").annotate(batch_of(1))
    assert cut.provenance == ({"prompt_shortened": True},)
    [prompt] = cut.prompts
    assert prompt.startswith(f"{PREFIX} A lesion, with") and prompt.endswith("network.")


def test_as_many_requests_are_in_flight_as_are_allowed(model, tmp_path):
    meeting = threading.Barrier(2, timeout=10)

    def together(body: dict[str, Any]) -> Reply:
        meeting.wait()
        return completion("A lesion.")

    model.always = together
    stage(model, tmp_path, concurrency=2).annotate(batch_of(8))
    assert model.most_at_once == 2 and len(model.requests) == 8


TEMPLATE = "a dermoscopic lesion photo of {label} for skin cancer diagnosis,"


@pytest.mark.parametrize("begun", [True, False])
def test_icd_11_terms_are_asked_for_and_the_template_stands_once_in_front(model, tmp_path, begun):
    def reply(body: dict[str, Any]) -> Reply:
        asked = body["messages"][0]["content"][0]["text"]
        beginning = asked.partition('Begin with "')[2].partition('"')[0]
        return completion(f"{beginning.capitalize()} an asymmetric patch." if begun else "An asymmetric patch.")

    model.always = reply
    batch = batch_of(3).with_columns(labels=["nevus", "melanoma", "benign_keratosis"])
    out = stage(model, tmp_path, prefix=TEMPLATE, terms="icd-11", concurrency=1).annotate(batch)
    names = ("melanocytic naevus", "melanoma of skin", "benign keratosis")
    rest = "an asymmetric patch." if begun else "An asymmetric patch."
    assert out.prompts == tuple(f"{TEMPLATE.format(label=name)} {rest}" for name in names)
    assert out.provenance == ({"icd_11": "2F20"}, {"icd_11": "2C30"}, {})
    asked = [body["messages"][0]["content"][0]["text"] for body, _ in model.requests]
    assert all("Use the terms of ICD-11" in text and "for skin cancer diagnosis" in text for text in asked)
    assert "dermoscopic image of melanocytic naevus" in asked[0]


def test_the_key_is_written_nowhere(model, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", KEY)
    values = f'backend="endpoint", url="{model.url}", model="eye", cache="{tmp_path / "a.jsonl"}"'
    chain = Chain.parse(f'phantom(size=32) | derm-prompt({values}, key_variable="CAPTION_KEY")')
    chain.run(count=1, output=tmp_path / "run", device="cpu", batch_size=1, report=False)
    assert model.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    cache = AnswerCache(tmp_path / "answers.jsonl")
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot write answers"):
        cache.get("key", lambda: "answer", {})


def test_new_prompts_are_written_after_real_examples(model, tmp_path):
    values: dict[str, Any] = {"url": model.url, "model": "pen", "cache": str(tmp_path / "a.jsonl")}
    config = DermPromptSampler.Config(backend="endpoint", requests_per_minute=1e6, **values)
    sampler = DermPromptSampler(config)
    sampler.setup(Context(torch.device("cpu"), name="derm-prompt-sampler"))
    data = disc_dataset(6, 64)
    sampler.load_fit(sampler.fit(data))

    def reply(body: dict[str, Any]) -> Reply:
        return completion(f"A lesion after {body['messages'][0]['content'].count('a dark disc')} discs.")

    model.always = reply
    batch = Batch.blank(3).with_columns(labels=["melanoma", "nevus", None])
    first = sampler.annotate(batch).prompts
    assert first == (f"{PREFIX} A lesion after 4 discs.",) * 3
    asked = [body["messages"][0]["content"] for body, _ in model.requests]
    assert sum("class melanoma" in text for text in asked) == 1 and len(set(asked)) == 3
    of_melanoma = next(text for text in asked if "class melanoma" in text)
    captions = {record.caption for record in data.records if record.label == "melanoma"}
    listed = {line.removeprefix("- ") for line in of_melanoma.splitlines() if line.startswith("- ")}
    assert listed <= captions
    assert sampler.annotate(batch).prompts == first and len(model.requests) == 3
