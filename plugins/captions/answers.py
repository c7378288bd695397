"""A file of all that a model has answered, so that nothing is asked twice and a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ...core.errors import DataError, StoreError


def question_key(*parts: str) -> str:
    """Return a name for a question that consists of ``parts``."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


class AnswerCache:
    """JSONL of answers by key, appended line by line and synced; several processes may append to one file.

    A line that a kill has torn is not there, and its question is asked again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._answers = _read(path)
        if path.is_file() and path.stat().st_size and not _ends_line(path):
            self._append("\n")

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str, ask: Callable[[], str], about: Mapping[str, str]) -> str:
        """Return the answer to ``key``; where there is none yet, ``ask`` for it and keep it with ``about``."""
        with self._lock:
            if key in self._answers:
                return self._answers[key]
        answer = ask()
        with self._lock:
            self._append(json.dumps({"key": key, **about, "answer": answer}, ensure_ascii=False) + "\n")
            self._answers[key] = answer
        return answer

    def _append(self, text: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(text.encode(errors="replace"))
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write answers to {self._path}: {error.strerror}") from error


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"cannot read answers {path}: {error.strerror}") from None
    answers = {}
    for line in lines:
        try:
            row = json.loads(line)
            answers[str(row["key"])] = str(row["answer"])
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return answers


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
