"""Progress on a terminal: a few quiet rows at the bottom that vanish when their work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from .output import duration, printable
from .progress import pace

IDLE = "idle"
BAR_WIDTH = 26
PACE_AFTER = 1.0
LINES_FOR_BARS, FEWEST_LINES_ABOVE = 6, 3


class _Title(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, style="dim" if task.fields["subordinate"] else "")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed):,}/{int(task.total):,}" if task.total else "", style="bold")


class _Pace(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed, since = task.elapsed or 0.0, task.completed - task.fields["first"]
        if task.fields["subordinate"] or not task.total or task.finished or elapsed < PACE_AFTER or since <= 0:
            return Text("")
        # The mean since the row began: worker processes report in bursts, of which a recent pace would make nonsense.
        left = (task.total - task.completed) * elapsed / since
        return Text(f"{pace(since / elapsed)}  {duration(left)} left", style="cyan")


class _Note(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f" {task.fields['note']}", style="dim", no_wrap=True, overflow="ellipsis")


class _Bar(BarColumn):
    def render(self, task: Task):  # type: ignore[no-untyped-def]
        return super().render(task) if task.total else Text("")


class _Rows(Bars):
    """Bars below whatever stands above them."""

    above: Callable[[int], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.above is not None:
            yield self.above(max(self.console.height - LINES_FOR_BARS, FEWEST_LINES_ABOVE))
        yield from super().get_renderables()


class LiveDisplay:
    """Rows of :class:`rich.progress.Progress` by name; without one it says that work goes on."""

    def __init__(self, console: Console) -> None:
        columns = (
            _Title(Column(min_width=16, no_wrap=True)),
            _Bar(BAR_WIDTH, style="grey30", complete_style="cyan", finished_style="cyan"),
            _Count(Column(justify="right", no_wrap=True)),
            _Pace(Column(no_wrap=True)),
            _Note(Column(no_wrap=True, ratio=1)),
        )
        self._bars = _Rows(*columns, console=console, transient=True, refresh_per_second=8, expand=True)
        self._mark = "✓" if console.encoding.startswith("utf") else "*"
        self._rows: dict[str, TaskID] = {}
        self._idle = self._bars.add_task("working", total=None, note="", subordinate=True, first=0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def put_above(self, draw: Callable[[int], RenderableType]) -> None:
        self._bars.above = draw

    def show(self, row: str, title: str, done: int, total: int | None, note: str) -> None:
        fields = {"note": printable(note), "subordinate": title.startswith(" "), "first": done}
        if row not in self._rows:
            self._rows[row] = self._bars.add_task(printable(title), total=total, completed=done, **fields)
            self._bars.update(self._idle, visible=False)
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._rows[row])]
        if done < task.completed or total != task.total or title != task.description:
            # A new phase must not inherit the pace of the one before.
            self._bars.reset(task.id, description=printable(title), **fields)
            task.total = total
        self._bars.update(task.id, completed=done, note=fields["note"])

    def drop(self, row: str) -> None:
        if row in self._rows:
            self._bars.remove_task(self._rows.pop(row))
        self._bars.update(self._idle, visible=not self._rows)

    def leave(self, row: str, title: str, seconds: float, note: str) -> None:
        self.drop(row)
        line = Text.assemble((f"{self._mark} ", "green"), f"{printable(title):<16} ", (duration(seconds), "cyan"))
        self._bars.console.print(line.append(f"  {printable(note)}" if note else "", "dim"), soft_wrap=True)
