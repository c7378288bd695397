"""The layout of a study file: its tables and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..config import PluginConfig
from ..recipe_file import DataSettings
from ..seeding import SEED_LIMIT

Ratio = Annotated[float, Field(ge=0, le=1000)]
Count = Annotated[int, Field(ge=0)]
RealCount = Annotated[int, Field(ge=1)] | Literal["all"]


class StudySettings(PluginConfig):
    """What all arms of a study share."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=SEED_LIMIT)], ...] = Field(
        (0, 1, 2), description="seeds; each decides on initial weights, order, augmentation and subsets of every arm"
    )
    budget: Literal["steps", "epochs"] = Field(
        "steps", description="what is equal in all arms: optimisation steps, or passes over the training cases"
    )
    real_counts: tuple[RealCount, ...] = Field(
        ("all",), description="numbers of real training images, or all; smaller sets are parts of larger ones"
    )
    ratios: tuple[Ratio, ...] = Field(
        (), description="synthetic per real image, for arms of both that name neither ratio nor count"
    )
    folds: int | None = Field(
        None, ge=2, le=20, description="parts of train and val, each of which validates once; the test split stays"
    )
    validation: bool = Field(True, description="whether the val split chooses the weights; else the last ones count")
    compare: tuple[tuple[str, str], ...] = Field(
        (), description="further pairs of arms to compare, each [arm, against]"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of networks in trainings")

    @field_validator("seeds", "real_counts")
    @classmethod
    def _are_distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("at least one is needed, and none twice")
        return value


class SyntheticSet(PluginConfig):
    """Where synthetic cases come from: exactly one of run, recipe and data."""

    run: str | None = Field(None, description="a run folder, whose accepted cases are meant")
    recipe: str | None = Field(None, description="a recipe, file or built-in, that the study carries out itself")
    data: str | None = Field(None, description="any data specification; its origin is not known")
    set: Mapping[str, Any] = Field(default_factory=dict, description="recipe: values to replace, by path as in --set")
    trained_on: str | None = Field(
        None, description="recipe: data specification instead of the study's own training and validation splits"
    )
    deleak: bool = Field(True, description="trained_on: leave out what the study tests on; false needs --allow-leak")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(origin is not None for origin in (self.run, self.recipe, self.data)) != 1:
            raise ValueError("exactly one of run, recipe and data is needed")
        if self.recipe is None and (self.set or self.trained_on is not None):
            raise ValueError("set and trained_on go with recipe alone")
        return self


class ArmSettings(PluginConfig):
    """One kind of training data."""

    name: str = Field(min_length=1, description="name in tables")
    real: bool = Field(False, description="train on real images")
    synthetic: str | None = Field(None, description="train on cases of this synthetic set")
    ratio: Ratio | tuple[Ratio, ...] | None = Field(None, description="synthetic cases per real image, one or several")
    count: Count | tuple[Count, ...] | None = Field(None, description="synthetic cases, one number or several")

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if not self.real and self.synthetic is None:
            raise ValueError("an arm needs real = true, synthetic = NAME, or both")
        if self.synthetic is None and (self.ratio is not None or self.count is not None):
            raise ValueError("ratio and count go with synthetic")
        if self.ratio is not None and self.count is not None:
            raise ValueError("give ratio or count, not both")
        if not self.real and 0 in (*several(self.ratio), *several(self.count)):
            raise ValueError("an arm without real images needs synthetic ones")
        return self


class ExternalSet(PluginConfig):
    """One further test set."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name in tables, and of a folder")
    data: str = Field(description="data specification such as ph2:PATH")
    split: Literal["train", "val", "test"] | None = Field(None, description="only this split of it")
    deleak: bool = Field(
        True, description="leave out images that trainings or generators saw; false needs --allow-leak"
    )


class StudyFile(PluginConfig):
    """All that a study file may hold; values of models are those of their trainers."""

    name: str = "study"
    description: str = ""
    study: StudySettings
    data: DataSettings = Field(default_factory=lambda: DataSettings.model_validate({}))
    synthetic: dict[str, SyntheticSet] = Field(default_factory=dict)
    model: dict[str, dict[str, Any]] = Field(default_factory=dict)
    arm: list[ArmSettings] = Field(default_factory=list)
    external: list[ExternalSet] = Field(default_factory=list)


def several(value: float | Sequence[float] | None) -> tuple[float, ...]:
    """Return a value that may be one, several or none as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) else (value,)
