"""One value of a study replaced, as ``--set`` does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config import PluginConfig, build_config
from ..errors import ConfigError
from .settings import StudyFile, SyntheticSet

if TYPE_CHECKING:
    from .recipe import Study

ORIGINS = ("run", "recipe", "data")
PLACES = ("study", "data", "model.NAME", "arm.NAME", "synthetic.NAME", "external.NAME")


def replaced(study: Study, path: str, value: Any) -> Study:
    """Return ``study`` with the value at ``path`` replaced, not yet checked as a whole.

    Raises:
        ConfigError: there is no such place, or the value is not allowed.
    """
    where = f"--set {path}"
    place, _, rest = path.partition(".")
    if path == "name":
        checked = build_config(StudyFile, {"name": value, "study": {}}, where=where)
        return replace(study, name=checked.name)
    if place in ("study", "data") and rest:
        key = "settings" if place == "study" else "data"
        return replace(study, **{key: _with(getattr(study, key), rest, value, where)})
    names = {
        "model": [model.name for model in study.models],
        "arm": study.arm_names,
        "external": [external.name for external in study.externals],
        "synthetic": list(study.synthetic),
    }.get(place)
    if names is None:
        raise ConfigError(f"{where}: there is nothing called {place!r}; there are {', '.join(PLACES)}")
    # A name may hold dots, so it is taken from those that there are.
    name = next((name for name in sorted(names, key=len, reverse=True) if rest.startswith(f"{name}.")), None)
    if name is None:
        raise ConfigError(f"{where}: {place} has {', '.join(names) or 'no entry'}; expected {place}.NAME.KEY=VALUE")
    return _entry_replaced(study, place, name, rest.removeprefix(f"{name}."), value, where)


def _entry_replaced(study: Study, place: str, name: str, key: str, value: Any, where: str) -> Study:
    if place == "model":
        models = (replace(m, values={**m.values, key: value}) if m.name == name else m for m in study.models)
        return replace(study, models=tuple(models))
    if place == "synthetic":
        origin = study.synthetic[name]
        if key in ORIGINS:  # the set comes from there now, whatever made it before
            origin = build_config(SyntheticSet, {key: value}, where=where)
        elif key.startswith("set."):
            key, value = "set", {**origin.set, key.removeprefix("set."): value}
        return replace(study, synthetic={**study.synthetic, name: _with(origin, key, value, where)})
    field = f"{place}s"
    entries = (_with(e, key, value, where) if e.name == name else e for e in getattr(study, field))
    return replace(study, **{field: tuple(entries)})


def _with(settings: PluginConfig, key: str, value: Any, where: str) -> Any:
    return build_config(type(settings), {**settings.model_dump(exclude_unset=True), key: value}, where=where)
