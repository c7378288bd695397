"""Captions that a training learns from: those that come with the data, or those that annotators write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from ...core.chain import Chain
from ...core.config import checkpoint_fields
from ...core.errors import ConfigError, DataError
from ...core.roles import Annotator

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset

BATCH = 32


def _is_a_chain(captioner: str) -> str:
    try:
        if captioner:
            Chain.parse(captioner)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return captioner


CaptionerName = Annotated[str, AfterValidator(_is_a_chain)]
"""A setting that names a chain of annotators, or is empty for the captions that come with the data."""


def check_captioner(captioner: str, context: Context) -> None:
    """Look the annotators up before any work.

    Raises:
        ConfigError: a setting is wrong, a stage is no annotator, or one refers to a job of the recipe.
        PluginError: one is unknown or broken.
    """
    if not captioner:
        return
    from ...core.recipe import JOB_REFERENCE
    from ...core.registry import default_registry

    chain = Chain.parse(captioner)
    stages = chain.build(context.registry or default_registry())
    for (key, stage), written in zip(stages.items(), chain.stages, strict=True):
        if not isinstance(stage, Annotator):
            raise ConfigError(f"{context.name}: captioner: {key} is a {stage.role}, not an annotator")
        for name in checkpoint_fields(stage.Config):
            if str(written.values.get(name)).startswith(JOB_REFERENCE):
                raise ConfigError(
                    f"{context.name}: captioner: {key} cannot take {name} = {written.values[name]!r}, since captions "
                    "are written outside the recipe's jobs; give the folder of a finished training"
                )


class Captioner:
    """Annotators that are set up once and caption datasets."""

    def __init__(self, captioner: str, context: Context) -> None:
        """Set up the chain ``captioner``, such as ``derm-prompt``; empty takes the captions that come with the data."""
        from ...core.execution import set_up

        self._name, self._context = captioner, context
        self._stages = {}
        if captioner:
            self._stages = set_up(
                Chain.parse(captioner),
                device=context.device,
                precision=context.precision,
                seed=context.seed,
                registry=context.registry,
            )

    def captions(
        self,
        dataset: Dataset,
        *,
        prepare: Callable[[Batch], Batch] = lambda batch: batch,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """Return one caption an image, in the dataset's order.

        Args:
            prepare: applied to every batch before it is captioned, to mirror it, say.
            progress: called with the number of images done.

        Raises:
            DataError: an image gets no caption.
        """
        captions: list[str | None] = []
        if self._name:
            for batch in dataset.batches(BATCH, masks="filled"):
                batch = prepare(batch).to(self._context.device)
                for stage in self._stages.values():
                    batch = stage(batch)
                captions += batch.prompts or [None] * len(batch)
                progress(len(captions))
        else:
            captions += [record.caption for record in dataset.records]
        for image_id, caption in zip(dataset.ids, captions, strict=True):
            if not caption:
                source = f"captioner {self._name!r} gave" if self._name else f"dataset {dataset.name} has"
                raise DataError(f"{source} no caption for image {image_id!r}; every training image needs one")
        return [str(caption) for caption in captions]
