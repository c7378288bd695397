"""Procedural dermoscopic phantoms: drawings of skin and lesions with exact masks and labels, as source and generator.

They make tests fast, and give a first run without any data. They are not realistic: their classes differ in documented,
invented ways (see ``phantoms.anatomy.PROFILES``), and no result on them says anything about patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field, field_validator, model_validator

from ...core.config import PluginConfig
from ...core.errors import DataError, PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin, Source
from ...core.seeding import SEED_LIMIT, case_seed, name_seed

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.dataset import Dataset, Record

CLASSES = ("nevus", "melanoma", "seborrheic_keratosis")
RENDER_BATCH = 32


class Look(PluginConfig):
    """How phantoms look. Strengths multiply what a class draws: 0 switches a feature off, 1 is its usual strength."""

    nevus: float = Field(0.6, ge=0, description="relative frequency of the class nevus")
    melanoma: float = Field(0.2, ge=0, description="relative frequency of the class melanoma")
    seborrheic_keratosis: float = Field(0.2, ge=0, description="relative frequency of the class seborrheic_keratosis")
    area_min: float = Field(0.04, ge=0.01, le=0.9, description="smallest share of the image that a lesion covers")
    area_max: float = Field(0.55, ge=0.01, le=0.9, description="largest share of the image that a lesion covers")
    border_touch: float = Field(0.1, ge=0, le=1, description="probability that the image's border cuts the lesion")
    ita_min: float = Field(-20.0, ge=-60, le=70, description="darkest skin, individual typology angle in degrees")
    ita_max: float = Field(65.0, ge=-60, le=70, description="lightest skin, individual typology angle in degrees")
    irregularity: float = Field(1.0, ge=0, le=1.5, description="strength of the outline's waves and dents")
    softness: float = Field(1.0, ge=0.1, le=2, description="width of the lesion's edge")
    contrast: float = Field(1.0, ge=0.5, le=2, description="optical density of the lesion")
    colours: float = Field(1.0, ge=0, le=1.5, description="strength and number of further colours")
    network: float = Field(1.0, ge=0, le=2, description="strength of the pigment network")
    dots: float = Field(1.0, ge=0, le=2, description="strength of dots and globules")
    milia: float = Field(1.0, ge=0, le=2, description="strength of milia-like cysts and comedo-like openings")
    texture: float = Field(1.0, ge=0, le=2, description="strength of the skin's texture")
    hair: float = Field(0.35, ge=0, le=1, description="probability of hairs")
    ruler: float = Field(0.12, ge=0, le=1, description="probability of a ruler")
    bubbles: float = Field(0.15, ge=0, le=1, description="probability of gel bubbles")
    field_of_view: float = Field(
        0.12, ge=0, le=1, description="probability of a black rim around a round field of view"
    )
    vignette: float = Field(1.0, ge=0, le=2, description="strength of the darkening towards the corners")
    illumination: float = Field(1.0, ge=0, le=2, description="strength of uneven light and of colour casts")
    blur: float = Field(1.0, ge=0, le=2, description="strength of defocus")
    noise: float = Field(1.0, ge=0, le=2, description="strength of sensor noise")

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        if not any(self.class_weights):
            raise ValueError("at least one of nevus, melanoma and seborrheic_keratosis must be above 0")
        if self.area_min > self.area_max:
            raise ValueError(f"area_min {self.area_min} must not be above area_max {self.area_max}")
        if self.ita_min > self.ita_max:
            raise ValueError(f"ita_min {self.ita_min} must not be above ita_max {self.ita_max}")
        return self

    @property
    def class_weights(self) -> tuple[float, float, float]:
        """Relative frequencies in the order of ``CLASSES``."""
        return self.nevus, self.melanoma, self.seborrheic_keratosis

    @property
    def trait_strengths(self) -> Mapping[str, float]:
        """What multiplies each trait of ``phantoms.anatomy.PROFILES``."""
        return {
            **dict.fromkeys(("lobes", "jags", "notch"), self.irregularity),
            **dict.fromkeys(("mottle", "drift", "core", "patches", "blush"), self.colours),
            **dict.fromkeys(("milia", "comedones"), self.milia),
            "softness": self.softness,
            "melanin": self.contrast,
            "network": self.network,
            "dots": self.dots,
        }


class PhantomGenerator(Generator):
    """Fills images, masks and labels with phantoms drawn from the cases' seeds.

    A case whose label is already there gets a phantom of that class. Provenance records ``phantom`` and ``skin_ita``,
    the skin's individual typology angle in degrees.
    """

    name = "phantom"

    class Config(Look):
        size: int = Field(64, ge=32, le=1024, description="edge of the images in pixels")

    def generate(self, batch: Batch) -> Batch:
        """Return the batch with images (N, 3, size, size), masks (N, 1, size, size), labels and provenance.

        Raises:
            PluginError: a label is there that no phantom class has.
        """
        from ...kernels import stream_of
        from .phantoms.rendering import render

        phantoms = render(
            batch.seeds,
            batch.seeds,
            self._class_numbers(batch.labels or (None,) * len(batch)),
            self.config,
            size=self.config.size,
            stream=stream_of(self.context.name),
            device=self.context.device,
        )
        return batch.with_columns(
            images=phantoms.images,
            masks=phantoms.masks,
            labels=[CLASSES[number] for number in phantoms.labels.tolist()],
            provenance=[{"phantom": True, "skin_ita": round(ita, 1)} for ita in phantoms.ita.tolist()],
        )

    def _class_numbers(self, labels: Sequence[str | None]) -> list[int | None]:
        unknown = sorted({label for label in labels if label is not None and label not in CLASSES})
        if unknown:
            raise PluginError(
                f"stage {self.context.name}: no phantom looks like {unknown[0]!r}; classes are {', '.join(CLASSES)}"
            )
        return [None if label is None else CLASSES.index(label) for label in labels]


class PhantomSource(Source):
    """A dataset of phantoms, held in memory, with splits that keep photographs of one lesion together.

    Rendered on the CPU, so that the data are the same on every machine with the same torch.
    """

    name = "phantom"

    class Config(Look):
        count: int = Field(200, ge=1, le=100_000, description="number of images")
        size: int = Field(64, ge=32, le=1024, description="edge of the images in pixels")
        seed: int = Field(0, ge=0, lt=SEED_LIMIT, description="seed of the whole dataset")
        repeats: float = Field(
            0.1, ge=0, le=1, description="probability that an image shows the lesion before it again"
        )
        fractions: tuple[float, float, float] = Field(
            (0.65, 0.15, 0.2), description="train, val and test fractions; photographs of one lesion stay together"
        )

        @field_validator("fractions")
        @classmethod
        def _add_up(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
            if min(value) < 0 or abs(sum(value) - 1) > 1e-6:
                raise ValueError("three fractions (train, val, test) must be positive and add up to 1")
            return value

    def load(self, location: str | None) -> Dataset:
        """Render and return the dataset, marked as phantom; record metadata holds ``skin_ita`` in degrees.

        Raises:
            DataError: a location is given, though phantoms have none.
        """
        from ...core.dataset import SPLITS, Dataset
        from ...core.splitting import grouped_split

        if location is not None:
            raise DataError(f"phantom is made, not read, and takes no location; drop {location!r}")
        config = self.config
        lesions = self._lesions()
        batches = (
            range(first, min(first + RENDER_BATCH, config.count)) for first in range(0, config.count, RENDER_BATCH)
        )
        records = tuple(record for rows in batches for record in self._records(rows, lesions))
        shares: dict[str, float] = dict(zip(SPLITS, config.fractions, strict=True))
        return grouped_split(Dataset("phantom", records, phantom=True), shares, seed=config.seed)

    def _lesions(self) -> list[int]:
        """Return for each image the number of the image that showed its lesion first; at most two show one."""
        lesions: list[int] = []
        for row in range(self.config.count):
            again = name_seed("phantom-repeat", str(self.config.seed), str(row)) < self.config.repeats * SEED_LIMIT
            lesions.append(row - 1 if again and row and lesions[-1] == row - 1 else row)
        return lesions

    def _records(self, rows: range, lesions: Sequence[int]) -> list[Record]:
        import torch

        from ...core.dataset import Record
        from ...kernels import stream_of
        from .phantoms.rendering import render

        phantoms = render(
            [case_seed(self.config.seed, lesions[row]) for row in rows],
            [case_seed(self.config.seed, row) for row in rows],
            [None] * len(rows),
            self.config,
            size=self.config.size,
            stream=stream_of("phantom source"),  # not a stage's: generated cases must never repeat these
            device=torch.device("cpu"),
        )
        images = (phantoms.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        masks = phantoms.masks[:, 0].to(torch.uint8).numpy()
        return [
            Record(
                image_id=f"phantom-{row:06d}",
                image=images[place],
                mask=masks[place],
                label=CLASSES[phantoms.labels[place]],
                group=f"lesion-{lesions[row]:06d}",
                metadata={"skin_ita": f"{phantoms.ita[place]:.1f}"},
            )
            for place, row in enumerate(rows)
        ]


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [PhantomSource, PhantomGenerator]
