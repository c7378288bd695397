"""New descriptions from real ones: attributes of several real cases put together, drawn by each case's seed.

The attributes fall into three groups, and each group is taken whole from one real case, so that what belongs together
(an elongated lesion's asymmetry, a picture's ruler and ink) stays together, while all combinations occur [ours].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ...core.dataset import Dataset
from ...core.errors import PluginError
from ...kernels import seeded_uniform, stream_of
from .attributes import EDGE, Attributes, measure, measure_masks
from .wording import describe

GROUPS = {
    "form": ("area", "centre", "edge", "elongation", "asymmetry", "irregularity"),
    "colour": ("colours",),
    "surroundings": ("skin_tone", "hair", "ruler", "ink", "marker", "corners"),
}
EXAMPLES = 4
"""Real descriptions that a model is shown before it writes a new one."""
FIT_BATCH = 16
UNLABELLED = NOBODY = -1
Progress = Callable[[int, int, Mapping[str, Any]], None]


@dataclass(frozen=True)
class RealCases:
    """Attributes and classes of real cases.

    Attributes:
        attributes: K cases, NaN where nothing is known.
        labels: (K,) int64 place of each one's class in ``classes``, -1 where unknown.
        classes: class names.
        captions: texts that the data themselves bring, None where they bring none.
    """

    attributes: Attributes
    labels: Tensor
    classes: tuple[str, ...]
    captions: tuple[str | None, ...]

    @classmethod
    def measured(
        cls, real: Dataset, device: torch.device, progress: Progress, *, spare_captioned: bool = False
    ) -> Self:
        """Measure the cases of ``real``; of form and colour only those with a mask are known.

        Args:
            spare_captioned: measure nothing in a case that brings a caption.
        """
        rows = [row for row, record in enumerate(real.records) if not (spare_captioned and record.caption)]
        parts = [Attributes.unknown(0, device)]
        for batch in real.take(rows).resized(EDGE).batches(FIT_BATCH, masks="filled"):
            assert batch.images is not None and batch.masks is not None
            parts.append(measure(batch.images.to(device), batch.masks.to(device)))
            progress(min((len(parts) - 1) * FIT_BATCH, len(rows)), len(rows), {})
        table = Attributes.unknown(len(real), device)
        for name, found in Attributes.joined(parts).columns().items():
            table.columns()[name][rows] = found
        numbers = {name: place for place, name in enumerate(real.classes)}
        labels = [UNLABELLED if record.label is None else numbers[record.label] for record in real.records]
        return cls(table, torch.tensor(labels), real.classes, tuple(record.caption for record in real.records))

    def state(self) -> dict[str, Tensor]:
        """Return everything as named tensors."""
        columns = {f"attributes/{name}": column for name, column in self.attributes.columns().items()}
        texts = {"classes": _packed(self.classes), "captions": _packed(self.captions)}
        return {**columns, "labels": self.labels, **texts}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device) -> Self:
        """Return the cases that :meth:`state` wrote."""
        columns = {
            name.removeprefix("attributes/"): tensor.to(device)
            for name, tensor in state.items()
            if name.startswith("attributes/")
        }
        classes, captions = _unpacked(state["classes"]), _unpacked(state["captions"])
        return cls(Attributes(**columns), state["labels"].cpu(), classes, captions)

    def draw(
        self, seeds: Sequence[int], labels: Sequence[str | None], masks: Tensor | None, *, stream: str
    ) -> Attributes:
        """Return new attributes for N cases; form comes from ``masks`` (N, 1, H, W) where there are any.

        A labelled case takes form and colour from real cases of its class, unless no real case has a label at all.
        A group comes from the cases that know it, and stays NaN where there is none.

        Raises:
            PluginError: a label that no real case has.
        """
        chances = seeded_uniform(list(seeds), (len(GROUPS),), stream=stream_of(stream))
        columns: dict[str, Tensor] = {}
        for place, (group, names) in enumerate(GROUPS.items()):
            allowed = labels if group != "surroundings" else (None,) * len(labels)
            donors = self._donors(chances[:, place], allowed, self._knowing(group))
            given = self.attributes.select(donors.clamp_min(0)).columns()
            columns |= {name: _where_rows(donors != NOBODY, given[name], torch.nan) for name in names}
        if masks is not None:
            known = measure_masks(masks.to(self.attributes.area.device)).columns()
            present = known["area"] > 0
            columns |= {name: _where_rows(present, known[name], columns[name]) for name in GROUPS["form"]}
        return Attributes(**columns)

    def examples(self, seeds: Sequence[int], labels: Sequence[str | None], *, stream: str) -> list[list[str]]:
        """Return for each case the captions of ``EXAMPLES`` real cases of its class, drawn with replacement.

        A real case that brings no caption is described by its measured attributes.
        """
        chances = seeded_uniform(list(seeds), (EXAMPLES,), stream=stream_of(stream))
        everyone = torch.ones(len(self.labels), dtype=torch.bool)
        rows = torch.stack([self._donors(column, labels, everyone) for column in chances.unbind(1)], 1)
        measured = describe(self.attributes.select(rows.flatten()), [0] * rows.numel(), varied=False)
        texts = [self.captions[row] or text for row, text in zip(rows.flatten().tolist(), measured, strict=True)]
        return [texts[start : start + EXAMPLES] for start in range(0, len(texts), EXAMPLES)]

    def _knowing(self, group: str) -> Tensor:
        """Return (K,) bool, which cases know anything of ``group``."""
        columns = [self.attributes.columns()[name] for name in GROUPS[group]]
        return torch.cat([column.reshape(len(self.labels), -1) for column in columns], 1).isfinite().any(1).cpu()

    def _donors(self, chances: Tensor, labels: Sequence[str | None], allowed: Tensor) -> Tensor:
        """Return the (N,) rows of the real cases to which ``chances`` in [0, 1) fall, -1 where none is allowed.

        ``allowed`` (K,) bool says which cases may be drawn.
        """
        unknown = sorted({label for label in labels if label is not None} - set(self.classes))
        if unknown and self.classes:
            raise PluginError(f"no real case is of class {unknown[0]!r}; there are {', '.join(self.classes)}")
        everyone = allowed.nonzero()[:, 0]
        pools = {name: (allowed & (self.labels == place)).nonzero()[:, 0] for place, name in enumerate(self.classes)}
        chosen = [pools.get(label or "", everyone) for label in labels]
        rows = [
            int(pool[int(chance * len(pool))]) if len(pool) else NOBODY
            for chance, pool in zip(chances.tolist(), chosen, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.int64, device=self.attributes.area.device)


def _where_rows(rows: Tensor, chosen: Tensor, other: Tensor | float) -> Tensor:
    """Return the ``rows`` (N,) of ``chosen`` (N, ...), and ``other`` elsewhere."""
    return torch.where(rows.reshape(-1, *[1] * (chosen.ndim - 1)), chosen, other)


def _packed(texts: Sequence[str | None]) -> Tensor:
    return torch.tensor(list(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def _unpacked(encoded: Tensor) -> tuple[Any, ...]:
    return tuple(json.loads(bytes(encoded.tolist())))
