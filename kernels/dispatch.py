"""Choice of a backend for an op: the first that can serve, or the one asked for by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, ParamSpec

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
_log = logging.getLogger(__name__)


class BackendUnavailable(ValueError):
    """A backend asked for by name cannot serve this call; the message is its reason."""


@dataclass(frozen=True)
class Backend(Generic[P]):
    """One implementation of an op.

    `why_not(*tensors)` is None if it can serve these tensors, else the reason in words.
    Without tensors it answers for this machine in general.
    """

    name: str
    run: Callable[P, Tensor]
    why_not: Callable[..., str | None]


class Op(Generic[P]):
    """A named op and its backends, fastest first; the last one is the reference."""

    def __init__(self, name: str, *backends: Backend[P]) -> None:
        self.name = name
        self.backends = {backend.name: backend for backend in backends}
        self._announced: set[str] = set()

    def choose(self, wanted: str, *tensors: Tensor) -> Backend[P]:
        """The backend `wanted`, or for "auto" the first without objection to `tensors`.

        Raises BackendUnavailable with the reason of the wanted backend, or with every reason when none can serve.
        """
        if wanted != "auto":
            return self._named(wanted, *tensors)
        refusals: list[str] = []
        for backend in self.backends.values():
            reason = backend.why_not(*tensors)
            if reason is None:
                self._announce(backend.name, refusals)
                return backend
            refusals.append(f"{backend.name}: {reason}")
        raise BackendUnavailable(f"{self.name}: no backend can serve; {'; '.join(refusals)}")

    def diagnose(self) -> list[dict[str, str | bool | None]]:
        """One row a backend: op, backend, available on this machine, reason if not."""
        reasons = {backend.name: backend.why_not() for backend in self.backends.values()}
        return [
            {"op": self.name, "backend": name, "available": reason is None, "reason": reason}
            for name, reason in reasons.items()
        ]

    def _named(self, wanted: str, *tensors: Tensor) -> Backend[P]:
        if wanted not in self.backends:
            raise BackendUnavailable(
                f"{self.name} has no backend {wanted!r}; there are auto, {', '.join(self.backends)}"
            )
        reason = self.backends[wanted].why_not(*tensors)
        if reason is not None:
            raise BackendUnavailable(f"{self.name}: backend {wanted!r} cannot serve: {reason}")
        return self.backends[wanted]

    def _announce(self, chosen: str, refusals: list[str]) -> None:
        if chosen not in self._announced:
            self._announced.add(chosen)
            because = f" ({'; '.join(refusals)})" if refusals else ""
            _log.info("%s: backend %s%s", self.name, chosen, because)
