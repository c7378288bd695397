"""The study folder: trainings by the hash of all that shapes them, synthetic sets, tables and the report."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..durable import made_folder, remove_leftovers, write_text
from ..errors import StoreError
from ..job_files import METRICS
from ..locking import flocked, lock_tried
from ..places import is_free

STUDY = "study.toml"
LOCK = ".lock"
FOREVER = 7 * 24 * 3600.0


class StudyStore:
    """Paths of a study folder and the operations that change it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.study = root / STUDY
        self.manifest = root / "manifest.json"
        self.jobs = root / "cells"
        self.synthetic = root / "synthetic"
        self.results = root / "results"
        self.report = root / "report"
        self.log = root / "log.jsonl"

    def create(self, text: str, *, resume: bool) -> None:
        """Make the folder, or take up the study that it holds; then ``text`` replaces the study file.

        Raises:
            StoreError: a study is there already and ``resume`` is false, something else is, or no write access.
        """
        obstacle = self.obstacle(resume=resume)
        if obstacle is not None:
            raise StoreError(obstacle)
        for folder in (self.root, self.jobs, self.synthetic, self.results):
            made_folder(folder)
        if not self.study.exists() or self.study.read_text(encoding="utf-8") != text:
            write_text(self.study, text)

    def obstacle(self, *, resume: bool) -> str | None:
        """Return why :meth:`create` would refuse, or None."""
        if self.study.is_file():
            return None if resume else f"{self.root} holds a study already; add --resume to go on with it"
        if not is_free(self.root):
            return f"{self.root} is not empty and holds no study; choose another --output"
        return None

    def finished(self, key: str) -> bool:
        """True where the training ``key`` is trained and evaluated on the test split."""
        return (self.jobs / key / METRICS).is_file()

    @contextmanager
    def holding(self, key: str) -> Iterator[bool]:
        """Hold the training ``key`` for this process during the block; False where another process holds it."""
        with lock_tried(made_folder(self.jobs / key) / LOCK) as held:
            yield held

    def discard(self, key: str) -> None:
        """Delete all that the training ``key`` has left; call it under :meth:`holding`."""
        for entry in (self.jobs / key).iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Do what processes of one study must not do at once, such as making a synthetic set; wait for one's turn."""
        busy = f"another process has been at {what} in {self.root} for a week; stop it"
        with flocked(self.root / f".{what}.lock", fcntl.LOCK_EX, busy, patience=FOREVER):
            yield

    def clear(self) -> None:
        """Delete what killed processes left; call it under :meth:`alone`."""
        for folder in (self.root, self.results, self.report):
            if folder.is_dir():
                remove_leftovers(folder)

    def append_log(self, event: dict[str, Any]) -> None:
        """Append one event to ``log.jsonl``, the only place where wall-clock time is kept."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), **event}) + "\n")
        except OSError as error:
            raise StoreError(f"cannot write {self.log}: {error.strerror}") from error
