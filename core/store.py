"""The run folder: shards that are whole or absent, and a ledger row for every case."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .batch import Batch
from .durable import TEMPORARY_PREFIX, read_json, remove_leftovers, sync_folder, sync_tree, write_text
from .errors import StoreError
from .locking import flocked
from .manifest import finite, text_hash
from .places import is_free

if TYPE_CHECKING:
    from torch import Tensor

LEDGER = "ledger.jsonl"
LEDGER_SEAL = "ledger.sha256"
WORKERS_PATIENCE = 5.0
"""Seconds in which workers that lost their parent must have ended."""
PNG_COMPRESSION = 4
COLUMN_FOLDERS = {"image": "images", "mask": "masks", "soft_mask": "soft_masks"}


class RunStore:
    """Paths of a run folder and the operations that change it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "recipe.toml"
        self.manifest = root / "manifest.json"
        self.fitted = root / "fitted"
        self.shards = root / "shards"
        self.jobs = root / "train"
        self.metrics = root / "metrics.json"
        self.report = root / "report"
        self.log = root / "log.jsonl"

    def create(self, recipe_text: str, *, resume: bool) -> None:
        """Make the folder for a new run, or check that it holds this very recipe when resuming.

        Raises:
            StoreError: a run is there already and ``resume`` is false, or it has another recipe, or no write access.
        """
        try:
            if self.recipe.exists():
                self._check_same_recipe(recipe_text, resume)
            elif not is_free(self.root):
                raise StoreError(f"{self.root} is not empty and holds no run; choose another --output")
            self.root.mkdir(parents=True, exist_ok=True)
            if not self.recipe.exists():  # before anything else, so that a folder with content is always a run
                write_text(self.recipe, recipe_text)
            busy = f"workers of an interrupted run are still at work in {self.root}; try again in a moment"
            with self._flocked(".workers", fcntl.LOCK_EX, busy, patience=WORKERS_PATIENCE):
                for folder in (self.root, self.shards, self.fitted):
                    folder.mkdir(exist_ok=True)
                    remove_leftovers(folder)
        except OSError as error:
            raise StoreError(f"cannot write to {self.root}: {error.strerror}") from error

    def _check_same_recipe(self, recipe_text: str, resume: bool) -> None:
        if not resume:
            raise StoreError(f"{self.root} holds a run already; add --resume to go on, or choose another --output")
        if self.recipe.read_text(encoding="utf-8") != recipe_text:
            raise StoreError(
                f"{self.root} was started with another recipe (see {self.recipe}); resume with the same recipe, data "
                "and --set values, or choose another --output"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder for this process.

        Raises:
            StoreError: another process works on it.
        """
        busy = f"another process is working on {self.root}; wait for it or stop it"
        with self._flocked(".lock", fcntl.LOCK_EX, busy, patience=0):
            yield

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Take part in making shards, beside other processes; drafts are not cleared away meanwhile."""
        busy = f"drafts in {self.root} are being cleared away; try again in a moment"
        with self._flocked(".workers", fcntl.LOCK_SH, busy, patience=WORKERS_PATIENCE):
            yield

    @contextmanager
    def _flocked(self, name: str, mode: int, busy: str, *, patience: float) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to {self.root}: {error.strerror}") from error
        with flocked(self.root / name, mode, busy, patience=patience):
            yield

    def write_manifest(self, manifest_text: str) -> None:
        """Write the manifest once; raise StoreError where an earlier one differs, saying where."""
        from .manifest import differences

        if not self.manifest.exists():
            write_text(self.manifest, manifest_text)
            return
        changed = differences(read_json(self.manifest), json.loads(manifest_text))
        if changed:
            raise StoreError(
                f"{self.root} cannot be resumed bit for bit, since something changed: {'; '.join(changed[:3])}; "
                "restore it or start a new --output"
            )

    def manifest_hash(self) -> str:
        """Return the hash by which ledger rows name the manifest; raises StoreError before there is one."""
        if not self.manifest.exists():
            raise StoreError(f"{self.root} is not prepared: it has no manifest.json; see core.runner.prepare_run")
        return text_hash(self.manifest.read_text(encoding="utf-8"))

    def shard(self, first: int) -> Path:
        """Return the folder of the shard that begins with case ``first``."""
        return self.shards / f"{first:08d}"

    def committed(self) -> list[Path]:
        """Return the folders of all committed shards, in order."""
        return sorted(entry for entry in self.shards.glob("[0-9]*") if entry.is_dir())

    def append_log(self, event: dict[str, Any]) -> None:
        """Append one event with its times to ``log.jsonl``; the only place where wall-clock time is kept."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise StoreError(f"cannot write {self.log}: {error.strerror}") from error


def read_ledger(shard: Path) -> list[dict[str, Any]]:
    """Return the ledger rows of a shard.

    Raises:
        StoreError: the ledger is missing or damaged.
    """
    try:
        lines = (shard / LEDGER).read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise StoreError(f"ledger of shard {shard} cannot be read: {error}") from error


class ShardDraft:
    """A shard being written under a temporary name; :meth:`commit` makes it appear whole."""

    def __init__(self, store: RunStore, first: int, manifest_hash: str) -> None:
        self._final = store.shard(first)
        self._folder = store.shards / f"{TEMPORARY_PREFIX}{self._final.name}-{uuid.uuid4().hex[:8]}"
        self._manifest_hash = manifest_hash
        try:
            self._folder.mkdir()
        except OSError as error:
            raise StoreError(f"cannot write {self._folder}: {error.strerror}") from error

    def write(self, indices: Sequence[int], batch: Batch, pixels: dict[str, NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Encode the cases' pixels as PNG and return their ledger rows. Safe to call from several threads."""
        return [self._write_case(row, index, batch, pixels) for row, index in enumerate(indices)]

    def _write_case(self, row: int, index: int, batch: Batch, pixels: dict[str, NDArray[np.uint8]]) -> dict[str, Any]:
        rejection = batch.rejections[row]
        files, hashes = {}, {}
        for column, stack in pixels.items():
            folder = COLUMN_FOLDERS[column] if rejection is None else f"rejected/{COLUMN_FOLDERS[column]}"
            path = self._folder / folder / f"{batch.ids[row]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = png_bytes(stack[row])
            path.write_bytes(encoded)
            files[column] = path.relative_to(self._folder).as_posix()
            hashes[column] = hashlib.sha256(encoded).hexdigest()
        return {
            "id": batch.ids[row],
            "index": index,
            "seed": batch.seeds[row],
            "label": batch.labels[row] if batch.labels else None,
            "prompt": batch.prompts[row] if batch.prompts else None,
            "scores": {name: finite(float(values[row])) for name, values in sorted(batch.scores.items())},
            "verdict": {"kept": rejection is None, **({} if rejection is None else _rejection_row(rejection))},
            "files": files,
            "sha256": hashes,
            "provenance": dict(batch.provenance[row]),
            "manifest": self._manifest_hash,
        }

    def commit(self, written: Sequence[Future[list[dict[str, Any]]]]) -> None:
        """Wait for the writers, add the ledger, sync everything and rename: the shard exists from here on.

        Raises:
            StoreError: the disk is full or not writable; nothing half-written stays.
        """
        try:
            rows = [row for future in written for row in future.result()]
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
            ledger = "".join(f"{line}\n" for line in lines)
            (self._folder / LEDGER).write_text(ledger, encoding="utf-8", newline="\n")
            (self._folder / LEDGER_SEAL).write_text(f"{text_hash(ledger)}\n")
            sync_tree(self._folder)
            if not self._final.exists():  # else another worker was faster, with the same bytes
                self._folder.rename(self._final)
            sync_folder(self._final.parent)
        except OSError as error:
            raise StoreError(f"cannot write shard {self._final}: {error.strerror or error}; then --resume") from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete the draft if it was not committed."""
        shutil.rmtree(self._folder, ignore_errors=True)


def pixel_columns(batch: Batch) -> dict[str, NDArray[np.uint8]]:
    """Quantise images, masks and soft masks to 8 bits on their device and return them as host arrays.

    Images and soft masks are rounded from [0, 1] to 0..255; masks become 0 and 255.
    """
    columns: dict[str, NDArray[np.uint8]] = {}
    for name in COLUMN_FOLDERS:
        tensor = getattr(batch, f"{name}s")
        if tensor is not None:
            quantised = _eight_bits((tensor >= 0.5).float() if name == "mask" else tensor)
            columns[name] = quantised.numpy() if name == "image" else quantised[..., 0].numpy()
    return columns


def _eight_bits(tensor: Tensor) -> Tensor:
    import torch

    scaled = tensor.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu()


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file that the store writes for (H, W, 3) or (H, W) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


def _rejection_row(rejection: Any) -> dict[str, Any]:
    return {
        "by": rejection.plugin,
        "score": rejection.score,
        "value": finite(rejection.value),
        "threshold": finite(rejection.threshold),
    }
