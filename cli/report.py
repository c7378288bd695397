"""``lesionforge report``: write the page of a run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options
from .output import complain, console, printable, write_json
from .progress import following

if TYPE_CHECKING:
    from ..core.dataset import Dataset
    from ..core.run import Run


def report(
    run: options.RunArgument,
    data: options.Data = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the report of a run, finished or not, to RUN/report/index.html."""
    from ..core.report import write_report
    from ..core.run import Run

    opened = Run(run)
    with following(quiet=quiet):
        page = write_report(opened, real=_real_data(opened, data))
    if as_json:
        write_json({"report": str(page)})
    elif not quiet:
        console().print(printable(page), soft_wrap=True)


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
