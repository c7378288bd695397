from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn import metrics as sk

from lesionforge.core.config import build_config
from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import CheckpointError, ConfigError, DataError
from lesionforge.plugins.classification.classifier import load_classifier
from lesionforge.plugins.classification.config import ClassificationConfig
from lesionforge.plugins.classification.networks import build_network
from lesionforge.plugins.classification.trainer import initial_classifier
from lesionforge.testing import assert_contract

from .conftest import TINY, tinted


class Killed(BaseException):
    pass


def kill_after(step: int):
    def progress(done, total, metrics):
        if done >= step:
            raise Killed

    return progress


def read_table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def labelled_as(data: Dataset, label: str | None, *rows: int) -> Dataset:
    records = (replace(record, label=label) if row in rows else record for row, record in enumerate(data.records))
    return replace(data, records=tuple(records))


def test_learns_tints_and_reports_what_it_measured(discs, make_trainer, tmp_path):
    test = labelled_as(tinted(11, seed=9), None, 4)
    trainer = make_trainer(steps=40, learning_rate=3e-3, validate_every=20, class_weights="balanced", colour=0.0)
    trainer.train(discs.split("train"), discs.split("val"), tmp_path)
    metrics = trainer.evaluate(test, tmp_path)
    assert set(metrics) == {
        *("accuracy", "sensitivity", "specificity", "precision", "f1_macro", "f1_micro", "f1_weighted", "auroc"),
        *("ece", "ece_uncalibrated", "log_loss", "temperature", "parameters", "unlabelled", "classes_absent"),
    }
    assert metrics["accuracy"] >= 0.8 and metrics["unlabelled"] == 1 and metrics["classes_absent"] == 0
    assert all(isinstance(value, float) for value in metrics.values())

    table = read_table(tmp_path / "per_image.csv")
    assert [row["image_id"] for row in table] == [record.image_id for record in test.records if record.label]
    truth, predicted = [row["label"] for row in table], [row["predicted"] for row in table]
    assert [row["correct"] for row in table] == [str(int(a == b)) for a, b in zip(truth, predicted, strict=True)]
    assert metrics["f1_macro"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    of_nevus = np.array([float(row["probability_nevus"]) for row in table])
    assert np.allclose(of_nevus + [float(row["probability_melanoma"]) for row in table], 1)
    assert metrics["auroc"] == pytest.approx(sk.roc_auc_score([name == "nevus" for name in truth], of_nevus))
    by_class = read_table(tmp_path / "per_class.csv")
    assert [(row["class"], row["images"]) for row in by_class] == [("melanoma", "5"), ("nevus", "5")]
    counts = [[int(row[name]) for name in ("melanoma", "nevus")] for row in read_table(tmp_path / "confusion.csv")]
    assert counts == sk.confusion_matrix(truth, predicted, labels=["melanoma", "nevus"]).tolist()

    classifier, info = load_classifier(tmp_path)
    assert (info.dataset, info.phantom, info.classes, info.cases) == ("discs", True, ("melanoma", "nevus"), (8, 8))
    assert info.calibrated and info.temperature == metrics["temperature"]
    batch = test.where(lambda record: record.label is not None).fetch(range(10))
    with torch.no_grad():
        again = (classifier(batch.images).double() / info.temperature).softmax(1)[:, 1]
    assert np.allclose(again.numpy(), of_nevus, atol=1e-5)
    curve = [row for row in read_table(tmp_path / "curves.csv") if row["val_f1_macro"]]
    assert [row["step"] for row in curve] == ["20", "40"]
    assert all(float(row[name]) >= 0 for row in curve for name in ("val_auroc", "val_loss", "val_accuracy"))


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "timm:test_vit", "monitor": "auroc", "class_weights": "balanced"},
        {"loss": "focal", "optimizer": "rmsprop", "monitor": "loss", "schedule": "constant"},
    ],
)
def test_killed_and_resumed_equals_uninterrupted(discs, make_trainer, tmp_path, values):
    values = {"steps": 9, "checkpoint_every": 2, "batch_size": 5, "validate_every": 3, **values}
    train, val = discs.split("train"), discs.split("val")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    make_trainer(**values).train(train, val, whole)
    for step in (3, 4, 7):
        with pytest.raises(Killed):
            make_trainer(kill_after(step), **values).train(train, val, broken)
    make_trainer(**values).train(train, val, broken)
    for name in ("model.safetensors", "config.json", "curves.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def test_keeps_the_contract_of_its_role():
    assert_contract('classification(architecture="timm:test_resnet", size=32, steps=6, checkpoint_every=2)')


def test_stops_early_and_publishes_the_best_weights(discs, make_trainer, tmp_path):
    steps = []
    trainer = make_trainer(
        lambda done, total, metrics: steps.append(done), learning_rate=1e-12, steps=50, validate_every=2, patience=3
    )
    trainer.train(discs.split("train"), discs.split("val"), tmp_path)
    best = max(float(row["val_f1_macro"]) for row in read_table(tmp_path / "curves.csv") if row["val_f1_macro"])
    assert 8 <= steps[-1] < 50
    assert trainer.evaluate(discs.split("val"), tmp_path)["f1_macro"] == pytest.approx(best)


@pytest.mark.parametrize(("count", "batch_size"), [(2, 1), (3, 7)])
def test_few_cases_and_no_val_are_handled(make_trainer, tmp_path, count, batch_size):
    trainer = make_trainer(epochs=2, batch_size=batch_size)
    trainer.train(tinted(count), None, tmp_path)
    info = load_classifier(tmp_path)[1]
    assert (info.temperature, info.calibrated) == (1.0, False)
    metrics = trainer.evaluate(labelled_as(tinted(2), "nevus", 0, 1), tmp_path)
    assert metrics["classes_absent"] == 1 and math.isnan(metrics["auroc"]) and math.isnan(metrics["specificity"])
    assert math.isfinite(metrics["f1_macro"])


def test_labels_that_cannot_be_used_are_refused_before_any_work(discs, make_trainer, tmp_path):
    everything = range(len(discs))
    trainer = make_trainer(steps=1)
    with pytest.raises(DataError, match="training a classifier needs labels, but none of the 24 images"):
        trainer.train(labelled_as(discs, None, *everything), None, tmp_path)
    with pytest.raises(DataError, match="are of one class, nevus"):
        trainer.train(labelled_as(discs, "nevus", *everything), None, tmp_path)
    with pytest.raises(DataError, match=r"validating a classifier: image 'disc-003' .* 'wart', none of the classes"):
        trainer.train(discs, labelled_as(discs, "wart", 3), tmp_path)
    with pytest.raises(DataError, match=r"training a classifier: image 'disc-000' .* none of the classes a, b"):
        make_trainer(steps=1, classes=["a", "b"]).train(discs, None, tmp_path)
    with pytest.raises(ConfigError, match="class_weights names nevus"):
        make_trainer(steps=1, class_weights={"nevus": 1}).train(discs, None, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="no classification checkpoint"):
        trainer.evaluate(discs, tmp_path)


def test_named_classes_keep_their_order_and_one_may_be_missing_from_training(discs, make_trainer, tmp_path):
    classes = ("wart", "nevus", "melanoma")
    trainer = make_trainer(steps=2, classes=classes, class_weights="balanced", label_smoothing=0.1)
    trainer.train(discs, None, tmp_path)
    info = load_classifier(tmp_path)[1]
    assert (info.classes, info.cases) == (classes, (0, 12, 12))
    assert trainer.evaluate(labelled_as(discs, "wart", 0), tmp_path)["classes_absent"] == 0


def test_pretrained_weights_come_from_a_local_file(discs, make_trainer, tmp_path):
    torch.manual_seed(5)
    source = build_network(build_config(ClassificationConfig, TINY, where="test"), 1000)
    save_file(source.network.state_dict(), tmp_path / "weights.safetensors")
    values = {"steps": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
    make_trainer(**values, weights=str(tmp_path / "weights.safetensors")).train(discs, None, tmp_path)
    trained = load_classifier(tmp_path)[0].network
    assert torch.equal(trained.network.conv1[0].weight, source.network.conv1[0].weight)
    assert trained.last_layer.out_features == 2
    with pytest.raises(CheckpointError, match="does not exist"):
        make_trainer(steps=1, weights=str(tmp_path / "absent.pth")).train(discs, None, tmp_path)


def test_arms_with_one_seed_start_from_the_same_weights():
    config = build_config(ClassificationConfig, TINY, where="test")
    random_state = torch.get_rng_state()
    one, again, other = (initial_classifier(config, 2, seed).state_dict() for seed in (1, 1, 2**64 - 1))
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["network.network.fc.weight"], other["network.network.fc.weight"])


def test_images_too_small_for_a_network_are_named_at_once():
    config = build_config(ClassificationConfig, {"architecture": "squeezenet1_1", "size": 16}, where="test")
    with pytest.raises(ConfigError, match="squeezenet1_1 cannot take images of 16 pixels") as caught:
        initial_classifier(config, 2, 0)
    assert "\n" not in str(caught.value)
