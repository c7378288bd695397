"""The grid of a study: every model in every arm, at every number of real images, with every seed and fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .settings import ArmSettings, several

if TYPE_CHECKING:
    from .recipe import Study

All = Literal["all"]


@dataclass(frozen=True)
class Amount:
    """How many synthetic cases an arm takes: a number, so many a real image, or all of them."""

    kind: Literal["count", "ratio", "all"]
    value: float = 0.0

    def of(self, real: int, available: int) -> int:
        """Return the number of cases beside ``real`` images out of ``available``."""
        if self.kind == "all":
            return available
        return int(self.value if self.kind == "count" else self.value * real + 0.5)

    @property
    def nothing(self) -> bool:
        """True where no synthetic case is taken."""
        return self.kind != "all" and self.value == 0

    def __str__(self) -> str:
        return {"count": f"{self.value:g}", "ratio": f"x{self.value:g}", "all": "all"}[self.kind]


@dataclass(frozen=True)
class Training:
    """What a network is trained on and how: equal for rows of the grid that share one training.

    Attributes:
        model: name of the model.
        real: number of real images, ``all``, or 0.
        synthetic: name of the synthetic set, or None.
        amount: how much of it.
        beside: number of real images that a ratio refers to where there are none in training.
        seed, fold: which of the repetitions.
    """

    model: str
    real: int | All
    synthetic: str | None
    amount: Amount | None
    beside: int | All | None
    seed: int
    fold: int | None


@dataclass(frozen=True)
class Row:
    """One entry of the grid as tables show it; several rows may share a training.

    Attributes:
        arm: name of the arm.
        real_count: which number of real images the arm stands at, as the study file has it.
        amount: how much of the arm's synthetic set, None for an arm without one.
    """

    model: str
    arm: str
    real_count: int | All
    synthetic: str | None
    amount: Amount | None
    seed: int
    fold: int | None
    training: Training


def amounts(arm: ArmSettings, ratios: tuple[float, ...]) -> list[Amount | None]:
    """Return the amounts of synthetic cases with which the arm is carried out, [None] without synthetic cases."""
    if arm.synthetic is None:
        return [None]
    own = several(arm.ratio) or (ratios if arm.real and arm.count is None else ())
    if own:
        return [Amount("ratio", ratio) for ratio in own]
    return [Amount("count", count) for count in several(arm.count)] or [Amount("all")]


def rows(study: Study) -> Iterator[Row]:
    """Yield the grid, seed by seed, so that an unfinished study has every arm with some seeds."""
    settings = study.settings
    for seed in settings.seeds:
        for fold in range(settings.folds) if settings.folds else (None,):
            for real_count in settings.real_counts:
                for model in study.models:
                    for arm in study.arms:
                        for amount in amounts(arm, settings.ratios):
                            yield _row(model.name, arm, amount, real_count, seed, fold)


def _row(
    model: str, arm: ArmSettings, amount: Amount | None, real_count: int | All, seed: int, fold: int | None
) -> Row:
    takes = amount is not None and not amount.nothing
    beside = real_count if takes and not arm.real and amount is not None and amount.kind == "ratio" else None
    training = Training(
        model=model,
        real=real_count if arm.real else 0,
        synthetic=arm.synthetic if takes else None,
        amount=amount if takes else None,
        beside=beside,
        seed=seed,
        # Without real images there is nothing that folds could part but the validation split.
        fold=fold,
    )
    return Row(model, arm.name, real_count, arm.synthetic, amount, seed, fold, training)


def trainings(study: Study) -> list[Training]:
    """Return what is to be trained, each once, in the order of the grid."""
    return list(dict.fromkeys(row.training for row in rows(study)))
