"""Asks a model behind an OpenAI-compatible chat endpoint, patiently and not too often; standard library only.

Source: OpenAI API reference, "Create chat completion"; served alike by vLLM, llama.cpp, Ollama and others.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from ...core.errors import ConfigError, PluginError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP states that may pass by themselves."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LONGEST_ANSWER = 1 << 16
"""Bytes of an answer that are read at most."""
LONGEST_QUOTE = 200


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected request would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Passing(Exception):
    """A failure that may pass, and for how long the server asks to wait."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Pace:
    """Lets at most ``per_minute`` requests begin in a minute, evenly spaced, whichever thread asks."""

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap, self._clock, self._sleep = 60 / per_minute, clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may begin."""
        with self._lock:
            now = self._clock()
            begin = max(self._next, now)
            self._next = begin + self._gap
        if begin > now:
            self._sleep(begin - now)


@dataclass(frozen=True)
class ChatEndpoint:
    """A model at an address.

    Attributes:
        url: base address, to which ``/chat/completions`` is added.
        model: name of the model there.
        key_variable: environment variable that holds the key, None where none is needed.
        timeout_s: seconds without a sign of life after which a request has failed.
        retries: further attempts after a failure that may pass.
        pace: keeps to the rate limit.
        sleep: waits between attempts.
    """

    url: str
    model: str
    key_variable: str | None
    timeout_s: float
    retries: int
    pace: Pace
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False)

    def ask(self, content: str | Sequence[Mapping[str, Any]]) -> str:
        """Return the model's answer to one user message: text, or parts of text and images.

        Raises:
            ConfigError: the key's variable is not set.
            PluginError: the endpoint refuses, or all attempts failed.
        """
        body = json.dumps({"model": self.model, "messages": [{"role": "user", "content": content}]}).encode()
        key = self._key()
        attempt = 0
        while True:
            self.pace.wait()
            try:
                return self._attempt(body, key)
            except _Passing as failure:
                attempt += 1
                if attempt > self.retries:
                    raise PluginError(
                        f"endpoint {self.url} failed {attempt} times, the last time with: {failure}; "
                        "what it answered before is kept, so go on when it is back"
                    ) from None
                pause = failure.pause_s if failure.pause_s is not None else FIRST_PAUSE_S * 2 ** (attempt - 1)
                self.sleep(min(pause, LONGEST_PAUSE_S))

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ConfigError(f"environment variable {self.key_variable} holds no key for {self.url}; set it")
        return key

    def _attempt(self, body: bytes, key: str | None) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data=body, headers=headers)
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=self.timeout_s) as response:
                return _answer(response.read(LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                reason = _quoted(_read_some(error), key)
                state = f"HTTP {error.code} {reason}".strip()
                if error.code in PASSING:
                    raise _Passing(state, _asked_pause(error.headers.get("Retry-After"))) from None
            raise PluginError(f"endpoint {self.url} refuses the request for model {self.model!r}: {state}") from None
        except (TimeoutError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise _Passing(_quoted(f"{type(reason).__name__}: {reason}", key)) from None


def _answer(content: bytes) -> str:
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise _Passing(f"an answer that is no chat completion: {content[:LONGEST_QUOTE].decode(errors='replace')!r}")
    return text.strip()


def _read_some(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(LONGEST_QUOTE).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _quoted(text: str, key: str | None) -> str:
    """Return the beginning of ``text`` on one line, without the key, which some servers repeat."""
    text = " ".join(text.split())
    return (text.replace(key, "***") if key else text)[:LONGEST_QUOTE]


def _asked_pause(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, in either of its two forms (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
