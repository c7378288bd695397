"""Options that every source of real data has."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from ...core.config import PluginConfig
from ...core.seeding import SEED_LIMIT

DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)


class DataOptions(PluginConfig):
    """Where splits and captions come from.

    The order of precedence for splits: ``fractions`` if given; the split file; what the layout says (official
    training, validation and test folders, metadata); and where nothing assigns any, 70, 10 and 20 % by lesion [ours].
    """

    split_file: str | None = Field(
        None,
        description="CSV with columns image_id, split and optionally same_lesion_group and diagnosis; "
        "splits.csv beside the data is found by itself",
    )
    captions: str | None = Field(
        None, description="JSON with a caption for each image id; captions.json beside the data is found by itself"
    )
    fractions: tuple[float, float, float] | None = Field(
        None,
        description="train, val and test fractions of a fresh split by lesion, which replaces any other",
    )
    split_seed: int = Field(0, ge=0, lt=SEED_LIMIT, description="seed of the split made from fractions")

    @field_validator("fractions")
    @classmethod
    def _sensible(cls, value: tuple[float, float, float] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        if value is None:
            return None
        if min(value) < 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("three fractions (train, val, test) must be positive and add up to 1")
        if info.data.get("split_file"):
            raise ValueError("give either fractions or split_file, not both")
        return value
