from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lesionforge.core.batch import Batch
from lesionforge.core.chain import Chain
from lesionforge.core.context import Context
from lesionforge.core.errors import ConfigError, PluginError, StoreError
from lesionforge.plugins.captions.answers import AnswerCache
from lesionforge.plugins.captions.chat import ChatEndpoint, Pace
from lesionforge.plugins.captions.config import PREFIX
from lesionforge.plugins.captions.plugin import DermPrompt, DermPromptSampler
from lesionforge.testing import disc_dataset

KEY = "sk-very-secret-0123"
Reply = tuple[int, dict[str, str], bytes]


def completion(text: Any) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Model:
    """A local server; ``replies`` are given in turn, then ``always``. Keeps the requests that it got."""

    def __init__(self) -> None:
        self.replies: list[Reply | float] = []
        self.always: Callable[[dict[str, Any]], Reply] = lambda body: completion("A lesion, seen by a model.")
        self.requests: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.at_once = self.most_at_once = 0
        lock, model = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    model.requests.append((body, dict(self.headers)))
                    model.at_once += 1
                    model.most_at_once = max(model.most_at_once, model.at_once)
                    reply = model.replies.pop(0) if model.replies else None
                try:
                    reply = model.always(body) if reply is None else reply
                    if isinstance(reply, float):
                        time.sleep(reply)
                        return
                    state, headers, content = reply
                    self.send_response(state)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                finally:
                    with lock:
                        model.at_once -= 1

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    thread = threading.Thread(target=model.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield model
    model.server.shutdown()
    model.server.server_close()
    thread.join()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def endpoint(model, pauses, monkeypatch) -> Callable[..., ChatEndpoint]:
    monkeypatch.setenv("CAPTION_KEY", KEY)

    def make(**changed: Any) -> ChatEndpoint:
        values = {"url": model.url, "model": "eye", "key_variable": "CAPTION_KEY", "timeout_s": 5.0, "retries": 3}
        return ChatEndpoint(**{**values, "pace": Pace(1e6), "sleep": pauses.append, **changed})

    return make


def test_a_question_is_answered(model, endpoint):
    assert endpoint().ask("What is this?") == "A lesion, seen by a model."
    [(body, headers)] = model.requests
    assert body == {"model": "eye", "messages": [{"role": "user", "content": "What is this?"}]}
    assert headers["Authorization"] == f"Bearer {KEY}"


def test_no_key_is_sent_where_none_is_named(model, endpoint):
    endpoint(key_variable=None).ask("?")
    assert "Authorization" not in model.requests[0][1]


@pytest.mark.parametrize(
    "failure",
    [
        (429, {}, b"slow down"),
        (500, {}, b"oops"),
        (503, {}, b""),
        (200, {}, b"<html>not json"),
        (200, {}, b'{"choices": []}'),
        completion(None),
        completion("   "),
        (200, {}, b"[" * 100_000),
    ],
    ids=["429", "500", "503", "html", "no choices", "no text", "blank", "deep"],
)
def test_failures_that_may_pass_are_tried_again_with_growing_pauses(model, endpoint, pauses, failure):
    model.replies = [failure, failure]
    assert endpoint().ask("?") == "A lesion, seen by a model."
    assert pauses == [1, 2]
    model.replies = [failure] * 4
    with pytest.raises(PluginError, match="failed 4 times") as error:
        endpoint().ask("?")
    assert error.value.exit_code == 2 and KEY not in str(error.value)


def test_silence_is_a_failure_too(model, endpoint, pauses):
    model.replies = [0.6]
    assert endpoint(timeout_s=0.2).ask("?") == "A lesion, seen by a model."
    assert pauses == [1]


def test_retry_after_is_honoured_in_both_forms(model, endpoint, pauses):
    model.replies = [
        (429, {"Retry-After": "7"}, b""),
        (503, {"Retry-After": formatdate(time.time() + 20, usegmt=True)}, b""),
        (429, {"Retry-After": "86400"}, b""),
        (429, {"Retry-After": "soon"}, b""),
    ]
    endpoint(retries=4).ask("?")
    assert pauses[0] == 7 and 17 <= pauses[1] <= 20 and pauses[2] == 60 and pauses[3] == 8


@pytest.mark.parametrize("state", [400, 401, 403, 404, 302])
def test_refusals_are_final_and_never_show_the_key(model, endpoint, pauses, state):
    model.replies = [(state, {"Location": model.url}, f"wrong key {KEY}\x1b[31m\nfor you".encode())]
    expected = rf"refuses the request for model 'eye': HTTP {state} wrong key \*\*\*"
    with pytest.raises(PluginError, match=expected) as error:
        endpoint().ask("?")
    assert KEY not in str(error.value) and "\x1b" not in str(error.value) and "\n" not in str(error.value)
    assert pauses == [] and len(model.requests) == 1


def test_an_endpoint_that_is_down_is_one_clear_error(endpoint, pauses):
    with pytest.raises(PluginError, match=r"endpoint http://127.0.0.1:9/v1 failed 2 times.*refused"):
        endpoint(url="http://127.0.0.1:9/v1", retries=1).ask("?")


def test_a_missing_key_is_said_before_anything_is_sent(model, endpoint, monkeypatch):
    monkeypatch.delenv("CAPTION_KEY")
    with pytest.raises(ConfigError, match="environment variable CAPTION_KEY holds no key"):
        endpoint().ask("?")
    assert model.requests == []


def test_the_pace_is_kept_by_all_threads_together():
    now, waited = [0.0], []
    pace = Pace(30, clock=lambda: now[0], sleep=waited.append)
    for _ in range(3):
        pace.wait()
    assert waited == [2, 4]
    now[0] = 100.0
    pace.wait()
    assert waited == [2, 4]


def stage(model: Model, tmp_path, *, eye: str = "eye", **values: Any) -> DermPrompt:
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


def test_the_key_is_written_nowhere(model, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", KEY)
    values = f'backend="endpoint", url="{model.url}", model="eye", cache="{tmp_path / "a.jsonl"}"'
    chain = Chain.parse(f'phantom(size=32) | derm-prompt({values}, key_variable="CAPTION_KEY")')
    chain.run(count=1, output=tmp_path / "run", device="cpu", report=False)
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
