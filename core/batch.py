"""The one thing that flows through a chain: N cases as columns on one device, never mutated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .errors import PluginError
from .seeding import case_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONTENT_COLUMNS = ("images", "masks", "soft_masks", "labels", "prompts")
TENSOR_COLUMNS = ("images", "masks", "soft_masks")


@dataclass(frozen=True)
class Rejection:
    """Why a filter turned a case down: ``score`` was ``value`` where ``threshold`` is the limit."""

    plugin: str
    score: str
    value: float
    threshold: float

    def __str__(self) -> str:
        return f"{self.plugin}: {self.score} {self.value:.4g} (limit {self.threshold:.4g})"


@dataclass(frozen=True)
class Batch:
    """N cases as columns. An absent column is None; a stage returns a new batch made with :meth:`with_columns`.

    Attributes:
        ids: names of the cases, unique within a run.
        seeds: one integer in [0, 2**64) a case, the only source of its randomness.
        images: (N, 3, H, W) float in [0, 1].
        masks: (N, 1, H, W) float, 0 outside and 1 inside the lesion.
        soft_masks: (N, 1, H, W) float in [0, 1], probability or attention before thresholding.
        labels: class name of each case, None where unknown.
        prompts: text of each case, None where unknown.
        scores: name -> (N,) float tensor.
        rejections: None for a kept case, else the first rejection it met.
        provenance: per case, facts of its own beyond what the run's manifest says (a condition's hash, say).
    """

    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    images: Tensor | None = None
    masks: Tensor | None = None
    soft_masks: Tensor | None = None
    labels: tuple[str | None, ...] | None = None
    prompts: tuple[str | None, ...] | None = None
    scores: Mapping[str, Tensor] = field(default_factory=dict)
    rejections: tuple[Rejection | None, ...] = ()
    provenance: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        size = len(self.ids)
        if not self.rejections:
            object.__setattr__(self, "rejections", (None,) * size)
        if not self.provenance:
            object.__setattr__(self, "provenance", ({},) * size)
        columns: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("seeds", *CONTENT_COLUMNS, "rejections", "provenance")
            if getattr(self, name) is not None
        }
        columns |= {f"scores[{name}]": value for name, value in self.scores.items()}
        for name, column in columns.items():
            if len(column) != size:
                raise PluginError(f"batch column {name} has {len(column)} rows where the batch has {size} cases")
        for name, channels in (("images", 3), ("masks", 1), ("soft_masks", 1)):
            tensor = getattr(self, name)
            if tensor is not None and (tensor.ndim != 4 or tensor.shape[1] != channels):
                raise PluginError(f"batch column {name} has shape {tuple(tensor.shape)}, not (N, {channels}, H, W)")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def blank(cls, count: int, *, seed: int = 0, first: int = 0) -> Batch:
        """Return ``count`` cases without content, numbered from ``first`` in the run seeded with ``seed``."""
        indices = range(first, first + count)
        return cls(ids=tuple(map(case_id, indices)), seeds=tuple(case_seed(seed, index) for index in indices))

    @property
    def kept(self) -> tuple[bool, ...]:
        """True for each case that no filter has rejected."""
        return tuple(rejection is None for rejection in self.rejections)

    def require(self, *columns: str, stage: str) -> None:
        """Raise a :class:`PluginError` that names ``stage`` unless all ``columns`` are filled."""
        missing = [name for name in columns if getattr(self, name) is None]
        if missing:
            raise PluginError(
                f"stage {stage} needs {' and '.join(missing)}, which no earlier stage filled; "
                "put a generator or annotator that makes them before it"
            )

    def with_columns(
        self,
        *,
        images: Tensor | None = None,
        masks: Tensor | None = None,
        soft_masks: Tensor | None = None,
        labels: Sequence[str | None] | None = None,
        prompts: Sequence[str | None] | None = None,
        scores: Mapping[str, Tensor] | None = None,
        provenance: Sequence[Mapping[str, Any]] | None = None,
    ) -> Batch:
        """Return a copy in which the given columns are replaced; ``scores`` and ``provenance`` are merged in."""
        columns: dict[str, Any] = {"images": images, "masks": masks, "soft_masks": soft_masks}
        columns["labels"] = None if labels is None else tuple(labels)
        columns["prompts"] = None if prompts is None else tuple(prompts)
        changed = {name: value for name, value in columns.items() if value is not None}
        if scores:
            changed["scores"] = {**self.scores, **scores}
        if provenance is not None:
            changed["provenance"] = tuple({**old, **new} for old, new in zip(self.provenance, provenance, strict=True))
        return replace(self, **changed)

    def rejected_where(self, failed: Tensor, *, plugin: str, score: str, threshold: float) -> Batch:
        """Return a copy in which cases with ``failed`` (N,) bool are rejected by ``plugin`` because of ``score``.

        The score must already stand in ``scores``. A case that was rejected before keeps its first rejection.
        """
        values = self.scores[score].tolist()
        verdicts = zip(self.rejections, failed.tolist(), values, strict=True)
        rejections = tuple(
            Rejection(plugin, score, float(value), float(threshold)) if bad and old is None else old
            for old, bad, value in verdicts
        )
        return replace(self, rejections=rejections)

    def select(self, rows: Sequence[int]) -> Batch:
        """Return the cases at ``rows``, in that order."""
        index = list(rows)

        def pick(column: Any) -> Any:
            if column is None:
                return None
            return tuple(column[i] for i in index) if isinstance(column, tuple) else column[index]

        columns = ("ids", "seeds", *CONTENT_COLUMNS, "rejections", "provenance")
        scores = {name: value[index] for name, value in self.scores.items()}
        return Batch(**{name: pick(getattr(self, name)) for name in columns}, scores=scores)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``."""
        tensors = {name: getattr(self, name) for name in TENSOR_COLUMNS}
        moved = {name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **moved, scores={name: value.to(device) for name, value in self.scores.items()})


def case_id(index: int) -> str:
    """Return the id of case number ``index`` of a run."""
    return f"case-{index:08d}"
