"""From the words on the command line to a recipe: file, built-in name, chain, trainer or run folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from ..core.recipe import Recipe

SHIPPED = Path(__file__).resolve().parents[1] / "recipes"
BARE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
LONGEST_NAME = 60


def built_in_recipes() -> dict[str, Path]:
    """Return the recipes that come with lesionforge, by name."""
    from ..core.shipped import shipped_recipes

    return shipped_recipes(SHIPPED)


def is_run_folder(text: str | Path) -> bool:
    """True where the path is a folder that holds a run."""
    return (Path(text) / "recipe.toml").is_file()


def read_recipe(text: str) -> Recipe:
    """Return the recipe that ``text`` means: a file, a built-in recipe, or a chain expression.

    Raises:
        ConfigError: it is none of them.
    """
    from ..core.chain import Chain
    from ..core.recipe import Recipe, Synthesis
    from ..core.roles import STAGE_ROLES

    stored = stored_recipe(text)
    if stored is not None:
        return stored
    if BARE_NAME.fullmatch(text):
        _check_is_plugin(text, tuple(STAGE_ROLES))
    chain = Chain.parse(text)
    return Recipe(name="-".join(chain.keys)[:LONGEST_NAME], synthesis=Synthesis(chain))


def read_training(text: str) -> Recipe:
    """Return the recipe that ``text`` means: a file, a built-in recipe, or one trainer such as ``ddpm(steps=100)``."""
    from ..core.chain import parse_call
    from ..core.recipe import Job, Recipe

    if is_run_folder(text):
        raise ConfigError(f"{text} is a run folder; go on with it by lesionforge run {shlex.quote(text)} --resume")
    stored = stored_recipe(text)
    if stored is not None:
        return stored
    if BARE_NAME.fullmatch(text):
        _check_is_plugin(text, ("trainer",))
    name, values, location = parse_call(text)
    if location is not None:
        raise ConfigError(f"{text!r} is no trainer; give the data with --data")
    return Recipe(name=name, jobs=(Job(name, name, ("real",), values),))


def stored_recipe(text: str) -> Recipe | None:
    """Return the recipe of a file or of a built-in name, or None where ``text`` is neither."""
    from ..core.recipe import Recipe

    path = Path(text)
    if len(text) < 4096 and path.is_file():
        return Recipe.load(path)
    if text in built_in_recipes():
        return Recipe.load(built_in_recipes()[text])
    if path.suffix == ".toml" or ("/" in text and "(" not in text and "|" not in text):
        raise ConfigError(f"there is no recipe {text}; built in are {', '.join(built_in_recipes()) or 'none'}")
    return None


def _check_is_plugin(name: str, roles: tuple[str, ...]) -> None:
    """Raise a ConfigError that names all that ``name`` could have meant, where it is no plugin either."""
    from ..core.registry import default_registry

    registry = default_registry()
    try:
        registry.find(name, *roles)
    except PluginError as error:
        built_in = ", ".join(built_in_recipes()) or "none"
        raise ConfigError(f"{name!r} is neither a recipe file nor a built-in recipe ({built_in}); {error}") from None


def with_settings(recipe: Recipe, options: Mapping[str, Any], settings: Iterable[str]) -> Recipe:
    """Return the recipe with the values of options, and above them those of ``--set``.

    Args:
        options: path such as ``synthesis.count`` -> value, None where the option was not given.
        settings: ``PATH=VALUE`` texts; the last one for a path wins.
    """
    for path, value in options.items():
        if value is not None:
            recipe = _with_option(recipe, path, value)
    for setting in settings:
        path, sign, written = setting.partition("=")
        if not sign or not path.strip():
            raise ConfigError(f"--set {setting}: expected PATH=VALUE, for example synthesis.count=100")
        recipe = recipe.with_value(path.strip(), read_setting(written.strip(), path.strip()))
    return recipe


def _with_option(recipe: Recipe, path: str, value: Any) -> Recipe:
    key = path.rpartition(".")[2]
    option = "--data" if path == "data.source" else f"--{key.replace('_', '-')}"
    if path.startswith("synthesis.") and recipe.synthesis is None:
        raise ConfigError(f"{option}: recipe {recipe.name!r} has no [[stage]], so it makes no cases")
    try:
        return recipe.with_value(path, value)
    except ConfigError as error:
        raise ConfigError(f"{option}: {str(error).removeprefix(f'--set {path}: ')}") from None


def read_setting(written: str, path: str) -> Any:
    """Return a TOML value; what is none, and does not begin like one, is text."""
    from ..core.chain import read_value

    try:
        return read_value(written, where=f"--set {path}")
    except ConfigError:
        if not written or written[0] in "[{\"'":
            raise
        return written


def default_output(recipe: Recipe) -> Path:
    """Return ``runs/NAME``, where NAME is the recipe's as far as it can be a folder's."""
    name = re.sub(r"[^\w.+-]+", "-", recipe.name).strip("-.")[:LONGEST_NAME]
    return Path("runs", name or "recipe")


def only_trainings(recipe: Recipe, wanted: str | None) -> Recipe:
    """Return the recipe with its trainings on real data alone, or with ``wanted`` and those it builds upon.

    Raises:
        ConfigError: there is no such training, or it needs synthetic cases.
    """
    from ..core.recipe import JOB_REFERENCE

    jobs = {job.name: job for job in recipe.in_order()}
    chosen = [wanted] if wanted else [name for name, job in jobs.items() if not job.after_synthesis]
    if not set(chosen) <= set(jobs):
        raise ConfigError(f"recipe {recipe.name!r} has no training {wanted!r}; it has {', '.join(jobs) or 'none'}")
    if not chosen:
        raise ConfigError(f"recipe {recipe.name!r} has no training on real data alone; use lesionforge run")
    for name in chosen:
        if jobs[name].after_synthesis:
            raise ConfigError(f"training {name!r} is on synthetic cases; use lesionforge run, which makes them first")
        values = [value for value in jobs[name].values.values() if isinstance(value, str)]
        needed = [value.removeprefix(JOB_REFERENCE) for value in values if value.startswith(JOB_REFERENCE)]
        chosen += [other for other in needed if other in jobs and other not in chosen]
    kept = tuple(job for job in jobs.values() if job.name in chosen)
    return replace(recipe, synthesis=None, metrics=(), jobs=kept, precision=recipe.training_precision)
