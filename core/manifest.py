"""What a reviewer must know to trust a run: configurations, checkpoint hashes, data, versions. No wall-clock time."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints import checkpoint_path, hub_revision
from .config import checkpoint_fields
from .durable import read_json, tree_hash
from .errors import CheckpointError
from .places import is_local
from .registry import Registry

if TYPE_CHECKING:
    import torch

    from .chain import Chain
    from .dataset import Dataset
    from .roles import Stage

FORMAT = 1
RECORDED_PACKAGES = (
    "lesionforge",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "diffusers",
    "transformers",
    "safetensors",
    "accelerate",
    "segmentation-models-pytorch",
    "timm",
    "scipy",
    "scikit-image",
)


def package_versions(*extra: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that shape results."""
    versions = {"python": platform.python_version()}
    for package in dict.fromkeys((*RECORDED_PACKAGES, *extra)):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def machine_facts(device: torch.device, registry: Registry) -> dict[str, Any]:
    """Return what about the machine can change the last bits: device, processor capability, threads, kernels."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    kernels: dict[str, list[str]] = {}
    for row in (row for rows in registry.hooks.hook.kernel_diagnostics(measure=False) for row in rows):
        kernels.setdefault(row["op"], []).extend([row["backend"]] if row["available"] else [])
    return {"device": device.type, "capability": name, "threads": torch.get_num_threads(), "kernels": kernels}


def stage_facts(stages: Mapping[str, Stage], chain: Chain, fitted: Path, registry: Registry) -> list[dict[str, Any]]:
    """Return one entry a stage: plugin, its distribution and version, configuration, hashes of what it loads."""
    facts = []
    for (key, stage), spec in zip(stages.items(), chain.stages, strict=True):
        entry = registry.find(spec.plugin, stage.role)
        fit = fitted / f"{key}.safetensors"
        facts.append(
            {
                "key": key,
                "plugin": spec.plugin,
                "role": stage.role,
                "distribution": entry.distribution,
                "version": entry.version,
                "config": dict(spec.values),
                "checkpoints": checkpoint_hashes(stage, where=f"stage {key}"),
                "revisions": checkpoint_revisions(stage),
                "phantom": any(map(trained_on_phantoms, checkpoint_paths(stage).values())),
                "fitted": tree_hash(fit) if stage.needs_fit else None,
            }
        )
    return facts


def checkpoint_hashes(plugin: Any, *, where: str) -> dict[str, str]:
    """Return the hash of every file or folder that the plugin's checkpoint fields name, in the hub's cache too.

    Raises:
        CheckpointError: a field names a local path that does not exist.
    """
    hashes = {}
    for key, path in checkpoint_paths(plugin).items():
        if path.exists():
            hashes[key] = published_hash(path)
        elif is_local(getattr(plugin.config, key)):
            raise CheckpointError(f"{where}: {key} = {str(path)!r} does not exist")
    return hashes


def checkpoint_revisions(plugin: Any) -> dict[str, str]:
    """Return the hub's commit of every checkpoint field whose folder is in the hub's cache."""
    found = {key: hub_revision(path) for key, path in checkpoint_paths(plugin).items()}
    return {key: revision for key, revision in found.items() if revision is not None}


def checkpoint_paths(plugin: Any) -> dict[str, Path]:
    """Return where the checkpoints lie that the plugin's fields name; what is not there yet, as the name is written."""
    values = {key: getattr(plugin.config, key) for key in checkpoint_fields(type(plugin.config))}
    return {key: checkpoint_path(value) for key, value in values.items() if value is not None}


def trained_on_phantoms(checkpoint: Path) -> bool:
    """True where the training job that left ``checkpoint`` says that its data were phantoms."""
    facts = checkpoint / "job.json"
    data = read_json(facts).get("data") if facts.is_file() else None
    return bool(data and data.get("phantom"))


def published_hash(path: Path) -> str:
    """Return the hash of a checkpoint: of a file, or of a folder's weights and configurations."""
    if path.is_file():
        return tree_hash(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.suffix in (".safetensors", ".json", ".txt")):
        if "state" not in file.relative_to(path).parts and file.name not in ("job.json", "metrics.json"):
            digest.update(f"{file.relative_to(path).as_posix()}\0{tree_hash(file)}\n".encode())
    return digest.hexdigest()


def data_facts(dataset: Dataset | None) -> dict[str, Any] | None:
    """Return name, size and content hash of the real data, or None."""
    if dataset is None:
        return None
    return {
        "name": dataset.name,
        "phantom": dataset.phantom,
        "cases": len(dataset),
        "size": dataset.size,
        "sha256": lines_hash(dataset.fingerprint()),
    }


def lines_hash(lines: Iterable[str]) -> str:
    """Return the SHA-256 of lines of text, each ended by a line feed."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def text_hash(text: str) -> str:
    """Return the SHA-256 of text."""
    return hashlib.sha256(text.encode()).hexdigest()


def finite(value: float) -> float | None:
    """Return the value, or None for what JSON cannot hold."""
    return value if math.isfinite(value) else None


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the dotted paths at which two JSON values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{path}[{number}]")]
    return [] if old == new else [f"{path}: was {old!r}, is {new!r}"]
