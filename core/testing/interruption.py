"""The trainer's contract: training that is killed and resumed leaves the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..context import Context
from ..dataset import Dataset


@dataclass(frozen=True)
class TrainerBench:
    """Trains twice, once with an interruption, and compares what is left on disk."""

    make: Callable[[], Any]
    data: Dataset
    precision: Any

    def resumes_exactly(self) -> None:
        """Raise AssertionError where a published tensor differs after two interruptions."""
        with tempfile.TemporaryDirectory() as folder:
            whole, broken = Path(folder, "whole"), Path(folder, "broken")
            calls = self._train(whole, stop_at=None)
            assert calls > 1, "the trainer reports no progress; it cannot be interrupted for this test"
            for stop in (max(1, calls // 3), max(1, calls // 2)):
                self._train(broken, stop_at=stop)
            self._train(broken, stop_at=None)
            weights = sorted(file.relative_to(whole) for file in whole.rglob("*.safetensors"))
            published = [file for file in weights if "state" not in file.parts]
            assert published, "the trainer left no safetensors checkpoint"
            for file in published:
                one, other = load_file(whole / file), load_file(broken / file)
                same = one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
                assert same, f"{file} differs after an interruption"

    def _train(self, output: Path, *, stop_at: int | None) -> int:
        calls = 0

        def progress(done: int, total: int, metrics: Mapping[str, Any]) -> None:
            nonlocal calls
            calls += 1
            if stop_at is not None and calls >= stop_at:
                raise _Interruption

        output.mkdir(exist_ok=True)
        trainer = self.make()
        trainer.setup(Context(torch.device("cpu"), self.precision, trainer.name, 3, progress))
        with suppress(_Interruption):
            trainer.train(self.data.split("train"), self.data.split("val"), output)
        return calls


class _Interruption(BaseException):
    """Stands for a kill; no plugin may catch it."""
