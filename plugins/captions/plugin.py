"""DermPrompt: captions of dermoscopic images, and new prompts for images that are yet to be made.

After DiDGen, section 2.2: a sentence tells shape, size, colour and place of the lesion, the skin's tone, hair and other
marks, and keeps with its prefix to CLIP's 77 tokens. The paper has a language model look at the images; that can be any
vision-language model behind an OpenAI-compatible endpoint or in transformers. The default is ours: it measures.
No weights are downloaded unless a model is named; its licence is that of whoever publishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ...core.errors import PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Annotator, Exporter, Plugin
from .config import CaptionConfig, DescriptionConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset


class DermPrompt(Annotator):
    """Describes every image in one sentence that fits CLIP's context with its prefix; fills prompts.

    Prompts that are already there are replaced. Provenance has ``prompt_shortened`` where clauses had to be dropped.
    Without a mask the back-end ``measured`` says nothing about the lesion.
    """

    name = "derm-prompt"
    Config = DescriptionConfig

    def setup(self, context: Context) -> None:
        from .budget import PromptBudget
        from .captioners import open_captioner

        super().setup(context)
        self._budget = PromptBudget(self.config.prefix, self.config.max_tokens, self.config.terms)
        self._captioner = open_captioner(self.config, self._budget, context)

    def annotate(self, batch: Batch) -> Batch:
        """Return the batch with prompts: the reviewed caption of an image where there is one, else a new one."""
        stage = self.context.name or self.name
        if batch.images is None:
            raise PluginError(
                f"stage {stage} describes images, and there are none yet; put derm-prompt-sampler before the "
                "generator to invent prompts, or this stage behind it"
            )
        return self._budget.fill(batch, self._captioner.sentences(batch))


class DermPromptSampler(Annotator):
    """Invents a prompt for every case that has no image yet, after the real training cases; fills prompts.

    ``measured`` puts together attributes of several real cases; where the batch has masks, size, shape and place are
    those of the masks, and where it has labels, form and colour come from real cases of that class. ``endpoint`` has a
    language model write a new prompt after a few real ones.
    """

    name = "derm-prompt-sampler"
    needs_fit = True
    Config = CaptionConfig

    def setup(self, context: Context) -> None:
        from .budget import PromptBudget

        super().setup(context)
        self._stage = context.name or self.name
        self._budget = PromptBudget(self.config.prefix, self.config.max_tokens, self.config.terms)
        self._writer = None
        if self.config.backend == "endpoint":
            from .chat_captions import ChatCaptioner

            self._writer = ChatCaptioner(self.config, self._budget)

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Return attributes, classes and captions of the real cases.

        A case without a mask lends nothing of form and colour; a language model needs no attributes beside a caption.
        """
        from .recombination import RealCases

        device, progress = self.context.device, self.context.progress
        return RealCases.measured(real, device, progress, spare_captioned=self._writer is not None).state()

    def load_fit(self, state: Mapping[str, Tensor]) -> None:
        from .recombination import RealCases

        self._real = RealCases.from_state(state, self.context.device)

    def annotate(self, batch: Batch) -> Batch:
        """Return the batch with one new prompt a case, drawn from ``batch.seeds``."""
        from .wording import describe

        labels = batch.labels or (None,) * len(batch)
        if self._writer is not None:
            examples = self._real.examples(batch.seeds, labels, stream=self._stage)
            return self._budget.fill(batch, self._writer.invented(batch, examples))
        drawn = self._real.draw(batch.seeds, labels, batch.masks, stream=self._stage)
        varied = self.config.wording == "varied"
        return self._budget.fill(batch, describe(drawn, batch.seeds, varied=varied, stream=f"{self._stage} wording"))


class CaptionExporter(Exporter):
    """captions.jsonl: a sentence for each image, to be read and corrected by people, and used by derm-prompt.

    Sentences are written without the prefix and already keep to the token limit beside it.
    """

    name = "captions"

    class Config(DescriptionConfig):
        size: int = Field(256, ge=32, le=2048, description="edge in pixels at which images are looked at")

    def export(self, dataset: Dataset, output: Path) -> None:
        """Write captions.jsonl and captions.jpg, which shows up to 24 images with their captions, below ``output``."""
        from .exporting import export_captions

        export_captions(dataset, self.config, self.config.size, output)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    """Register what this module offers."""
    return [DermPrompt, DermPromptSampler, CaptionExporter]
