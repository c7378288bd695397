"""The hooks of lesionforge: one to register plugins, the rest to follow a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from .guarding import guarded

if TYPE_CHECKING:
    from .batch import Batch, Rejection
    from .context import Context
    from .explaining import Explainer
    from .roles import Plugin

PROJECT = "lesionforge"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegistrationHooks:
    """Implemented at the foot of a module that an entry point of the group ``lesionforge`` names."""

    @hookspec
    def register_plugins(self) -> Iterable[type[Plugin]]:  # type: ignore[empty-body]
        """Return the plugin classes of this module; each one's base class is its role."""

    @hookspec
    def kernel_diagnostics(self, measure: bool) -> Iterable[Mapping[str, Any]]:  # type: ignore[empty-body]
        """Return one row for each op and backend: ``op``, ``backend``, ``available``, ``reason``, ``reservation``.

        The reason tells why it is not available, the reservation why automatic choice passes over it; both may be None.
        With ``measure`` also ``max_error``, the largest error against the reference on this machine.
        """

    @hookspec
    def kernel_timings(self, progress: Callable[[int, int], None]) -> Iterable[Mapping[str, Any]]:  # type: ignore
        """Time every op's backends against both baselines on this machine; return one row for each contender.

        A row has ``op``, ``shape``, ``device``, ``threads``, ``contender``, ``does``, ``automatic``, ``seconds`` (the
        median), ``vs_reference_method`` and ``vs_best_torch`` (how many times faster, None for those baselines).
        ``progress`` is called with (done, total).
        """

    @hookspec(firstresult=True)
    def open_explainer(self, checkpoint: Path, context: Context) -> Explainer | None:
        """Return what explains the classifier in the folder ``checkpoint``, None where it is no checkpoint of yours.

        Raises:
            CheckpointError: it is yours, but damaged.
            PluginError: a package that explaining needs is not installed.
        """


class LifecycleHooks:
    """Implemented by progress bars, trackers and users' own observers; called in the process that computes."""

    @hookspec
    def run_started(self, output: Path | None, count: int, stages: tuple[str, ...]) -> None:
        """A chain begins: ``count`` cases are still to be made by ``stages``."""

    @hookspec
    def stage_started(self, stage: str, cases: int) -> None:
        """A stage takes a batch of ``cases``."""

    @hookspec
    def stage_done(self, stage: str, batch: Batch, seconds: float) -> None:
        """A stage has returned ``batch``."""

    @hookspec
    def stage_progress(self, stage: str, done: int, total: int, metrics: Mapping[str, Any]) -> None:
        """A stage or training job reports its own steps."""

    @hookspec
    def case_rejected(self, case_id: str, rejection: Rejection) -> None:
        """A filter has rejected a case."""

    @hookspec
    def batch_done(self, cases: int, kept: int) -> None:
        """A batch has passed all stages."""

    @hookspec
    def shard_done(self, first: int, cases: int) -> None:
        """A shard is committed to disk."""

    @hookspec
    def run_done(self, output: Path | None) -> None:
        """All shards are committed."""

    @hookspec
    def grid_started(self, output: Path, cells: Sequence[tuple[str, str]]) -> None:
        """A study begins with its trainings: name and label of each; ``output/cells/NAME/metrics.json`` ends one."""

    @hookspec
    def job_started(self, name: str, trainer: str, output: Path) -> None:
        """A training job begins."""

    @hookspec
    def job_done(self, name: str, metrics: Mapping[str, float | None]) -> None:
        """A training job has finished and been evaluated; a metric that is not finite is None."""

    @hookspec
    def trial_started(self, number: int, trials: int, values: Mapping[str, Any]) -> None:
        """Trial ``number`` of a search, the first one being 0, begins with ``values``; there will be ``trials``."""

    @hookspec
    def trial_done(self, number: int, trials: int, value: float | None, reason: str | None, best: bool) -> None:
        """A trial has been measured, or failed for a ``reason``; ``best``: none before it was better."""


class Observers:
    """The lifecycle hooks of all observers; whatever one raises becomes a PluginFailure that names the hook."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._relay = manager.hook

    def __getattr__(self, name: str) -> Callable[..., None]:
        hook = getattr(self._relay, name)

        def call(**arguments: Any) -> None:
            with guarded(f"an observer failed in {name}"):
                hook(**arguments)

        return call
