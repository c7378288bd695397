"""What a search may try: ``PLACE.key=LOW..HIGH`` or ``PLACE.key=a|b|c``, held against the plugin's configuration."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from ..chain import read_value, write_value
from ..errors import ConfigError, LesionforgeError
from ..roles import STAGE_ROLES

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..registry import Registry
    from ..roles import Plugin

_NUMBER = r"[-+]?\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(?::\s*(?:(log)|step\s*=\s*(\d+)))?")
_PART = re.compile(r"""((?:[^|"']|"(?:[^"\\]|\\.)*"|'[^']*')*)(?:\||$)""")
EXPECTED = "expected PLACE.key=LOW..HIGH, LOW..HIGH:log, LOW..HIGH:step=N or a|b|c"
MOST_CORNERS = 4096

Kind = Literal["int", "float", "choice"]


@dataclass(frozen=True)
class Space:
    """The values that a search may give to one key.

    Attributes:
        path: ``stage.key`` or ``training.key``.
        written: the values as the user wrote them.
        kind: whole numbers, numbers, or choices.
        low, high: the ends of a range, both of which belong to it.
        log: True where small values are tried as densely as large ones on a logarithmic scale.
        step: distance of the whole numbers of a range.
        choices: the values in the order they were written.
    """

    path: str
    written: str
    kind: Kind
    low: float = 0
    high: float = 0
    log: bool = False
    step: int = 1
    choices: tuple[Any, ...] = ()

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Space:
        """Return the space that ``dataclasses.asdict`` made ``table`` of."""
        return cls(**{**table, "choices": tuple(table["choices"])})

    @property
    def place(self) -> str:
        """The stage's or training's name."""
        return self.path.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The key of its configuration."""
        return self.path.rpartition(".")[2]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must be allowed for all to be: both ends, or every choice."""
        return self.choices if self.kind == "choice" else (self.low, self.high)

    @property
    def grid(self) -> Sequence[Any] | None:
        """All values, None where they cannot be counted."""
        if self.kind == "choice":
            return self.choices
        return range(int(self.low), int(self.high) + 1, self.step) if self.kind == "int" else None


def read_spaces(search: Sequence[str], recipe: Recipe, registry: Registry) -> tuple[Space, ...]:
    """Return the spaces that ``search`` writes for keys of the recipe's stages and trainings.

    Raises:
        ConfigError: one is malformed, names what is not there, or is not what the key takes.
        PluginError: a stage or training names no usable plugin.
    """
    if not search:
        raise ConfigError(f"nothing to search: name at least one key by --search; {EXPECTED}")
    spaces: list[Space] = []
    for text in search:
        path, sign, written = (part.strip() for part in text.partition("="))
        place, dot, key = path.rpartition(".")
        if not sign or not dot or not place or not key:
            raise ConfigError(f"--search {text}: {EXPECTED}")
        if path in (space.path for space in spaces):
            raise ConfigError(f"--search {path} is given twice; join the values in one")
        config = _plugin_of(place, path, recipe, registry).Config
        if key not in config.model_fields:
            allowed = ", ".join(config.model_fields) or "none"
            raise ConfigError(f"--search {path}: unknown key {key!r}; allowed are {allowed}")
        spaces.append(_read(path, written, config.model_fields[key].annotation))
    return tuple(spaces)


def first_corner(spaces: Sequence[Space], recipe: Recipe, registry: Registry) -> dict[str, Any]:
    """Return values, one a space, that the plugins allow together, after a look at every end of every space.

    An end is wrong where no combination with ends of the other keys of its place is allowed: what one key may be can
    depend on another.

    Raises:
        ConfigError: an end is out of the key's range or of the wrong type.
    """
    corner: dict[str, Any] = {}
    for place in dict.fromkeys(space.place for space in spaces):
        corner |= _checked_place(place, [space for space in spaces if space.place == place], recipe, registry)
    return corner


def _plugin_of(place: str, path: str, recipe: Recipe, registry: Registry) -> type[Plugin]:
    chain, jobs = recipe.synthesis.chain if recipe.synthesis else None, {job.name: job for job in recipe.jobs}
    if chain and place in chain.keys:
        return registry.find(chain.stages[chain.keys.index(place)].plugin, *STAGE_ROLES).plugin
    if place in jobs:
        return registry.find(jobs[place].trainer, "trainer").plugin
    there = ", ".join([*(chain.keys if chain else ()), *jobs]) or "none"
    raise ConfigError(f"--search {path}: no stage or training is called {place!r}; there are {there}")


def _given(place: str, recipe: Recipe) -> Mapping[str, Any]:
    chain = recipe.synthesis.chain if recipe.synthesis else None
    if chain and place in chain.keys:
        return chain.stages[chain.keys.index(place)].values
    return next(job.values for job in recipe.jobs if job.name == place)


def _checked_place(place: str, spaces: list[Space], recipe: Recipe, registry: Registry) -> dict[str, Any]:
    plugin, given = _plugin_of(place, place, recipe, registry), _given(place, recipe)
    first: dict[str, Any] | None = None
    open_ends = [(space.key, end) for space in spaces for end in space.ends]
    refusals: list[tuple[tuple[str, Any], LesionforgeError]] = []
    for corner in islice(_corners(spaces), MOST_CORNERS):
        changed = [end for end in open_ends if _same(corner[end[0]], end[1])]
        if first is not None and not changed:
            continue
        try:
            registry.configured(plugin, {**given, **corner}, where=f"--search {place}")
        except LesionforgeError as error:
            refusals += [(end, error) for end in changed]
            continue
        first = first or corner
        open_ends = [end for end in open_ends if end not in changed]
        if not open_ends:
            break
    for end, error in refusals:
        if end in open_ends:
            raise error
    assert first is not None
    return {f"{place}.{key}": value for key, value in first.items()}


def _corners(spaces: Sequence[Space]) -> Iterator[dict[str, Any]]:
    """Yield combinations of ends: first those that differ from the first one in a single key, then all."""
    base = {space.key: space.ends[0] for space in spaces}
    yield base
    for space in spaces:
        for end in space.ends[1:]:
            yield {**base, space.key: end}
    for ends in product(*(space.ends for space in spaces)):
        yield dict(zip(base, ends, strict=True))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _read(path: str, written: str, annotation: Any) -> Space:
    if ".." in written and "|" not in written:
        return _read_range(path, written, annotation)
    choices = [_read_choice(part.strip(), path) for part in _parts(written, path)]
    if len(choices) < 2:
        raise ConfigError(f"--search {path}={written}: {EXPECTED}")
    repeated = next((one for row, one in enumerate(choices) if any(_same(one, other) for other in choices[:row])), None)
    if repeated is not None:
        raise ConfigError(f"--search {path}: {write_value(repeated)} is given twice")
    return Space(path, written, "choice", choices=tuple(choices))


def _read_range(path: str, written: str, annotation: Any) -> Space:
    where, match = f"--search {path}={written}", _RANGE.fullmatch(written)
    if match is None:
        raise ConfigError(f"{where}: {EXPECTED}")
    low, high = (read_value(match[number], where=where) for number in (1, 2))
    log, step = match[3] is not None, match[4]
    kinds = _numbers(annotation)
    if not kinds:
        raise ConfigError(f"{where}: the key takes no range of numbers; give its values as a|b|c")
    whole = isinstance(low, int) and isinstance(high, int) and int in kinds
    if not whole and float not in kinds:
        raise ConfigError(f"{where}: the key takes whole numbers; write both ends without a point")
    if low >= high:
        raise ConfigError(f"{where}: the lower end must be below the upper one")
    if log and low <= 0:
        raise ConfigError(f"{where}: a logarithmic range must begin above 0")
    if not whole:
        if step is not None:
            raise ConfigError(f"{where}: steps are for whole numbers")
        return Space(path, written, "float", float(low), float(high), log)
    stride = 1 if step is None else int(step)
    if not stride or (high - low) % stride:
        last = low + (high - low) // stride * stride if stride else high
        raise ConfigError(f"{where}: steps of {stride} from {low} do not end at {high}; the last one is {last}")
    return Space(path, written, "int", low, high, log, stride)


def _numbers(annotation: Any) -> set[type]:
    """Return which of int and float an annotation allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _numbers(arguments[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(_numbers, arguments))
    return {kind for kind in (int, float) if annotation is kind}


def _parts(written: str, path: str) -> list[str]:
    """Return what stands between the bars, but for those in quotes."""
    parts, at = [], 0
    while True:
        match = _PART.match(written, at)
        if match is None:
            raise ConfigError(f"--search {path}={written}: a quotation mark is not closed")
        parts.append(match[1])
        if match.end() == len(written) and not match[0].endswith("|"):
            return parts
        at = match.end()


def _read_choice(written: str, path: str) -> Any:
    """Return a TOML value; what is none, and does not begin like one, is text."""
    try:
        return read_value(written, where=f"--search {path}")
    except ConfigError:
        if not written or written[0] in "[{\"'":
            raise
        return written
