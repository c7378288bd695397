"""The roles a plugin can play. A plugin is one class with one of these as its base, a ``name`` and a ``Config``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .config import PluginConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from .batch import Batch
    from .context import Context
    from .dataset import Dataset
    from .metrics import Comparison, Measurement
    from .registry import PluginEntry, Registry


class Plugin(ABC):
    """What all roles share: a public name, a typed configuration, and a set-up in which heavy imports happen.

    Attributes:
        name: public name in kebab-case, unique within the role.
        role: set by the role's base class.
        Config: the plugin's typed configuration.
    """

    name: ClassVar[str]
    role: ClassVar[str]
    Config: ClassVar[type[PluginConfig]] = PluginConfig

    def __init__(self, config: PluginConfig | None = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @classmethod
    def uses(cls, config: Any, registry: Registry) -> Sequence[PluginEntry]:
        """Return the other plugins that ``config`` names: looked up before any work, recorded with their versions.

        Raises:
            ConfigError: ``config`` does not fit one of them.
            PluginError: one of them is not there or broken.
        """
        return ()

    def setup(self, context: Context) -> None:
        """Load networks and everything heavy. Called once, before any other work."""
        self.context = context


class Stage(Plugin):
    """A role that takes part in a chain: a batch goes in, another batch comes out.

    A stage with ``needs_fit`` is fitted once on the real training split. What :meth:`fit` returns is saved as
    safetensors and hashed; every worker, resumed run and regenerated case gets it back through :meth:`load_fit`.
    A tensor named ``reference/<score>`` holds the real images' own values of that score for the report.
    """

    needs_fit: ClassVar[bool] = False

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Learn from real training cases and return named tensors; called only where ``needs_fit``."""
        raise NotImplementedError(f"{self.name} sets needs_fit but does not define fit")

    def load_fit(self, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`fit` returned, perhaps in another process."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Batch:
        """Process one batch; each role names its own method for this."""


class Generator(Stage):
    """Fills images, or masks, labels and prompts that images are made from. Must not change ids or seeds.

    The same seed gives the same bits in any order, shard or company; another batch size agrees within tolerance.
    """

    role = "generator"

    @abstractmethod
    def generate(self, batch: Batch) -> Batch:
        """Return the batch with what this generator makes, drawn from ``batch.seeds`` alone."""

    def __call__(self, batch: Batch) -> Batch:
        return self.generate(batch)


class Annotator(Stage):
    """Fills masks, soft masks, labels, prompts or scores. Must not touch images nor drop cases."""

    role = "annotator"

    @abstractmethod
    def annotate(self, batch: Batch) -> Batch:
        """Return the batch with annotations added."""

    def __call__(self, batch: Batch) -> Batch:
        return self.annotate(batch)


class Filter(Stage):
    """Fills scores and rejections. Must not touch content nor drop cases."""

    role = "filter"

    @abstractmethod
    def screen(self, batch: Batch) -> Batch:
        """Return the batch with scores added and bad cases rejected (:meth:`Batch.rejected_where`)."""

    def __call__(self, batch: Batch) -> Batch:
        return self.screen(batch)


class Trainer(Plugin):
    """Turns datasets into a checkpoint folder. Killed and resumed equals uninterrupted; never sees the test split."""

    role = "trainer"

    @abstractmethod
    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train, resuming from what ``output`` already holds, and leave the finished checkpoint there.

        ``output`` exists and belongs to this job. Curves go to ``output/curves.csv`` with a ``step`` column. What only
        a resumed training needs goes to ``output/state``, which is deleted once the job is finished.
        """

    def evaluate(self, test: Dataset, output: Path) -> Mapping[str, float]:
        """Evaluate the finished checkpoint on held-out real cases and return metrics; called once, after training.

        Per-image results go to ``output/per_image.csv``. A trainer with nothing to evaluate returns {}.
        """
        return {}


class Source(Plugin):
    """Reads a real dataset (or a phantom one) from a location."""

    role = "source"

    @abstractmethod
    def load(self, location: str | None) -> Dataset:
        """Return the dataset at ``location`` lazily: file names and tables now, pixels when asked for.

        Raises:
            DataError: nothing usable is there.
        """


class Exporter(Plugin):
    """Writes a dataset in a layout that other programs read."""

    role = "exporter"

    @abstractmethod
    def export(self, dataset: Dataset, output: Path) -> None:
        """Write all cases below ``output``, an empty folder that is published only when this returns."""


class Extractor(Plugin):
    """A trained network whose features measure how alike images are. Never randomly initialised.

    ``Config`` has at least ``model`` and ``weights``. Distances computed with an extractor carry its :attr:`label`.
    """

    role = "extractor"

    @property
    @abstractmethod
    def label(self) -> str:
        """Name for tables, such as ``segmenter encoder``; only the standard network may be called FID or LPIPS."""

    @property
    def weights_hash(self) -> str | None:
        """First eight hexadecimal digits of the weights' SHA-256; None where the extractor does not tell."""
        return None

    @property
    def channel_weights(self) -> Sequence[Tensor] | None:
        """Learned non-negative (C,) weights of each map in a perceptual distance; None counts all channels alike."""
        return None

    @abstractmethod
    def feature_maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return the network's (N, C, H, W) maps, shallow to deep, for (N, 3, H, W) images in [0, 1]."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return one (N, D) fp32 vector an image for (N, 3, H, W) images in [0, 1]."""


class Architecture(Plugin):
    """A segmentation network that the trainer builds by name: ``unet``, or ``dff-unet(width=8)`` with values.

    The module that :meth:`build` returns maps (N, 3, H, W) normalised images to (N, 1, H, W) logits of the lesion, for
    edges that are multiples of :attr:`stride`. In training mode it may return further channels, each a prediction of
    the same mask: the trainer adds half the mean of their losses. It may also have

    - ``training_loss(outputs, masks, loss)``: the scalar loss of what it returned in training mode, which may then be
      of any form, against (N, 1, H, W) masks; ``loss(logits, masks)`` is the loss that the trainer was told;
    - ``encode(images)``: the encoder's (N, C, h, w) maps, shallow to deep, for the extractor ``segmenter``;
    - ``encoder_module()``: the part that pretrained weights from a file go into.
    """

    role = "architecture"

    @property
    def stride(self) -> int:
        """Number of pixels of which the edges of images must be multiples."""
        return 1

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new network with random weights from torch's current random state; nothing is downloaded.

        Raises:
            ConfigError: values do not go together, which only building shows.
        """


class Metric(Plugin):
    """Measures how alike two datasets are, or how near the images of one are to the same cases' images in the other.

    A number bears the name that its conventions permit. A metric that does not fit raises instead of approximating.
    """

    role = "metric"
    needs_pairs: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = None
    """Which way a search goes; None where that is for the user to say."""

    def check(self, comparison: Comparison) -> None:
        """Raise what :meth:`measure` would, as far as it follows from sizes, image ids and this machine alone.

        Called after :meth:`setup`, before a search makes any case: ``comparison.second`` is a stand-in then, of as many
        images as a trial can have and with their ids, whose pixels mean nothing.
        """

    @abstractmethod
    def measure(self, comparison: Comparison) -> Measurement:
        """Return the number with its interval, sample sizes and conventions.

        Raises:
            DataError: these data do not allow it; the message says what would.
        """


STAGE_ROLES: dict[str, type[Stage]] = {role.role: role for role in (Generator, Annotator, Filter)}
ROLES: dict[str, type[Plugin]] = {
    **STAGE_ROLES,
    **{role.role: role for role in (Trainer, Source, Exporter, Extractor, Architecture, Metric)},
}
