from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from lesionforge.core.config import build_config, checkpoint_fields
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, ConfigError, PluginError
from lesionforge.plugins.classification.classifier import load_classifier
from lesionforge.plugins.classification.plugin import (
    Agreement,
    ClassificationTrainer,
    ClassifierAnnotator,
    ClassifierExtractor,
)
from lesionforge.testing import assert_contract, disc_dataset


def ready(plugin, **values):
    made = plugin(build_config(plugin.Config, values, where="test"))
    made.setup(Context(torch.device("cpu"), name="stage"))
    return made


def batch_of(*labels):
    batch = disc_dataset(len(labels), 32).fetch(range(len(labels)))
    return batch.with_columns(labels=labels)


@pytest.fixture
def checkpoint(publish):
    return publish(temperature=2.0)


def expected(checkpoint, images):
    classifier, info = load_classifier(checkpoint)
    with torch.no_grad():
        return (classifier(images) / info.temperature).softmax(1)


@pytest.mark.parametrize("stage", ["annotator classifier", "filter agreement", "extractor classifier"])
def test_stages_keep_the_contract_of_their_role(checkpoint, stage):
    role, name = stage.split()
    key = "weights" if role == "extractor" else "checkpoint"
    assert_contract(f'{name}({key}="{checkpoint}")', role=role)


def test_annotator_fills_what_is_missing_unless_told_otherwise(checkpoint):
    batch = batch_of("wart", None, "nevus", None)
    probabilities = expected(checkpoint, batch.images)
    named = [("melanoma", "nevus")[number] for number in probabilities.argmax(1)]
    assert len(set(named)) == 2
    found = {
        kind: ready(ClassifierAnnotator, checkpoint=str(checkpoint), labels=kind).annotate(batch)
        for kind in ("missing", "all", "none")
    }
    assert found["missing"].labels == ("wart", named[1], "nevus", named[3])
    assert found["all"].labels == tuple(named) and found["none"].labels == batch.labels
    for annotated in found.values():
        assert torch.allclose(annotated.scores["classifier_confidence"], probabilities.amax(1), atol=1e-6)
    bare = disc_dataset(4, 48).fetch(range(4))
    assert ready(ClassifierAnnotator, checkpoint=str(checkpoint)).annotate(bare).labels == bare.labels


def test_agreement_turns_down_labels_that_another_class_beats(checkpoint):
    batch = batch_of(*["melanoma", "nevus"] * 4)
    probabilities = expected(checkpoint, batch.images)
    rows = torch.arange(8)
    of_label = probabilities[rows, rows % 2]
    screened = ready(Agreement, checkpoint=str(checkpoint)).screen(batch)
    assert torch.allclose(screened.scores["label_probability"], of_label, atol=1e-6)
    assert torch.allclose(screened.scores["label_margin"], 2 * of_label - 1, atol=1e-6)
    assert list(screened.kept) == (probabilities.argmax(1) == rows % 2).tolist()
    assert 0 < sum(screened.kept) < 8
    rejection = next(filter(None, screened.rejections))
    assert (rejection.plugin, rejection.score, rejection.threshold) == ("stage", "label_margin", 0.0)
    strict = ready(Agreement, checkpoint=str(checkpoint), min_margin=0.99).screen(batch)
    assert list(strict.kept) == (2 * of_label - 1 >= 0.99).tolist()


@pytest.mark.parametrize("label", ["wart", None])
def test_agreement_refuses_labels_it_cannot_judge(checkpoint, label):
    with pytest.raises(PluginError, match=f"stage stage: the label of disc-001 is {label!r}, which is none"):
        ready(Agreement, checkpoint=str(checkpoint)).screen(batch_of("nevus", label))


def test_extractor_gives_what_the_last_layer_sees(checkpoint, publish):
    images = disc_dataset(3, 40).fetch(range(3)).images
    plugin = ready(ClassifierExtractor, weights=str(checkpoint))
    (maps,), vectors = plugin.feature_maps(images), plugin.features(images)
    assert maps.shape == (3, 96, 1, 1) and vectors.shape == (3, 96) and vectors.dtype == torch.float32
    assert torch.equal(maps[:, :, 0, 0], vectors)
    assert plugin.label == "classifier features" and len(plugin.weights_hash) == 8
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(plugin.features(images), vectors)
    tokens = ready(ClassifierExtractor, weights=str(publish("timm:test_vit", phantom=True)))
    assert tokens.features(images).shape == (3, 64) and tokens.label.endswith("(trained on phantoms)")
    with pytest.raises(ConfigError, match="timm:test_vit has tokens, no maps"):
        tokens.feature_maps(images)


def test_spoilt_checkpoints_are_one_clear_line(checkpoint):
    with pytest.raises(CheckpointError, match="is no classification checkpoint"):
        load_classifier(checkpoint / "absent")
    info = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**info, "classes": ["a", "b", "c"]}))
    with pytest.raises(CheckpointError, match="does not fit the network: 2 of") as caught:
        load_classifier(checkpoint)
    assert "\n" not in str(caught.value)
    (checkpoint / "config.json").write_text(json.dumps({**info, "kind": "lesionforge-segmenter"}))
    with pytest.raises(CheckpointError, match="does not describe a classification checkpoint: kind"):
        load_classifier(checkpoint)


def test_checkpoints_are_declared_to_the_runner():
    assert checkpoint_fields(ClassificationTrainer.Config) == ["weights"]
    assert checkpoint_fields(ClassifierAnnotator.Config) == checkpoint_fields(Agreement.Config) == ["checkpoint"]
    assert checkpoint_fields(ClassifierExtractor.Config) == ["weights"]


def test_the_plugin_module_is_light():
    code = (
        "import sys; import lesionforge.plugins.classification.plugin as p; p.register_plugins();"
        "heavy = {'torch', 'numpy', 'scipy', 'timm', 'torchvision', 'captum'} & sys.modules.keys();"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
