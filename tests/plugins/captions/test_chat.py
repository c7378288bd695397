from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from lesionforge.core.errors import ConfigError, PluginError
from lesionforge.plugins.captions.chat import ChatEndpoint, Pace

KEY = "sk-very-secret-0123"


def completion(text: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


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
