"""The command ``lesionforge``: every verb is one file beside this one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import data, demo, explain, kernels, metrics, plugins, regenerate, report, run, study, train, tune, verify
from .outcome import Verb

app = typer.Typer(
    name="lesionforge",
    help="Make image, mask and label datasets of skin lesions with diffusion models, and measure whether they help. "
    "For research only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for verb in (
    run.run,
    train.train,
    study.study,
    tune.tune,
    verify.verify,
    regenerate.regenerate,
    report.report,
    demo.demo,
    metrics.metrics,
    explain.explain,
    kernels.kernels,
):
    app.command(cls=Verb)(verb)
app.add_typer(plugins.app, name="plugins")
app.add_typer(data.app, name="data")


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from .. import __version__

        print(f"lesionforge {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="LESIONFORGE_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Options that stand before the verb; ``outcome`` reads ``debug`` when a verb has failed."""


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be valid text; printing it must not be what fails.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="lesionforge")


if __name__ == "__main__":
    main()
