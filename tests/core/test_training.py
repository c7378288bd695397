from __future__ import annotations

import csv

import pytest
import torch
from safetensors.torch import load_file

from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError
from lesionforge.core.training import Snapshot, TrainingLoop, Validation

EXAMPLES = 10


class Interruption(BaseException):
    pass


def make_loop(output, **settings):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.Conv2d(4, 1, 1)
    )
    model[0].requires_grad_(not settings.pop("frozen", False))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    settings = {"steps": 30, "batch_size": 4, "checkpoint_every": 7, **settings}
    precision = settings.pop("precision", "fp32")
    progress = settings.pop("progress", lambda *report: None)
    context = Context(torch.device("cpu"), precision, "job", seed=1, progress=progress)
    return TrainingLoop(model=model, optimizer=optimizer, output=output, context=context, examples=EXAMPLES, **settings)


def train(output, stop_at=None, validation=None, **settings):
    loop = make_loop(output, **settings)

    def losses(rows, step):
        if step == stop_at:
            raise Interruption
        images = torch.randn(len(rows), 1, 8, 8)
        return {"loss": (loop.network(images) - images).square().mean(), "rows": torch.tensor(float(sum(rows)))}

    history = loop.run(losses, validation=validation)
    return loop.model.state_dict(), history


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("frozen", [False, True])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, precision, ema_decay, frozen):
    validation = Validation(5, lambda model: {"v": float(model(torch.ones(1, 1, 8, 8)).mean())}, "v", True)
    settings = {"precision": precision, "ema_decay": ema_decay, "validation": validation, "clip_norm": 1.0}
    settings["frozen"] = frozen
    whole, curve = train(tmp_path / "whole", **settings)
    for stop in (3, 16, 29):
        with pytest.raises(Interruption):
            train(tmp_path / "broken", stop_at=stop, **settings)
    resumed, resumed_curve = train(tmp_path / "broken", **settings)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert curve == resumed_curve
    assert (tmp_path / "whole/curves.csv").read_bytes() == (tmp_path / "broken/curves.csv").read_bytes()


def test_every_epoch_is_a_permutation(tmp_path):
    loop = make_loop(tmp_path)
    seen = [row for step in range(5) for row in loop.rows(step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(EXAMPLES))
    assert seen[:10] != seen[10:] and all(len(loop.rows(step)) == 4 for step in range(9))


def test_average_of_weights_is_the_literal_recursion(tmp_path):
    trajectory, published = [], []
    loop = make_loop(tmp_path, ema_decay=0.5, steps=6, progress=lambda *report: trajectory.append(weights()))
    parameter = next(loop.model.parameters())

    def weights():
        return parameter.detach().double().clone()

    average = weights()
    snapshot = Snapshot(6, lambda model, step: published.append(weights()))
    loop.run(lambda rows, step: {"loss": loop.network(torch.randn(4, 1, 8, 8)).square().mean()}, snapshot=snapshot)
    assert len(trajectory) == 6 and len(published) == 1
    for step, trained in enumerate(trajectory):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * trained
    assert (published[0] - average).abs().max() < 1e-6
    assert (published[0] - trajectory[-1]).abs().max() > 1e-4


def test_frozen_parameters_are_neither_kept_nor_averaged(tmp_path):
    settings = {"ema_decay": 0.9, "validation": Validation(5, lambda model: {"v": 1.0}, "v", True)}
    before = make_loop(tmp_path / "untrained").model[0].weight.detach().clone()
    weights, _ = train(tmp_path / "part", frozen=True, **settings)
    train(tmp_path / "whole", **settings)
    assert torch.equal(weights["0.weight"], before)
    learnt, buffers = {"1.weight", "1.bias", "3.weight", "3.bias"}, {"1.running_mean", "1.running_var"}
    for file, names in (("model", learnt | buffers | {"1.num_batches_tracked"}), ("averaged", learnt)):
        part, whole = (load_file(next(tmp_path.glob(f"{run}/state/*/{file}.safetensors"))) for run in ("part", "whole"))
        assert len(part) == len(names) and len(whole) == len(names) + 2
        assert file == "averaged" or set(part) == names
    best = load_file(next((tmp_path / "part/state").glob("*/best.safetensors")))
    assert "0.weight" not in best and "3.weight" in best
    with pytest.raises(CheckpointError, match="other weights than the model learns"):
        train(tmp_path / "part", **settings)


def test_best_weights_are_published_and_patience_stops(tmp_path):
    values = iter([1.0, 3.0, 2.0, 1.0, 9.0])
    kept = []

    def evaluate(model):
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"v": next(values)}

    weights, history = train(tmp_path, validation=Validation(2, evaluate, "v", True, patience=2))
    assert len(kept) == 4 and all(torch.equal(weights[name], kept[1][name]) for name in weights)
    assert history[-1]["step"] == 8


def test_rate_follows_the_schedule_and_curves_are_tidy(tmp_path):
    train(tmp_path, rate=lambda step: 1 / (1 + step))
    rows = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    assert float(rows[9]["learning_rate"]) == pytest.approx(1e-2 / 10)


def test_a_damaged_or_foreign_state_is_one_clear_line(tmp_path):
    train(tmp_path, steps=8)
    weights = next(tmp_path.glob("state/step-*/model.safetensors"))
    weights.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="delete the folder to start this training again") as caught:
        train(tmp_path, steps=8)
    assert "\n" not in str(caught.value)


def test_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    loop = make_loop(tmp_path, steps=3)
    state = torch.get_rng_state()
    loop.run(lambda rows, step: {"loss": loop.network(torch.randn(4, 1, 8, 8)).mean()})
    assert torch.equal(state, torch.get_rng_state())
