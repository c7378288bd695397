"""Everything that can go wrong and that a user can mend, each worded as one line: what, where, what would be right."""

from __future__ import annotations


class LesionforgeError(Exception):
    """Base of all errors that the command line prints as one line instead of a traceback."""

    exit_code = 2


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
