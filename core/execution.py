"""Setting stages up and sending batches through them, with every role held to its contract."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .batch import TENSOR_COLUMNS, Batch
from .chain import Chain
from .checkpoints import BUILTIN_REFERENCE, checkpoint_path
from .config import checkpoint_fields
from .context import Context, choose_device, choose_precision
from .durable import write_bytes
from .errors import ConfigError, PluginError, PluginFailure, StoreError
from .guarding import guarded
from .recipe import JOB_REFERENCE
from .registry import Registry, default_registry
from .roles import STAGE_ROLES, Annotator, Filter, Plugin, Stage

if TYPE_CHECKING:
    from .dataset import Dataset

ROUNDING = 1e-4
"""By how much a value may leave [0, 1], as resampling filters do; storing clamps it."""


def resolve_checkpoints(values: Mapping[str, Any], plugin: type[Plugin], jobs: Path | None) -> dict[str, Any]:
    """Return ``values`` with ``train:NAME`` as that job's folder below ``jobs``, ``builtin:NAME`` as the package's."""
    resolved = dict(values)
    for key in checkpoint_fields(plugin.Config):
        value = resolved.get(key)
        if isinstance(value, str) and value.startswith(JOB_REFERENCE):
            if jobs is None:
                raise ConfigError(f"{key} = {value!r} refers to a training, but this chain belongs to no recipe")
            resolved[key] = str(jobs / value.removeprefix(JOB_REFERENCE))
        elif isinstance(value, str) and value.startswith(BUILTIN_REFERENCE):
            resolved[key] = str(checkpoint_path(value))
    return resolved


def set_up(
    chain: Chain,
    *,
    device: torch.device,
    precision: str,
    seed: int = 0,
    jobs: Path | None = None,
    registry: Registry | None = None,
) -> dict[str, Stage]:
    """Return the chain's stages with their networks loaded, by key."""
    registry = registry or default_registry()
    for key, stage in zip(chain.keys, chain.stages, strict=True):
        plugin = registry.find(stage.plugin, *STAGE_ROLES).plugin
        for name, value in resolve_checkpoints(stage.values, plugin, jobs).items():
            chain = chain.with_value(key, name, value)
    stages = chain.build(registry)
    for key, stage in stages.items():

        def report(done: int, total: int, metrics: Mapping[str, Any], stage_key: str = key) -> None:
            registry.observers.stage_progress(stage=stage_key, done=done, total=total, metrics=metrics)

        context = Context(device, choose_precision(precision, device), key, seed, report, registry)
        with guarded(f"stage {key} could not be set up"):
            stage.setup(context)
    return stages


def fit_stages(stages: Mapping[str, Stage], real: Dataset | None, folder: Path | None) -> None:
    """Fit the stages that need it on ``real``, or give them the fit that ``folder`` holds from before.

    Raises:
        ConfigError: a stage needs real data and there are none.
    """
    for key, stage in stages.items():
        if not stage.needs_fit:
            continue
        file = folder / f"{key}.safetensors" if folder else None
        if file is None or not file.exists():
            if real is None:
                raise ConfigError(f"stage {key} must be fitted on real data; name some, for example --data folder:PATH")
            with guarded(f"stage {key} could not be fitted"):
                state = {name: tensor.cpu().contiguous() for name, tensor in stage.fit(real).items()}
                encoded = save(state)
            if file is None:
                stage.load_fit(state)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, encoded)
        try:
            state = load_file(file)
        except SafetensorError as error:
            raise StoreError(f"fitted state {file} is damaged: {error}; delete it to fit again") from error
        with guarded(f"stage {key} could not take its fitted state {file}"):
            stage.load_fit(state)


def open_stages(
    chain: Chain, *, device: str, precision: str, data: str | Dataset | None, registry: Registry | None
) -> list[Stage]:
    """Return ready stages for use without a run folder, see :meth:`Chain.open`."""
    from .loading import load_dataset

    stages = set_up(chain, device=choose_device(device), precision=precision, registry=registry)
    real = load_dataset(data) if isinstance(data, str) else data
    if real is not None and real.has_splits():
        real = real.split("train")
    fit_stages(stages, real, None)
    return list(stages.values())


def process(stages: Mapping[str, Stage], batch: Batch, hooks: Any) -> Batch:
    """Send one batch through all stages without gradients (a stage may enable them), calling the lifecycle hooks.

    Raises:
        PluginFailure: a stage raised.
        PluginError: a stage broke the contract of its role.
    """
    with torch.no_grad():
        for key, stage in stages.items():
            hooks.stage_started(stage=key, cases=len(batch))
            started = time.perf_counter()
            with guarded(f"stage {key} failed on {batch.ids[0]} to {batch.ids[-1]}"):
                result = stage(batch)
            check_contract(key, stage, batch, result)
            batch = result
            hooks.stage_done(stage=key, batch=batch, seconds=time.perf_counter() - started)
    return batch


def check_contract(key: str, stage: Stage, before: Batch, after: Any) -> None:
    """Raise PluginError where a stage changed what its role must not touch."""
    if not isinstance(after, Batch):
        raise PluginError(f"stage {key} returned {type(after).__name__}, not a Batch")
    if after.ids != before.ids or after.seeds != before.seeds:
        raise PluginError(f"stage {key} changed ids or seeds of its batch, which no stage may")
    untouchable: tuple[str, ...] = ()
    if isinstance(stage, Annotator):
        untouchable = ("images",)
    elif isinstance(stage, Filter):
        untouchable = ("images", "masks", "soft_masks")
        if (after.labels, after.prompts) != (before.labels, before.prompts):
            raise PluginError(f"stage {key} changed labels or prompts, which the role filter must not")
    for column in untouchable:
        old, new = getattr(before, column), getattr(after, column)
        if old is not new and (old is None or new is None or not torch.equal(old, new)):
            raise PluginError(f"stage {key} changed {column}, which the role {stage.role} must not")
    survived = all(new == old for old, new in zip(before.rejections, after.rejections, strict=True) if old is not None)
    if not survived or (not isinstance(stage, Filter) and after.rejections != before.rejections):
        raise PluginError(f"stage {key} changed rejections; only a filter may, and only by adding some")
    check_content(key, before, after)


def check_content(key: str, before: Batch, after: Batch) -> None:
    """Raise PluginFailure where a stage filled a column with what cannot be stored as it is."""
    for column in TENSOR_COLUMNS:
        tensor = getattr(after, column)
        if tensor is None or tensor is getattr(before, column) or not tensor.numel():
            continue
        low, high = (float(bound) for bound in torch.aminmax(tensor))
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise PluginFailure(f"stage {key} filled {column} with values from {low:.3g} to {high:.3g}, outside [0, 1]")
        if column == "masks" and not bool(((tensor == 0) | (tensor == 1)).all()):
            raise PluginFailure(f"stage {key} filled masks with values between 0 and 1; soft_masks are for those")
    if after.images is not None and after.masks is not None and after.images.shape[2:] != after.masks.shape[2:]:
        sizes = f"{tuple(after.masks.shape[2:])} beside images of {tuple(after.images.shape[2:])}"
        raise PluginFailure(f"stage {key} left masks of {sizes} pixels; both must have one size")
    try:
        json.dumps([after.provenance, after.labels, after.prompts], ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise PluginFailure(f"stage {key} filled text or provenance that JSON cannot hold: {error}") from error
