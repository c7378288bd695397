"""The fence around plugins: whatever they raise becomes one line that says what failed."""

from __future__ import annotations

from typing import Any

from .errors import LesionforgeError, PluginFailure, first_line


class guarded:
    """Turn whatever a plugin raises into a :class:`PluginFailure` that says what failed; our own errors pass."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, LesionforgeError) or not isinstance(error, Exception):
            return
        raise PluginFailure(f"{self._what}: {type(error).__name__}: {first_line(error)}") from error
