"""How a verb ends: its exit code, and one line where something is wrong.

0 done; 1 a plugin or lesionforge itself failed; 2 the input is wrong, or ``verify`` and ``regenerate`` found a
difference; 130 interrupted; 141 the reader of standard output went away. With ``--json`` standard output holds exactly
one JSON document in every case: the result, or ``{"error": {"kind", "message", "exit_code"}}``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from .output import complain, write_json

INTERRUPTED = 130
READER_GONE = 141


class Verb(TyperCommand):
    """A command whose exceptions become an exit code and one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        root = ctx.find_root()
        with exit_codes(as_json=bool(ctx.params.get("as_json")), debug=bool(root.params.get("debug"))):
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


@contextmanager
def exit_codes(*, as_json: bool, debug: bool) -> Iterator[None]:
    """Turn every exception of the block into :class:`typer.Exit` after one line that says what is wrong."""
    from ..core.errors import LesionforgeError

    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        # Python flushes standard output once more when it ends, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(READER_GONE) from None
    except KeyboardInterrupt as error:
        _report(error, "stopped before the end", INTERRUPTED, as_json=as_json, label="interrupted")
    except LesionforgeError as error:
        _report(error, str(error), error.exit_code, as_json=as_json, trace=debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _report(error, f"{place}{error.strerror or error}", 2, as_json=as_json, trace=debug)
    except Exception as error:  # the last frontier: a bug of ours must end in a line, too
        message = f"internal error, please report it: {type(error).__name__}: {error}"
        advice = "" if debug else " (--debug before the verb shows where)"
        _report(error, message + advice, 1, as_json=as_json, trace=debug)


def _report(
    error: BaseException, message: str, code: int, *, as_json: bool, label: str = "error", trace: bool = False
) -> NoReturn:
    if trace:
        import traceback

        traceback.print_exception(error)
    message = "; ".join([message, *getattr(error, "__notes__", ())])
    if as_json:
        write_json({"error": {"kind": type(error).__name__, "message": message, "exit_code": code}})
    complain(message, label=label)
    raise typer.Exit(code) from None
