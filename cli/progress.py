"""Shows how far a run is: live bars on a terminal, an occasional line elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.hookspecs import hookimpl
from .output import console, duration, number, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LINE_EVERY = 30.0
SHOWN_METRICS = 3
CASES, STAGE, JOB, TRIALS, TRIAL = "cases", "stage", "job", "trials", "trial"


class Display(Protocol):
    """Where progress is drawn: rows that come and go, and lines that stay."""

    def show(self, row: str, title: str, done: int, total: int | None, note: str) -> None:
        """Draw or redraw a row; without a total only its title."""

    def put_above(self, draw: Callable[[int], RenderableType]) -> None:
        """Draw anew with each picture, above the rows, what ``draw`` makes for a number of lines; a log does not."""

    def drop(self, row: str) -> None:
        """Remove a row."""

    def leave(self, row: str, title: str, seconds: float, note: str) -> None:
        """Replace a row by a line that stays."""


class Progress:
    """Observer of a run's lifecycle hooks; a display decides what it looks like."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._job = ""
        self._began = time.monotonic()
        self._output: Path | None = None
        self._count = self._done = self._kept = self._batches = 0
        self._trial: str | None = None
        self._trial_began = self._began

    @hookimpl
    def trial_started(self, number: int, trials: int, values: Mapping[str, Any]) -> None:
        self._trial, self._trial_began = in_words(values), time.monotonic()
        self._display.show(TRIALS, "trials", number, trials, self._trial)

    @hookimpl
    def trial_done(self, number: int, trials: int, value: float | None, reason: str | None, best: bool) -> None:
        found = f"failed: {reason}" if value is None else f"{_shown(value)}{', the best so far' if best else ''}"
        self._display.drop(STAGE)
        seconds = time.monotonic() - self._trial_began
        self._display.leave(TRIAL, f"trial {number}", seconds, f"{found}; {self._trial}")
        self._display.show(TRIALS, "trials", number + 1, trials, "")
        self._trial = None

    @hookimpl
    def job_started(self, name: str, trainer: str, output: Path) -> None:
        self._job, self._began = name, time.monotonic()
        self._display.drop(STAGE)
        self._display.show(JOB, name, 0, None, f"training {trainer}")

    @hookimpl
    def job_done(self, name: str, metrics: Mapping[str, float]) -> None:
        self._display.leave(JOB, f"trained {name}", time.monotonic() - self._began, in_words(metrics))
        self._job = ""

    @hookimpl
    def run_started(self, output: Path | None, count: int, stages: tuple[str, ...]) -> None:
        self._output, self._began = output, time.monotonic()
        self._count, self._done, self._kept, self._batches = count, 0, 0, 0
        self._display.drop(STAGE)
        self._display.show(CASES, self._cases_title, 0, count, "")

    @hookimpl
    def stage_started(self, stage: str, cases: int) -> None:
        if self._count:
            self._display.show(STAGE, f"  {stage}", 0, None, "")

    @hookimpl
    def stage_progress(self, stage: str, done: int, total: int, metrics: Mapping[str, Any]) -> None:
        if stage == self._job:
            self._display.show(JOB, stage, done, total, in_words(metrics))
        else:
            self._display.show(STAGE, f"  {stage}", done, total, in_words(metrics))

    @hookimpl
    def batch_done(self, cases: int, kept: int) -> None:
        self._batches += 1
        self._advance(cases, kept)

    @hookimpl
    def shard_done(self, first: int, cases: int) -> None:
        # Batches of worker processes are not heard of here, so their shards are counted as they appear on disk.
        if not self._batches and self._output is not None:
            self._advance(cases, kept_cases(self._output, first))

    @hookimpl
    def run_done(self, output: Path | None) -> None:
        self._display.drop(STAGE)
        if self._trial is not None:
            self._display.drop(CASES)
        elif self._count:
            self._display.leave(CASES, f"made {self._done:,} cases", time.monotonic() - self._began, self._verdicts())
        self._count = 0

    def _advance(self, cases: int, kept: int) -> None:
        self._done += cases
        self._kept += kept
        self._display.show(CASES, self._cases_title, self._done, self._count, self._verdicts())

    @property
    def _cases_title(self) -> str:
        return "cases" if self._trial is None else "  cases"

    def _verdicts(self) -> str:
        return f"{self._kept:,} kept, {self._done - self._kept:,} rejected"


def kept_cases(output: Path, first: int) -> int:
    """Return how many cases of a committed shard were kept."""
    from ..core.store import RunStore, read_ledger

    return sum(row["verdict"]["kept"] for row in read_ledger(RunStore(output).shard(first)))


def in_words(metrics: Mapping[str, Any]) -> str:
    """Return the first few metrics on one line."""
    return ", ".join(f"{name} {number(value)}" for name, value in list(metrics.items())[:SHOWN_METRICS])


def _shown(value: float) -> str:
    return number(value)  # hooks name their arguments, and one of them is called number


def pace(per_second: float) -> str:
    """Return a rate for people: ``12.4/s``, or ``3.2 s each`` where it is slow."""
    if per_second >= 1:
        return f"{per_second:,.{1 if per_second < 100 else 0}f}/s"
    return f"{1 / per_second:,.1f} s each"


@dataclass
class _LineRow:
    began: float
    first: int
    total: int | None
    done: int
    printed: float = 0.0

    def in_another_phase(self, done: int, total: int | None) -> bool:
        return total != self.total or done < self.done


class LineDisplay:
    """Progress for logs: a line when something begins, one now and then, one when it is done."""

    def __init__(self, target: Console, *, every: float = LINE_EVERY) -> None:
        self._console = target
        self._every = every
        self._rows: dict[str, _LineRow] = {}

    def show(self, row: str, title: str, done: int, total: int | None, note: str) -> None:
        if title.startswith(" "):
            return
        now = time.monotonic()
        known = self._rows.get(row)
        if known is None or known.in_another_phase(done, total):
            # A new phase must not inherit the pace of the one before.
            known = self._rows[row] = _LineRow(now, done, total, done)
        known.done = done
        if known.printed and now - known.printed < self._every:
            return
        known.printed = now
        if total is None:
            self._print(title, note)
            return
        facts = [f"{done:,} of {total:,}"]
        speed = (done - known.first) / max(now - known.began, 1e-9)
        if speed and done < total:
            facts += [pace(speed), f"{duration((total - done) / speed)} left"]
        self._print(title, *facts, note)

    def put_above(self, draw: Callable[[int], RenderableType]) -> None:
        pass

    def drop(self, row: str) -> None:
        self._rows.pop(row, None)

    def leave(self, row: str, title: str, seconds: float, note: str) -> None:
        self.drop(row)
        self._print(f"{title} in {duration(seconds)}", note)

    def _print(self, title: str, *facts: str) -> None:
        told = ", ".join(fact for fact in facts if fact)
        self._console.print(printable(f"{title}: {told}" if told else title), soft_wrap=True)


@contextmanager
def following(*, quiet: bool, observer: Callable[[Display], Progress] = Progress) -> Iterator[list[Progress]]:
    """Yield the observers that show progress; what the block prints goes to standard error meanwhile.

    Args:
        observer: makes what draws on a display; by default for runs.
    """
    target = console(stderr=True)
    with redirect_stdout(sys.stderr):
        if quiet:
            yield []
        elif target.is_terminal and not target.is_dumb_terminal:
            from .bars import LiveDisplay

            with LiveDisplay(target) as display:
                yield [observer(display)]
        else:
            yield [observer(LineDisplay(target))]


def tell(observers: Sequence[Progress], stage: str, done: int, total: int) -> None:
    """Tell ``observers`` how far ``stage`` is."""
    for observer in observers:
        observer.stage_progress(stage=stage, done=done, total=total, metrics={})
