from __future__ import annotations

import sys

import pytest
import torch

from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, ConfigError, PluginError
from lesionforge.plugins.classification.classifier import load_classifier
from lesionforge.plugins.classification.explanation import ClassifierExplainer
from lesionforge.plugins.classification.plugin import open_explainer
from lesionforge.testing import disc_dataset

CPU = Context(torch.device("cpu"))
TARGETS = [0, 1]


@pytest.fixture
def images():
    return disc_dataset(2, 32).fetch(range(2)).images


def test_gradcam_is_its_equations(publish, images):
    folder = publish("squeezenet1_1")
    classifier, _ = load_classifier(folder)
    maps, _ = classifier.observe(images)
    weights = []
    kept = {}
    classifier.network.map_layer.register_forward_hook(lambda _, given, made: kept.update(maps=made))
    for row, target in enumerate(TARGETS):
        logit = classifier(images[row : row + 1])[0, target]
        weights.append(torch.autograd.grad(logit, kept["maps"])[0].mean((2, 3))[0])
    expected = (torch.stack(weights)[:, :, None, None] * maps.detach()).sum(1).relu()
    found = ClassifierExplainer(folder, CPU).heat("gradcam", images, TARGETS)
    assert found.shape == maps.shape[:1] + maps.shape[2:] and not found.requires_grad
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.max()) + 1e-7)


def test_saliency_is_the_gradient_of_the_logit(publish, images):
    folder = publish()
    classifier, _ = load_classifier(folder)
    inputs = images.clone().requires_grad_()
    logits = classifier(inputs)
    (gradient,) = torch.autograd.grad(logits[0, 0] + logits[1, 1], inputs)
    found = ClassifierExplainer(folder, CPU).heat("saliency", images, TARGETS)
    assert torch.allclose(found, gradient.abs().amax(1), rtol=1e-4, atol=1e-6)


def test_occlusion_is_the_probability_that_is_lost(publish, images):
    folder = publish(temperature=3.0)
    explainer = ClassifierExplainer(folder, CPU)
    before = explainer.probabilities(images)
    assert torch.allclose(before.sum(1), torch.ones(2))
    total, seen = torch.zeros(2, 32, 32), torch.zeros(32, 32)
    for top in range(0, 29, 2):
        for left in range(0, 29, 2):
            covered = images.clone()
            covered[:, :, top : top + 4, left : left + 4] = images.mean((2, 3), keepdim=True)
            lost = before - explainer.probabilities(covered)
            total[:, top : top + 4, left : left + 4] += lost[torch.arange(2), TARGETS][:, None, None]
            seen[top : top + 4, left : left + 4] += 1
    found = explainer.heat("occlusion", images, TARGETS)
    assert torch.allclose(found, (total / seen).clamp(min=0), atol=1e-5)


def test_networks_of_tokens_refuse_gradcam_alone(publish, images):
    explainer = ClassifierExplainer(publish("timm:test_vit"), CPU)
    with pytest.raises(ConfigError, match="timm:test_vit has tokens; take the methods saliency and occlusion"):
        explainer.heat("gradcam", images, TARGETS)
    assert explainer.heat("saliency", images, TARGETS).shape == (2, 32, 32)


def test_only_our_own_checkpoints_are_opened(publish, tmp_path):
    folder = publish()
    assert open_explainer(checkpoint=folder, context=CPU).classes == ("melanoma", "nevus")
    assert open_explainer(checkpoint=tmp_path / "absent", context=CPU) is None
    (tmp_path / "config.json").write_text('{"kind": "lesionforge-segmenter"}')
    assert open_explainer(checkpoint=tmp_path, context=CPU) is None
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        open_explainer(checkpoint=folder, context=CPU)


def test_a_missing_captum_is_named_with_the_way_to_get_it(publish, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(PluginError, match=r'pip install "lesionforge\[explain\]"'):
        ClassifierExplainer(publish(), CPU)
