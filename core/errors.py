"""Everything that can go wrong and that a user can mend, each worded as one line: what, where, what would be right."""

from __future__ import annotations


class LesionforgeError(Exception):
    """Base of all errors that the command line prints as one line instead of a traceback.

    Line breaks and control characters of the message, which may quote hostile file names, are shown escaped.
    """

    exit_code = 2

    def __str__(self) -> str:
        signs = (sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in super().__str__())
        return "".join(signs)


class ConfigError(LesionforgeError):
    """A recipe, chain expression or option is not valid."""


class DataError(LesionforgeError):
    """A dataset, image, mask, label or caption cannot be used."""


class CheckpointError(LesionforgeError):
    """A checkpoint is missing, damaged or of another kind than the plugin expects."""


class StoreError(LesionforgeError):
    """A run folder cannot be created, continued or trusted."""


class PluginError(LesionforgeError):
    """A plugin is unknown, broken, duplicated or breaks the contract of its role."""


class PluginFailure(LesionforgeError):
    """A plugin raised in the middle of its work; the run stays resumable."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
