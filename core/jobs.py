"""Training jobs of a recipe: which data they get, how they are resumed, and the one look at the test split."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .context import Context, choose_precision
from .durable import new_folder, read_json, remove_leftovers, write_text
from .errors import DataError, StoreError
from .execution import resolve_checkpoints
from .guarding import guarded
from .job_files import FACTS, FURTHER_TESTS, METRICS, TRAINING_DATA, VALIDATION_DATA
from .manifest import (
    canonical_json,
    checkpoint_hashes,
    checkpoint_revisions,
    data_facts,
    differences,
    finite,
    machine_facts,
    package_versions,
)
from .recipe import Job
from .registry import Registry
from .seeding import name_seed

if TYPE_CHECKING:
    import torch

    from .dataset import Dataset
    from .roles import Trainer

NO_CHECKPOINT = ("state", "samples", FURTHER_TESTS, METRICS, "*.csv", "*.jsonl", "*.npz")


class OtherFacts(StoreError):
    """An interrupted training cannot be resumed bit for bit, since what shapes it has changed."""


class JobStore(Protocol):
    """What a training job needs of the folder that it belongs to: a run's, or a study's."""

    @property
    def root(self) -> Path:
        """The folder."""
        ...

    @property
    def jobs(self) -> Path:
        """Where each job has a folder of its name."""
        ...

    def append_log(self, event: dict[str, Any]) -> None:
        """Keep an event with its times."""


@dataclass(frozen=True)
class JobRunner:
    """Carries out training jobs in a run folder."""

    store: JobStore
    seed: int
    device: torch.device
    precision: str
    registry: Registry

    def run(self, job: Job, real: Dataset, synthetic: Dataset | None) -> Mapping[str, float | None]:
        """Train and evaluate ``job`` unless it is finished; resume it if it was interrupted. Returns its metrics."""
        folder = self.store.jobs / job.name
        finished = folder / METRICS
        training, validation, test = self._data(job, real, synthetic)
        if finished.exists():
            self._check_same_data(job, training, folder)
            return read_json(finished)
        trainer = self._trainer(job)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self._record_facts(job, trainer, training, validation, folder)
        self.registry.observers.job_started(name=job.name, trainer=job.trainer, output=folder)
        started = time.time()
        with guarded(f"training {job.name} failed"):
            trainer.train(training, validation, folder)
        metrics = self._measured(job, trainer, test, folder)
        write_text(finished, canonical_json(metrics))
        shutil.rmtree(folder / "state", ignore_errors=True)
        self.store.append_log({"event": "job", "name": job.name, "start": started, "seconds": time.time() - started})
        self.registry.observers.job_done(name=job.name, metrics=metrics)
        return metrics

    def evaluate(self, job: Job, test: Dataset, name: str) -> Mapping[str, float | None]:
        """Evaluate the finished ``job`` on the further test set ``name`` unless that is done; return its metrics.

        What the trainer writes goes to ``external/NAME`` in the job's folder, whole or not at all.
        """
        folder = self.store.jobs / job.name
        target = folder / FURTHER_TESTS / name
        if not (target / METRICS).exists():
            trainer = self._trainer(job)
            target.parent.mkdir(exist_ok=True)
            remove_leftovers(target.parent)
            with new_folder(target) as draft:
                # A trainer finds its checkpoint where it leaves its results, so it is lent a copy.
                shutil.copytree(folder, draft, ignore=shutil.ignore_patterns(*NO_CHECKPOINT), dirs_exist_ok=True)
                lent = [file for file in draft.rglob("*") if file.is_file()]
                metrics = self._measured(job, trainer, test, draft)
                for file in lent:
                    file.unlink()
                write_text(draft / METRICS, canonical_json(metrics))
        return read_json(target / METRICS)

    def _measured(self, job: Job, trainer: Trainer, test: Dataset | None, folder: Path) -> dict[str, float | None]:
        with guarded(f"training {job.name} could not be evaluated"):
            measured = dict(trainer.evaluate(test, folder)) if test is not None else {}
            return {name: finite(float(value)) for name, value in measured.items()}

    def _data(
        self, job: Job, real: Dataset, synthetic: Dataset | None
    ) -> tuple[Dataset, Dataset | None, Dataset | None]:
        """Return training, validation and test data; the test split is handed to evaluation alone."""
        parts: dict[str, Dataset | None] = {
            split: real.split(split) if any(record.split == split for record in real.records) else None
            for split in ("train", "val", "test")
        }
        training = parts["train"]
        if "synthetic" in job.on:
            if synthetic is None or not len(synthetic):
                look = f"lesionforge report {self.store.root}"
                raise DataError(f"training {job.name}: no synthetic case was accepted; see why with: {look}")
            synthetic = synthetic.resized(real.size)
            training = synthetic if job.on == ("synthetic",) else training and training.joined(synthetic)
        if training is None:
            raise DataError(f"training {job.name}: the real data have no training split")
        return training, parts["val"], parts["test"]

    def _trainer(self, job: Job) -> Trainer:
        plugin = self.registry.find(job.trainer, "trainer").plugin
        values = resolve_checkpoints(job.values, plugin, self.store.jobs)
        trainer = self.registry.create("trainer", job.trainer, values, where=f"training {job.name}")

        def report(done: int, total: int, metrics: Mapping[str, Any]) -> None:
            self.registry.observers.stage_progress(stage=job.name, done=done, total=total, metrics=metrics)

        precision = choose_precision(self.precision, self.device)
        seed = name_seed(str(self.seed), job.trainer)
        with guarded(f"training {job.name} could not be set up"):
            trainer.setup(Context(self.device, precision, job.name, seed, report, self.registry))
        return trainer

    def _check_same_data(self, job: Job, training: Dataset, folder: Path) -> None:
        trained_on = read_json(folder / FACTS)["data"]
        if trained_on != data_facts(training):
            raise StoreError(
                f"training {job.name} was finished on other data than there are now (see {folder / FACTS}); "
                "restore them or start a new --output"
            )

    def _record_facts(
        self, job: Job, trainer: Trainer, training: Dataset, validation: Dataset | None, folder: Path
    ) -> None:
        """Write which images the job sees and all that shapes its weights; refuse to resume under other facts."""
        entry = self.registry.find(job.trainer, "trainer")
        used = entry.plugin.uses(trainer.config, self.registry)
        facts = {
            "trainer": job.trainer,
            "distribution": entry.distribution,
            "on": list(job.on),
            "config": dict(job.values),
            "seed": self.seed,
            "checkpoints": checkpoint_hashes(trainer, where=f"training {job.name}"),
            "revisions": checkpoint_revisions(trainer),
            "data": data_facts(training),
            "precision": trainer.context.precision,
            "machine": machine_facts(self.device, self.registry),
            "versions": package_versions(entry.distribution, *(other.distribution for other in used)),
        }
        file = folder / FACTS
        if file.exists():
            changed = differences(read_json(file), json.loads(canonical_json(facts)))
            if changed:
                raise OtherFacts(
                    f"training {job.name} cannot be resumed bit for bit, since something changed: "
                    f"{'; '.join(changed[:3])}; restore it or delete {folder}"
                )
            return
        for name, data in ((TRAINING_DATA, training), (VALIDATION_DATA, validation)):
            if data is not None:
                write_text(folder / name, "".join(f"{line}\n" for line in data.fingerprint()))
        write_text(file, canonical_json(facts))
