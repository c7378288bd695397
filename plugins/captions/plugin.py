"""DermPrompt: captions of dermoscopic images, and new prompts for images that are yet to be made.

After DiDGen, section 2.2: a sentence tells shape, size, colour and place of the lesion, the skin's tone, hair and other
marks, and keeps with its prefix to CLIP's 77 tokens. The paper has a language model look at the images; that can be any
vision-language model behind an OpenAI-compatible endpoint or in transformers. The default is ours: it measures.
No weights are downloaded unless a model is named; its licence is that of whoever publishes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.hookspecs import hookimpl
from ...core.roles import Annotator, Plugin
from .config import DescriptionConfig

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context


class DermPrompt(Annotator):
    """Describes every image in one sentence that fits CLIP's context with its prefix; fills prompts.

    Prompts that are already there are replaced. Provenance has ``prompt_shortened`` where clauses had to be dropped.
    """

    name = "derm-prompt"
    Config = DescriptionConfig

    def setup(self, context: Context) -> None:
        from .budget import PromptBudget
        from .captioners import open_captioner
        from .reviewed import read_captions

        super().setup(context)
        self._reviewed = read_captions(Path(self.config.captions)) if self.config.captions else {}
        self._budget = PromptBudget(self.config.prefix, self.config.max_tokens)
        self._captioner = open_captioner(self.config, context)

    def annotate(self, batch: Batch) -> Batch:
        """Return the batch with prompts: the reviewed caption of an image where there is one, else a new one."""
        batch.require("images", stage=self.context.name or self.name)
        rows = [row for row, image_id in enumerate(batch.ids) if image_id not in self._reviewed]
        new = self._captioner.sentences(batch.select(rows)) if rows else []
        sentences = self._reviewed | {batch.ids[row]: sentence for row, sentence in zip(rows, new, strict=True)}
        return self._budget.fill(batch, [sentences[image_id] for image_id in batch.ids])


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    """Register what this module offers."""
    return [DermPrompt]
