"""Training from coarse to fine (paper, section 3.1): G1 alone at half size, the enhancer around it, then both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import lesionforge as lf

from .checkpoint import save_checkpoint
from .conditions import TrainingPairs, randomly_flipped
from .config import GeneratorShape, ModelCard
from .network import Discriminators, GlobalGenerator, build_generator, draw_weights, halved
from .perceptual import PerceptualLoss
from .pictures import sheet
from .players import Players

if TYPE_CHECKING:
    from .plugin import Pix2PixHDTrainerConfig

SHEET_CASES = 8


def train(config: Pix2PixHDTrainerConfig, dataset: lf.Dataset, output: Path, context: lf.Context) -> None:
    """Train as ``config`` says on ``dataset`` and leave the checkpoint, curves and sample sheets in ``output``.

    Raises:
        DataError: no case has a mask, or none a label where classes are asked for.
        CheckpointError: the perceptual loss's weights cannot be used.
    """
    pairs = TrainingPairs(dataset, config.size, classes=config.classes)
    shape = config.model_dump(include=set(GeneratorShape.model_fields))
    card = ModelCard(**shape, classes=pairs.classes, dataset=dataset.name, phantom=dataset.phantom)
    training = Training(config, card, pairs, output, context)
    training.run()
    save_checkpoint(training.generator, card, output)


class Training:
    """One generator and one set of discriminators that pass through the phases.

    Attributes:
        generator: the generator to publish.
    """

    def __init__(
        self,
        config: Pix2PixHDTrainerConfig,
        card: ModelCard,
        pairs: TrainingPairs,
        output: Path,
        context: lf.Context,
    ) -> None:
        self._config, self._pairs, self._output, self._context = config, pairs, output, context
        weights = config.perceptual_weights
        self._perceptual = None if weights is None else PerceptualLoss(Path(weights))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            self.generator = build_generator(card, len(card.classes))
            self._coarse = GlobalGenerator(self.generator.features, config.width)
            self._discriminators = Discriminators(
                4 + len(card.classes),
                count=config.discriminators,
                width=config.discriminator_width,
                halvings=config.discriminator_halvings,
            )
            for network in (self.generator, self._coarse.output, self._discriminators):
                draw_weights(network)

    def run(self) -> None:
        """Go through the phases, or on from where a killed job stopped: a finished one resumes at its end."""
        config = self._config
        if config.enhancer and config.coarse_steps:
            self._phase("coarse", self._coarse, config.coarse_steps, at_half=True)
        if config.enhancer and config.enhancer_steps:
            self.generator.features.requires_grad_(False)
            self._phase("enhancer", self.generator, config.enhancer_steps)
            self.generator.features.requires_grad_(True)
        self._phase("", self.generator, config.steps)

    def _phase(self, name: str, generator: nn.Module, steps: int, *, at_half: bool = False) -> None:
        config, context = self._config, self._context
        players = Players(
            generator,
            self._discriminators,
            feature_matching_weight=config.feature_matching_weight,
            perceptual=self._perceptual,
            perceptual_weight=config.perceptual_weight,
        )
        learnt = [parameter for parameter in players.parameters() if parameter.requires_grad]
        betas = (config.beta1, config.beta2)
        # An earlier phase's own state is part of the job's, which is deleted once the job is finished.
        folder = self._output / "state" / name if name else self._output
        folder.mkdir(parents=True, exist_ok=True)
        loop = lf.TrainingLoop(
            model=players,
            optimizer=torch.optim.Adam(learnt, lr=config.learning_rate, betas=betas, fused=True),
            output=folder,
            context=context,
            steps=steps,
            batch_size=config.batch_size,
            examples=len(self._pairs),
            rate=constant_then_linear(steps, round(steps * config.decay_share)),
            checkpoint_every=config.checkpoint_every,
        )

        def losses(rows: list[int], step: int) -> Mapping[str, Tensor]:
            condition, images = self._pairs.take(rows, loop.device)
            if config.flips:
                condition, images = randomly_flipped(condition, images)
            if at_half:
                condition, images = halved(condition), halved(images)
            return loop.network(condition, images)

        loop.run(losses, snapshot=self._snapshot(name, at_half))
        if name:
            lf.write_bytes(self._output / f"curves-{name}.csv", (folder / "curves.csv").read_bytes())

    def _snapshot(self, phase: str, at_half: bool) -> lf.Snapshot | None:
        if not self._config.snapshot_every:
            return None
        folder = self._output / (f"samples-{phase}" if phase else "samples")
        rows = range(min(SHEET_CASES, len(self._pairs)))

        def take(players: nn.Module, step: int) -> None:
            condition, images = self._pairs.take(rows, self._context.device)
            if at_half:
                condition, images = halved(condition), halved(images)
            with self._context.autocast():
                made = players.get_submodule("generator")(condition)
            folder.mkdir(exist_ok=True)
            lf.write_bytes(folder / f"step-{step:08d}.png", sheet(condition[:, :1], made, images))

        return lf.Snapshot(self._config.snapshot_every, take)


def constant_then_linear(steps: int, decay: int) -> Callable[[int], float]:
    """Return the factor on the base rate: 1, then over the last ``decay`` of ``steps`` linearly towards 0."""
    return lambda step: min(1.0, (steps - step) / (decay + 1))
