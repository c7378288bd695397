"""Choice of a backend for an op: the first that can serve, or the one asked for by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)


class BackendUnavailable(ValueError):
    """A backend asked for by name cannot serve this call; the message is its reason."""


def _no_reservation(*tensors: Tensor) -> str | None:
    return None


def unmeasured(*tensors: Tensor) -> str | None:
    """The reservation of a GPU backend that may be slower than plain torch, for all that anybody knows."""
    return "it has not been measured on a GPU and serves by name only"


@dataclass(frozen=True)
class Backend(Generic[P, R]):
    """One implementation of an op.

    `why_not(*tensors)` is None if it can serve these tensors, else the reason in words.
    Without tensors it answers for this machine in general. `reservation(*tensors)` is None, or the reason why automatic
    choice passes over a backend that could serve; asked for by name it serves.
    """

    name: str
    run: Callable[P, R]
    why_not: Callable[..., str | None]
    reservation: Callable[..., str | None] = _no_reservation


class Op(Generic[P, R]):
    """A named op and its backends, fastest first; the last one is the reference.

    `probe(device)` makes the arguments on which `diagnose` compares the backends.
    """

    def __init__(
        self, name: str, *backends: Backend[P, R], probe: Callable[[str], tuple[Any, ...]] | None = None
    ) -> None:
        self.name = name
        self._probe = probe
        self.backends = {backend.name: backend for backend in backends}
        self._announced: set[str] = set()

    def choose(self, wanted: str, *tensors: Tensor) -> Backend[P, R]:
        """The backend `wanted`, or for "auto" the first without objection to `tensors`.

        Raises BackendUnavailable with the reason of the wanted backend, or with every reason when none can serve.
        """
        if wanted != "auto":
            return self._named(wanted, *tensors)
        refusals: list[str] = []
        for backend in self.backends.values():
            reason = backend.why_not(*tensors) or backend.reservation(*tensors)
            if reason is None:
                self._announce(backend.name, refusals)
                return backend
            refusals.append(f"{backend.name}: {reason}")
        raise BackendUnavailable(f"{self.name}: no backend can serve; {'; '.join(refusals)}")

    def diagnose(self, *, measure: bool = False) -> list[dict[str, str | float | None]]:
        """One row a backend: op, backend, available on this machine, reason if not, reservation of automatic choice.

        With `measure` also max_error, the largest absolute difference from the reference; None for the reference
        itself, for what cannot run here and where there is no probe.
        """
        rows = []
        for name, backend in self.backends.items():
            reason, error = backend.why_not(), None
            if measure and reason is None:
                reason, error = self._measured(backend)
            row = {"op": self.name, "backend": name, "available": reason is None, "reason": reason}
            row["reservation"] = backend.reservation()
            rows.append({**row, "max_error": error} if measure else row)
        return rows

    def _measured(self, backend: Backend[P, R]) -> tuple[str | None, float | None]:
        """Why the backend fails on the probe, if it does, and its error."""
        import torch

        reference = next(reversed(self.backends.values()))
        if self._probe is None or backend is reference:
            return None, None
        # A probe's arguments are known to fit by the tests alone.
        run: Callable[..., Any] = backend.run
        run_reference: Callable[..., Any] = reference.run
        arguments = self._probe("cpu")
        if backend.why_not(*_tensors(arguments)) and torch.cuda.is_available():
            arguments = self._probe("cuda")
        reason = backend.why_not(*_tensors(arguments))
        if reason is not None:
            return reason, None
        try:
            made = _tensors(run(*arguments))
        except Exception as error:  # the one boundary of all backends; Triton's own errors are no RuntimeErrors
            return f"it fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}", None
        truth = _tensors(run_reference(*arguments))
        return None, max(float((a.double() - b.double()).abs().max()) for a, b in zip(made, truth, strict=True))

    def _named(self, wanted: str, *tensors: Tensor) -> Backend[P, R]:
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


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among arguments or results; a result may be one tensor."""
    import torch

    if isinstance(values, torch.Tensor):
        return [values]
    return [value for value in values if isinstance(value, torch.Tensor)]
