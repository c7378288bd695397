"""Shows how the grid of a study fills: on a terminal a row for each kind of training with a sign for each run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.hookspecs import hookimpl
from .output import printable
from .progress import JOB, STAGE, Display, Progress, in_words

if TYPE_CHECKING:
    from rich.console import RenderableType

GRID = "grid"
DONE, NOW, TO_DO = "■", "▸", "·"


class GridProgress(Progress):
    """Observer of a study's lifecycle hooks; trainings bear their labels instead of their hashes."""

    def __init__(self, display: Display) -> None:
        super().__init__(display)
        self._shown = display
        self._folder = Path()
        self._cells: dict[str, str] = {}
        self._current, self._started = "", time.monotonic()
        display.put_above(self.grid)

    @hookimpl
    def grid_started(self, output: Path, cells: Sequence[tuple[str, str]]) -> None:
        self._folder, self._cells = output / "cells", dict(cells)
        self._count_up()

    @hookimpl
    def job_started(self, name: str, trainer: str, output: Path) -> None:
        if name not in self._cells:
            super().job_started(name=name, trainer=trainer, output=output)
            return
        self._current, self._started = name, time.monotonic()
        self._shown.drop(STAGE)
        self._shown.show(JOB, self._cells[name], 0, None, f"training {trainer}")

    @hookimpl
    def stage_progress(self, stage: str, done: int, total: int, metrics: Mapping[str, Any]) -> None:
        if stage in self._cells:
            self._shown.show(JOB, self._cells[stage], done, total, in_words(metrics))
        else:
            super().stage_progress(stage=stage, done=done, total=total, metrics=metrics)

    @hookimpl
    def job_done(self, name: str, metrics: Mapping[str, float]) -> None:
        if name not in self._cells:
            super().job_done(name=name, metrics=metrics)
            return
        self._current = ""
        self._shown.leave(JOB, f"trained {self._cells[name]}", time.monotonic() - self._started, in_words(metrics))
        self._count_up()

    def _count_up(self) -> None:
        self._shown.show(GRID, "trainings", sum(map(self._finished, self._cells)), len(self._cells), "")

    def _finished(self, name: str) -> bool:
        return (self._folder / name / "metrics.json").is_file()  # another process may have finished it

    def grid(self, height: int) -> RenderableType:
        """Return the grid: a line for each kind of training, a sign for each of its runs; at most ``height`` lines."""
        from rich.text import Text

        kinds: dict[str, list[str]] = {}
        for name, label in self._cells.items():
            kinds.setdefault(label.rpartition(", seed")[0], []).append(name)
        lines = list(kinds.items())
        current = next((place for place, (_, names) in enumerate(lines) if self._current in names), 0)
        first = max(0, min(current - height // 2, len(lines) - height))
        width = max((len(kind) for kind in kinds), default=0)
        text = Text()
        for kind, names in lines[first : first + height]:
            text.append(f"{printable(kind):<{width}}  ", "dim")
            for name in names:
                sign = NOW if name == self._current else DONE if self._finished(name) else TO_DO
                text.append(sign, "cyan" if sign != TO_DO else "dim")
            text.append("\n")
        return text
