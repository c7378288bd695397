"""The contract of each role as a list of named rules, to be run under pytest or by ``lesionforge plugins check``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..batch import Batch
from ..chain import Chain, parse_call
from ..config import build_config
from ..dataset import Dataset
from ..errors import ConfigError, LesionforgeError, PluginError
from ..execution import check_contract, fit_stages, set_up
from ..registry import Registry, default_registry
from ..roles import STAGE_ROLES, Generator, Stage
from .interruption import TrainerBench
from .networks import ArchitectureBench
from .specimens import disc_dataset, filled_batch

BATCH = 6
TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}


@dataclass(frozen=True)
class Rule:
    """One clause of a contract: ``check()`` raises AssertionError or a lesionforge error where it is broken."""

    name: str
    check: Callable[[], None]


def contract_rules(
    expression: str,
    *,
    role: str | None = None,
    data: Dataset | None = None,
    precision: str = "fp32",
    registry: Registry | None = None,
) -> list[Rule]:
    """Return the rules that the plugin in ``expression`` must keep, for ``pytest.mark.parametrize``.

    Args:
        expression: ``name`` or ``name(key=value)`` with values that make the plugin quick on a CPU.
        role: needed only where one name is used in several roles.
        data: real cases to fit on, annotate, screen or train on; small discs by default.

    Raises:
        PluginError: the plugin is unknown, broken, or of a role that has no contract beyond its registration.
    """
    registry = registry or default_registry()
    name, values, _ = parse_call(expression)
    entry = registry.find(name, *([role] if role else []))
    rules = _common_rules(entry.plugin, values)
    data = data or disc_dataset()
    if entry.role in STAGE_ROLES:
        bench = _StageBench(str(Chain.parse(expression)), data, precision, registry)
        return rules + bench.rules(entry.role)
    if entry.role == "trainer":
        trainer = TrainerBench(lambda: registry.create("trainer", name, values, where=name), data, precision)
        return [*rules, Rule("killed and resumed equals uninterrupted", trainer.resumes_exactly)]
    if entry.role == "architecture":
        bench = ArchitectureBench(registry.create("architecture", name, values, where=name))
        return rules + [Rule(rule, check) for rule, check in bench.rules().items()]
    return rules


def assert_contract(
    expression: str,
    *,
    role: str | None = None,
    data: Dataset | None = None,
    precision: str = "fp32",
    registry: Registry | None = None,
) -> None:
    """Run all rules of :func:`contract_rules`; raises AssertionError that lists every broken one."""
    broken = []
    for rule in contract_rules(expression, role=role, data=data, precision=precision, registry=registry):
        try:
            rule.check()
        except (AssertionError, LesionforgeError) as error:
            broken.append(f"{rule.name}: {error}")
    assert not broken, f"{expression} breaks the contract of its role: {'; '.join(broken)}"


def _common_rules(plugin: Any, values: Mapping[str, Any]) -> list[Rule]:
    def is_named() -> None:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9+]+)*", plugin.name), f"{plugin.name!r} is not kebab-case"
        assert (plugin.__doc__ or "").strip(), "the class has no docstring; its first line is shown to users"

    def config_is_documented() -> None:
        bare = [name for name, field in plugin.Config.model_fields.items() if not field.description]
        assert not bare, f"no description for {', '.join(bare)}"

    def config_is_strict() -> None:
        try:
            build_config(plugin.Config, {**values, "no_such_key": 1}, where=plugin.name)
        except ConfigError:
            return
        raise AssertionError("an unknown key is accepted")

    def config_survives_recipe() -> None:
        config = build_config(plugin.Config, values, where=plugin.name)
        again = build_config(plugin.Config, config.model_dump(exclude_none=True), where=plugin.name)
        assert again == config, "the configuration changes when it is written to a recipe and read back"

    return [
        Rule("has a name and a docstring", is_named),
        Rule("every config key has a description", config_is_documented),
        Rule("unknown config keys are refused", config_is_strict),
        Rule("config survives being written to a recipe", config_survives_recipe),
    ]


class _StageBench:
    """A stage set up once, and the rules that can be checked on it."""

    def __init__(self, expression: str, data: Dataset, precision: str, registry: Registry) -> None:
        self._chain, self._data, self._precision, self._registry = Chain.parse(expression), data, precision, registry
        self._ready: Stage | None = None

    def rules(self, role: str) -> list[Rule]:
        own = {
            "generator": [Rule("fills content within range", self.content_is_valid)],
            "annotator": [Rule("fills annotations within range", self.content_is_valid)],
            "filter": [Rule("every rejection names plugin, score and threshold", self.rejections_are_explained)],
        }[role]
        return [
            *own,
            Rule("leaves alone what the role must not touch", self.keeps_contract),
            Rule("does not mutate its input", self.input_is_untouched),
            Rule("same seeds, same bits", self.repeats),
            Rule("order of cases does not matter", self.order_does_not_matter),
            Rule("neighbours do not matter", self.neighbours_do_not_matter),
            Rule("batch size matters only within tolerance", self.batch_size_within_tolerance),
            Rule("global random state is left alone", self.global_rng_untouched),
            Rule("fitted state survives being saved", self.fit_is_portable),
        ]

    @property
    def stage(self) -> Stage:
        if self._ready is None:
            self._ready = self._fresh(None)
        return self._ready

    def _fresh(self, fitted: Path | None) -> Stage:
        device = torch.device("cpu")
        stages = set_up(self._chain, device=device, precision=self._precision, registry=self._registry)
        fit_stages(stages, self._data, fitted)
        return next(iter(stages.values()))

    def _input(self, first: int = 0, count: int = BATCH) -> Batch:
        if not isinstance(self.stage, Generator):
            return filled_batch(self._data, [(first + row) % len(self._data) for row in range(count)])
        blank = Batch.blank(count, seed=5, first=first)
        filled = filled_batch(self._data, [(first + row) % len(self._data) for row in range(count)])
        try:
            self._call(blank.select([0]))
        except PluginError:
            return blank.with_columns(masks=filled.masks, prompts=filled.prompts, labels=filled.labels)
        return blank

    def _call(self, batch: Batch) -> Batch:
        with torch.no_grad():
            return self.stage(batch)

    def content_is_valid(self) -> None:
        before = self._input()
        after = self._call(before)
        check_contract(self.stage.name, self.stage, before, after)
        assert _content(after) != _content(before), "the stage filled nothing"
        for name, tensor in _tensors(after).items():
            assert torch.isfinite(tensor).all(), f"{name} holds numbers that are not finite"
            if not name.startswith("scores"):
                assert tensor.min() >= 0 and tensor.max() <= 1, f"{name} leaves [0, 1]"
        if after.masks is not None:
            assert ((after.masks == 0) | (after.masks == 1)).all(), "masks hold other values than 0 and 1"

    def keeps_contract(self) -> None:
        before = self._input()
        check_contract(self.stage.name, self.stage, before, self._call(before))

    def input_is_untouched(self) -> None:
        before = self._input()
        copies = {name: tensor.clone() for name, tensor in _tensors(before).items()}
        self._call(before)
        changed = [name for name, tensor in _tensors(before).items() if not torch.equal(tensor, copies[name])]
        assert not changed, f"the stage wrote into {', '.join(changed)} of its input"

    def rejections_are_explained(self) -> None:
        after = self._call(self._input())
        assert after.scores, "the filter wrote no score"
        for rejection in filter(None, after.rejections):
            assert rejection.plugin and rejection.score in after.scores, f"{rejection} names no score of the batch"

    def repeats(self) -> None:
        batch = self._input()
        _assert_equal(self._call(batch), self._call(batch), 0)

    def order_does_not_matter(self) -> None:
        batch, order = self._input(), list(range(BATCH))[::-1]
        _assert_equal(self._call(batch).select(order), self._call(batch.select(order)), 0)

    def neighbours_do_not_matter(self) -> None:
        batch, others = self._input(), self._input(first=100)
        mixed = _joined(batch.select([0, 1]), others.select(list(range(2, BATCH))))
        _assert_equal(self._call(batch).select([0, 1]), self._call(mixed).select([0, 1]), 0)

    def batch_size_within_tolerance(self) -> None:
        batch = self._input()
        for row in range(2):
            alone = self._call(batch.select([row]))
            _assert_equal(self._call(batch).select([row]), alone, TOLERANCE[self._precision])

    def global_rng_untouched(self) -> None:
        state = torch.get_rng_state()
        self._call(self._input())
        assert torch.equal(state, torch.get_rng_state()), "the stage draws from torch's global generator"

    def fit_is_portable(self) -> None:
        if not self.stage.needs_fit:
            return
        with tempfile.TemporaryDirectory() as folder:
            self._fresh(Path(folder))
            saved = next(Path(folder).glob("*.safetensors"))
            assert load_file(saved), "fit returned nothing"
            again = self._fresh(Path(folder))
            with torch.no_grad():
                _assert_equal(self._call(self._input()), again(self._input()), 0)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    columns = {name: getattr(batch, name) for name in ("images", "masks", "soft_masks")}
    columns |= {f"scores[{name}]": value for name, value in batch.scores.items()}
    return {name: tensor for name, tensor in columns.items() if tensor is not None}


def _content(batch: Batch) -> tuple[Any, ...]:
    filled = {name: tensor.double().sum().item() for name, tensor in _tensors(batch).items()}
    return filled, batch.labels, batch.prompts


def _assert_equal(one: Batch, other: Batch, tolerance: float) -> None:
    """Compare all columns; with a tolerance, masks may differ on few pixels and verdicts are left out."""
    assert one.ids == other.ids and one.labels == other.labels and one.prompts == other.prompts, "text columns differ"
    tensors, others = _tensors(one), _tensors(other)
    assert tensors.keys() == others.keys(), "different columns are filled"
    for name, tensor in tensors.items():
        distance = (tensor.double() - others[name].double()).abs().nan_to_num()
        if tolerance == 0:
            assert torch.equal(tensor, others[name]), f"{name} differs by up to {distance.max():.3g}"
        elif name == "masks":
            assert distance.mean() <= 0.01, f"masks differ on {distance.mean():.1%} of the pixels"
        else:
            limit = tolerance * max(1.0, float(tensor.abs().max()))
            assert distance.max() <= limit, f"{name} differs by {distance.max():.3g}"
    assert tolerance or one.rejections == other.rejections, "verdicts differ"


def _joined(one: Batch, other: Batch) -> Batch:
    def join(name: str) -> Any:
        parts = getattr(one, name), getattr(other, name)
        if parts[0] is None:
            return None
        return parts[0] + parts[1] if isinstance(parts[0], tuple) else torch.cat(parts)

    return Batch(**{field.name: join(field.name) for field in fields(Batch) if field.name != "scores"})
