"""Which class each case shows: generators that fill labels alone, for others that draw images of a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ...core.batch import case_id
from ...core.config import PluginConfig
from ...core.errors import DataError, PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.batch import Batch
    from ...core.dataset import Dataset


class ClassCounts(Generator):
    """Gives a run's cases their classes by number: exactly so many of each, evenly mixed; fills labels.

    With counts of n cases together, case n begins the plan again.
    """

    name = "class-counts"

    class Config(PluginConfig):
        counts: dict[str, Annotated[int, Field(ge=1)]] = Field(min_length=1, description="cases of each class")

    def generate(self, batch: Batch) -> Batch:
        """Fill labels.

        Raises:
            PluginError: a case is not one of a run, and so has no number.
        """
        order = interleaved(self.config.counts)
        return batch.with_columns(labels=[order[self._number(case) % len(order)] for case in batch.ids])

    def _number(self, case: str) -> int:
        digits = case.rpartition("-")[2]
        if not digits.isdecimal() or case != case_id(int(digits)):
            raise PluginError(f"stage {self.context.name}: case {case!r} has no number, by which classes are counted")
        return int(digits)


class ClassBalance(Generator):
    """Draws the classes that the real training split lacks, by the cases' seeds; fills labels.

    A class of n real cases is drawn with probability proportional to m - n, m the largest such n: real and synthetic
    cases together become even where as many are drawn as are lacking. Where nothing lacks, all are equally likely.
    """

    name = "class-balance"
    needs_fit = True

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Return the number of real cases of each class; raises DataError where no case has a label."""
        import torch

        counts = Counter(record.label for record in real.records if record.label is not None)
        if not counts:
            raise DataError(f"dataset {real.name} has no labels, which stage {self.context.name} balances")
        return {label: torch.tensor(counts[label]) for label in sorted(counts)}

    def load_fit(self, state: Mapping[str, Tensor]) -> None:
        self._counts = {label: int(state[label]) for label in sorted(state)}

    def generate(self, batch: Batch) -> Batch:
        """Fill labels."""
        import torch

        from ...kernels import seeded_uniform, stream_of

        most = max(self._counts.values())
        lacking = torch.tensor([most - count for count in self._counts.values()], dtype=torch.float64)
        bounds = (lacking if lacking.any() else torch.ones_like(lacking)).cumsum(0)
        draws = seeded_uniform(batch.seeds, (1,), stream=stream_of(self.context.name))[:, 0].double()
        classes = list(self._counts)
        rows = torch.searchsorted(bounds, draws.cpu() * bounds[-1], right=True).tolist()
        return batch.with_columns(labels=[classes[row] for row in rows])


def interleaved(counts: Mapping[str, int]) -> list[str]:
    """Return every class as often as ``counts`` says, spread evenly over the list."""
    places = [((number + 0.5) / count, label) for label, count in counts.items() for number in range(count)]
    return [label for _, label in sorted(places)]


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [ClassCounts, ClassBalance]
