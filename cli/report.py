"""``lesionforge report``: write the page of a run again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .output import complain, console, printable, write_json
from .progress import Progress, following, tell

if TYPE_CHECKING:
    from ..core.dataset import Dataset
    from ..core.run import Run


def report(
    run: options.RunArgument,
    data: options.Data = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw where the run's classifiers look on test images, and show it.")
    ] = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the report of a run, finished or not, to RUN/report/index.html."""
    from ..core.report import write_report
    from ..core.run import Run

    opened = Run(run)
    with following(quiet=quiet) as observers:
        real = _real_data(opened, data)
        if explain:
            _explain(opened, real, device, observers)
        page = write_report(opened, real=real)
    if as_json:
        write_json({"report": str(page)})
    elif not quiet:
        console().print(printable(page), soft_wrap=True)


def _explain(run: Run, real: Dataset | None, device: str, observers: list[Progress]) -> None:
    from ..core.errors import DataError
    from ..core.report.heat_maps import draw_heat_maps

    if real is None:
        raise DataError("there are no test images to explain; name the run's real data with --data")
    draw_heat_maps(run, real, device=device, progress=partial(tell, observers, "explaining"))


def _real_data(run: Run, data: str | None) -> Dataset | None:
    """Return the data that the run names, or those given instead; the page can do without the former."""
    from ..core.errors import DataError
    from ..core.loading import with_source
    from ..core.runner import real_data

    try:
        return real_data(with_source(run.recipe, data), None)
    except DataError as error:
        if data is not None:
            raise
        complain(f"the report shows no real images: {error}; name them with --data", label="note")
        return None
