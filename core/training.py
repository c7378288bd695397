"""One training loop for all methods: every step is a pure function of (seed, step), so resuming needs no RNG state."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .context import Context
from .convolutions import compute_soundly
from .durable import write_text
from .errors import ConfigError, PluginFailure
from .seeding import name_seed
from .training_state import STATE_FOLDER, Progress, copy_into, load_state, put_weights, save_state, weights_of

Losses = Callable[[list[int], int], Mapping[str, Tensor]]
CURVE_POINTS = 200


@dataclass(frozen=True)
class Validation:
    """Evaluate every ``every`` steps, keep the best weights by ``monitor``, stop after ``patience`` without gain."""

    every: int
    evaluate: Callable[[nn.Module], Mapping[str, float]]
    monitor: str
    higher_is_better: bool
    patience: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """Call ``take(model, step)`` every ``every`` steps with the weights that would be published, for sample grids.

    It runs under the context's autocast, as the losses do.
    """

    every: int
    take: Callable[[nn.Module, int], None]


def constant_rate(step: int) -> float:
    """Leave the optimizer's base rate as it is."""
    return 1.0


def cosine_rate(steps: int, warmup_steps: int) -> Callable[[int], float]:
    """Return the factor on the base rate: linear from 0 over ``warmup_steps``, then half a cosine down to 0."""

    def rate(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))

    return rate


class TrainingLoop:
    """Runs optimisation steps, checkpoints them and resumes them exactly.

    Attributes:
        network: the model as accelerate prepared it; use it inside the loss function.
        device: where batches belong.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        output: Path,
        context: Context,
        steps: int,
        batch_size: int,
        examples: int,
        rate: Callable[[int], float] = constant_rate,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        checkpoint_every: int = 500,
        channels_last: bool = True,
    ) -> None:
        """Prepare training of ``model`` for ``steps`` steps of ``batch_size`` out of ``examples`` examples.

        Parameters that are frozen by now must stay as they are: resume points do not hold them, so a resumed training
        must begin with the same ones.

        Args:
            rate: factor on the optimizer's base learning rate at each step.
            clip_norm: largest norm of the whole gradient.
            ema_decay: decay of the exponential moving average of the weights, warmed up as (1 + k) / (10 + k).
        """
        if examples < 1:
            raise ConfigError(f"training {context.name}: there is no example to train on")
        if context.device.index is not None:
            torch.cuda.set_device(context.device)  # accelerate takes the current device
        self._accelerator = Accelerator(cpu=context.device.type == "cpu")
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if context.device.type == "cpu" and context.precision == "bf16":
            compute_soundly(model)
        self.model, self._output, self._context = model, output, context
        self._states = output / STATE_FOLDER
        self.network, self._optimizer = self._accelerator.prepare(model, optimizer)
        self.device = self._accelerator.device
        self._steps, self._batch_size, self._examples = steps, batch_size, examples
        self._rate, self._clip_norm, self._checkpoint_every = rate, clip_norm, checkpoint_every
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self._ema_decay = ema_decay
        # What is frozen is neither averaged nor kept in resume points.
        self._learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._ema = None if ema_decay is None else [parameter.detach().clone() for parameter in self._learnt]
        self._best_weights: dict[str, Tensor] | None = None
        self._log_every = max(1, steps // CURVE_POINTS)
        self._state = Progress()
        self._orders: dict[int, list[int]] = {}

    def run(
        self, losses: Losses, *, validation: Validation | None = None, snapshot: Snapshot | None = None
    ) -> list[dict[str, float]]:
        """Train to the end, from the newest checkpoint if there is one, and leave the weights to publish in ``model``.

        ``losses(rows, step)`` returns the terms of one batch; ``loss`` among them is minimised. It runs under the
        context's autocast and a random state that depends on seed and step alone.

        Returns:
            The curve: one row of means per logging interval, with ``step`` first.
        """
        self._load_state()
        state = self._state
        while state.step < self._steps and not state.stopped:
            self._optimise(losses)
            state.step += 1
            row = self._log_row() if state.step % self._log_every == 0 or state.step == self._steps else {}
            if validation and (state.step % validation.every == 0 or state.step == self._steps):
                row |= self._validate(validation)
            if row:
                state.history.append({"step": state.step, **row})
            self._context.progress(state.step, self._steps, row)
            if snapshot and (state.step % snapshot.every == 0 or state.step == self._steps):
                self._take(snapshot)
            if state.step % self._checkpoint_every == 0 or state.step == self._steps or state.stopped:
                self._save_state()
        write_text(self._output / "curves.csv", curves_table(state.history))
        self._publish_weights()
        return state.history

    def rows(self, step: int) -> list[int]:
        """Return the example numbers of this process's part of the batch at ``step``: each epoch is a permutation."""
        first = step * self._batch_size
        positions = range(first, first + self._batch_size)
        chosen = [self._epoch_order(position // self._examples)[position % self._examples] for position in positions]
        return chosen[self._accelerator.process_index :: self._accelerator.num_processes]

    def _epoch_order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            self._orders = {number: order for number, order in self._orders.items() if number >= epoch - 1}
            self._orders[epoch] = self._shuffled(epoch)
        return self._orders[epoch]

    def _shuffled(self, epoch: int) -> list[int]:
        rng = torch.Generator().manual_seed(self._seed("epoch", epoch))
        return torch.randperm(self._examples, generator=rng).tolist()

    def _seed(self, purpose: str, number: int) -> int:
        process = self._accelerator.process_index if purpose == "step" else 0
        return name_seed(str(self._context.seed), self._context.name, purpose, str(number), str(process)) >> 1

    @contextmanager
    def _random_state(self, purpose: str, number: int) -> Iterator[None]:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._seed(purpose, number))
            yield

    def _optimise(self, losses: Losses) -> None:
        state = self._state
        self.network.train()
        with self._random_state("step", state.step):
            with self._context.autocast():
                terms = losses(self.rows(state.step), state.step)
            self._accelerator.backward(terms["loss"])
        if self._clip_norm is not None:
            self._accelerator.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        for group, base in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * self._rate(state.step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average_weights()
        for name, value in terms.items():
            state.window[name] = state.window.get(name, 0.0) + value.detach().double()
        state.window_steps += 1

    @torch.no_grad()
    def _average_weights(self) -> None:
        if self._ema is None or self._ema_decay is None:
            return
        step = self._state.step
        decay = min(self._ema_decay, (1 + step) / (10 + step))
        for average, parameter in zip(self._ema, self._learnt, strict=True):
            average.lerp_(parameter, 1 - decay)

    def _log_row(self) -> dict[str, float]:
        state = self._state
        row = {name: float(total) / state.window_steps for name, total in state.window.items()}
        if not math.isfinite(row["loss"]):
            raise PluginFailure(
                f"training {self._context.name} diverged before step {state.step}: its loss is not finite; "
                "lower the learning rate"
            )
        row["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        state.window, state.window_steps = {}, 0
        return row

    @contextmanager
    def _published_weights(self) -> Iterator[None]:
        """Put the averaged weights, if any, into the model for the duration of the block."""
        if self._ema is None:
            yield
            return
        trained = [parameter.detach().clone() for parameter in self._learnt]
        try:
            copy_into(self._learnt, self._ema)
            yield
        finally:
            copy_into(self._learnt, trained)

    def _validate(self, validation: Validation) -> dict[str, float]:
        state = self._state
        with self._published_weights(), torch.no_grad(), self._random_state("validation", state.step):
            self.model.eval()
            metrics = {name: float(value) for name, value in validation.evaluate(self.model).items()}
            value = metrics[validation.monitor]
            sign = 1 if validation.higher_is_better else -1
            gained = not math.isnan(value) and (state.best is None or sign * value > sign * state.best)
            if gained:
                state.best, state.since_best = value, 0
                self._best_weights = weights_of(self.model)
            else:
                state.since_best += 1
                state.stopped = validation.patience is not None and state.since_best >= validation.patience
        return metrics

    def _take(self, snapshot: Snapshot) -> None:
        with self._published_weights(), torch.no_grad(), self._random_state("snapshot", self._state.step):
            self.model.eval()
            if self._accelerator.is_main_process:
                with self._context.autocast():
                    snapshot.take(self.model, self._state.step)

    @torch.no_grad()
    def _publish_weights(self) -> None:
        if self._best_weights is not None:
            put_weights(self.model, self._best_weights)
        elif self._ema is not None:
            copy_into(self._learnt, self._ema)
        self.model.eval()

    def _save_state(self) -> None:
        if self._accelerator.is_main_process:
            averaged, best = self._ema, self._best_weights
            save_state(self._states, self._state, self.model, self._optimizer, averaged=averaged, best=best)
            write_text(self._output / "curves.csv", curves_table(self._state.history))

    def _load_state(self) -> None:
        loaded = load_state(self._states, self.model, self._optimizer, averaged=self._ema)
        if loaded is not None:
            self._state, self._best_weights = loaded


def curves_table(history: list[dict[str, float]]) -> str:
    """Return training history as CSV text with one column per logged name."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or ["step"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
