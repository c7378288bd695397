from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import CheckpointError, ConfigError, DataError, PluginFailure
from lesionforge.core.explaining import even_rows, explain, share_inside
from lesionforge.core.heat_sheet import heat_sheet, overlaid
from lesionforge.core.hookspecs import hookimpl
from lesionforge.core.registry import Registry
from lesionforge.testing import disc_dataset

PIXELS = np.zeros((1, 1, 3), np.uint8)


class Toy:
    """Finds everything to be melanoma and looks at the upper half of every image."""

    classes, size = ("melanoma", "nevus"), 16

    def probabilities(self, images):
        assert images.shape[1:] == (3, 16, 16)
        return torch.tensor([[0.75, 0.25]]).expand(len(images), 2)

    def heat(self, method, images, targets):
        assert targets == [0] * len(images)
        if method == "saliency":
            raise RuntimeError("no luck")
        heat = torch.zeros(len(images), 4, 4)
        heat[:, :2] = 0.0 if method == "occlusion" else 1.0
        return heat


class Plugin:
    @hookimpl
    def open_explainer(self, checkpoint, context):
        return Toy() if checkpoint.name.startswith("toy") else None


@pytest.fixture
def registry():
    made = Registry([])
    made.hooks.register(Plugin())
    return made


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40), st.integers(1, 12))
def test_cases_are_as_many_of_each_class_as_there_are(labels, count):
    data = Dataset("d", tuple(Record(str(n), PIXELS, label=label) for n, label in enumerate(labels)))
    usable = [label for label in labels if label is not None] or labels
    rows = even_rows(data, count)
    assert len(set(rows)) == len(rows) == min(count, len(usable))
    found, there = Counter(labels[row] for row in rows), Counter(usable)
    for label in there:
        # No other class has more than one case above it unless this one is used up.
        assert found[label] == there[label] or found[label] >= max(found.values()) - 1


def test_cases_of_a_class_are_evenly_spaced():
    data = Dataset("d", tuple(Record(str(n), PIXELS, label="ab"[n >= 8]) for n in range(12)))
    assert even_rows(data, 4) == [0, 4, 8, 10]


def test_what_classifiers_say_is_put_side_by_side(registry):
    discs, done = disc_dataset(12, 32), []
    found = explain(
        ["toy-r", "toy-rs"],
        discs,
        methods=["gradcam", "occlusion", "gradcam"],
        count=5,
        device="cpu",
        progress=lambda *steps: done.append(steps),
        registry=registry,
    )
    assert found.checkpoints == ("toy-r", "toy-rs") and found.methods == ("gradcam", "occlusion")
    assert done[-1] == (10, 10) and len(found.cases) == 5 and found.total == 12
    case = found.cases[0]
    assert case.label == "melanoma" and case.image.shape == (32, 32, 3) and len(case.explanations) == 2
    said = case.explanations[1]
    assert (said.predicted, said.probability) == ("melanoma", 0.75)
    assert said.in_lesion["occlusion"] is None and 0 < said.in_lesion["gradcam"] < 1
    document = json.loads(json.dumps(found.as_dict()))
    assert document["cases"][0]["explanations"][0]["heat_in_lesion"] == said.in_lesion
    assert document["cases"][0]["lesion_area"] == pytest.approx(float(case.mask.mean()))

    sheet = heat_sheet(found, tile=64)
    bare = heat_sheet(explain(["toy"], discs, methods=["gradcam"], count=1, device="cpu", registry=registry), tile=64)
    assert sheet.width > bare.width > 2 * 64 and sheet.height > bare.height > 64


def test_share_inside_counts_heat_not_pixels():
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 1
    assert share_inside(np.array([[1.0]], np.float32), mask) == pytest.approx(0.5)
    assert share_inside(np.array([[3.0, 3.0], [1.0, 1.0]], np.float32), mask) > 0.6
    assert share_inside(np.zeros((2, 2), np.float32), mask) is None


def test_heat_is_laid_over_where_it_is_and_nothing_elsewhere():
    image = np.full((20, 10, 3), 128, np.uint8)
    heat = np.zeros((20, 10), np.float32)
    assert (overlaid(image, heat, 20) == 128).all()
    heat[:10] = 7.0
    picture = overlaid(image, heat, 20)
    assert picture.shape == (20, 10, 3) and (picture[12:] == 128).all() and (picture[:8] != 128).any(-1).all()
    assert (overlaid(image, heat * 100, 20) == picture).all()


def test_images_without_masks_or_labels_are_explained_too(registry):
    discs = disc_dataset(4, 16)
    bare = replace(discs, records=tuple(replace(record, mask=None, label=None) for record in discs.records))
    found = explain(["toy"], bare, methods=["gradcam"], count=2, device="cpu", registry=registry)
    assert found.cases[0].lesion_area is None and found.cases[0].explanations[0].in_lesion == {"gradcam": None}
    assert heat_sheet(found, tile=32).height > 64


def test_bad_input_is_one_line(registry):
    discs = disc_dataset(4, 16)
    for error, told, values in (
        (CheckpointError, "stranger holds no classifier", {"checkpoints": ["stranger"]}),
        (ConfigError, "no method 'shap': name a checkpoint", {"methods": ["shap"]}),
        (ConfigError, "nothing to explain", {"methods": []}),
        (DataError, "has no cases", {"dataset": discs.take([])}),
        (PluginFailure, "explaining with toy failed: RuntimeError: no luck", {"methods": ["saliency"]}),
    ):
        with pytest.raises(error, match=told) as caught:
            explain(**{"checkpoints": ["toy"], "dataset": discs, "device": "cpu", "registry": registry, **values})
        assert "\n" not in str(caught.value)
