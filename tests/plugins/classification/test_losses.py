from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from lesionforge.core.config import build_config
from lesionforge.core.errors import ConfigError
from lesionforge.plugins.classification.calibration import COLDEST, fit_temperature, probabilities_of
from lesionforge.plugins.classification.config import ClassificationConfig
from lesionforge.plugins.classification.losses import class_weights, cross_entropy, focal_loss, make_loss

CLASSES = ("a", "b", "c")
LABELS = torch.tensor([0, 1, 2, 1, 1, 0])


def config(**values) -> ClassificationConfig:
    return build_config(ClassificationConfig, values, where="test")


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 3, dtype=torch.float64) * 2


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_its_formula(logits, weights, smoothing):
    log_p, w = logits.log_softmax(1), torch.ones(3, dtype=torch.float64) if weights is None else weights
    total = norm = 0.0
    for row, label in enumerate(LABELS.tolist()):
        target = [(1 - smoothing) * (number == label) + smoothing / 3 for number in range(3)]
        total -= sum(float(w[number] * target[number] * log_p[row, number]) for number in range(3))
        norm += float(w[label])
    assert cross_entropy(logits, LABELS, weights=weights, smoothing=smoothing).item() == pytest.approx(total / norm)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_its_formula(logits, gamma):
    p = logits.softmax(1).gather(1, LABELS[:, None])[:, 0]
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    assert focal_loss(logits, LABELS, gamma=gamma).item() == pytest.approx(expected.item())
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    if gamma == 0:
        assert torch.isclose(
            focal_loss(logits, LABELS, weights=weights, gamma=0.0), cross_entropy(logits, LABELS, weights=weights)
        )


@pytest.mark.parametrize("values", [{"loss": "focal", "focal_gamma": 0.5}, {"label_smoothing": 0.1}])
def test_losses_stay_finite_and_exact_where_logits_are_extreme(values):
    loss = make_loss(config(**values), None)
    extreme = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 0.0]], requires_grad=True)
    value = loss(extreme, torch.tensor([0, 0]))
    value.backward()
    assert math.isfinite(value.item()) and bool(extreme.grad.isfinite().all())
    assert loss(torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0, 1])).dtype == torch.float32


def test_balanced_weights_are_those_of_scikit_learn():
    found = class_weights(config(class_weights="balanced"), CLASSES, LABELS)
    assert found.tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy()))
    without_c = class_weights(config(class_weights="balanced"), CLASSES, torch.tensor([0, 0, 0, 1]))
    assert without_c.tolist() == pytest.approx([4 / 6, 2, 0])
    assert class_weights(config(), CLASSES, LABELS) is None


def test_given_weights_must_fit_the_classes():
    assert class_weights(config(class_weights={"b": 2, "a": 1, "c": 5}), CLASSES, LABELS).tolist() == [1, 2, 5]
    with pytest.raises(ConfigError, match="class_weights names b, but the classes are a, b, c"):
        class_weights(config(class_weights={"b": 2}), CLASSES, LABELS)
    with pytest.raises(ConfigError, match="above 0 for every class that has training images"):
        class_weights(config(class_weights={"a": 0, "b": 2, "c": 1}), CLASSES, LABELS)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"architecture": "alexnet"}, "take one of densenet121"),
        ({"architecture": "timm:"}, "take one of densenet121"),
        ({"architecture": "vit_b_16", "size": 72}, "vit_b_16 needs a multiple of 16"),
        ({"loss": "focal", "label_smoothing": 0.1}, "label smoothing applies to cross-entropy"),
        ({"classes": ["a"]}, "two classes or more"),
        ({"classes": ["a", "a"]}, "each once"),
        ({"class_weights": {"a": -1}}, "class_weights"),
        ({"monitor": "dice"}, "monitor"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(values, told):
    with pytest.raises(ConfigError, match=told) as caught:
        config(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(truth):
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(20_000, 3, generator=rng) * 2
    labels = torch.multinomial((logits / truth).softmax(1), 1, generator=rng)[:, 0]
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(truth, rel=0.05)

    def loss(temperature):
        return -np.log(probabilities_of(logits, temperature)[np.arange(len(labels)), labels.numpy()]).mean()

    assert loss(found) <= min(loss(found * 1.001), loss(found / 1.001))
    assert probabilities_of(logits, found).argmax(1).tolist() == logits.argmax(1).tolist()


def test_labels_that_are_never_missed_lead_towards_the_bound():
    never_missed = fit_temperature(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))
    assert COLDEST <= never_missed < 1.2 * COLDEST
