"""A study finds the gain that is there, by phantoms as the true process, and none by phantoms with wrong masks."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

import lesionforge as lf
from lesionforge.core.registry import ENTRY_POINT_GROUP, Registry

LOOK = "size=32, contrast=0.5, softness=2, illumination=2, noise=2, hair=0.9"
STUDY = f"""
name = "truth"
[study]
seeds = [0, 1, 2, 3, 4, 5]
real_counts = [4]
validation = false
[data]
source = "phantom(count=300, seed=1, fractions=[0.3, 0.2, 0.5], {LOOK})"
[synthetic.process]
data = "phantom(count=96, seed=2, {LOOK})"
[synthetic.shuffled]
data = "shuffled-phantoms"
[model.unet]
use = "segmentation"
architecture = "dilated-unet(width=8, depth=2)"
size = 32
steps = 180
batch_size = 8
learning_rate = 1e-3
patience = 0
[[arm]]
name = "R"
real = true
[[arm]]
name = "R+process"
real = true
synthetic = "process"
[[arm]]
name = "R+shuffled"
real = true
synthetic = "shuffled"
"""


class ShuffledPhantoms(lf.Source):
    """Phantoms whose masks belong to other phantoms."""

    name = "shuffled-phantoms"

    def load(self, location):
        data = lf.load_dataset(f"phantom(count=96, seed=3, {LOOK})")
        masks = [record.mask for record in data.records]
        shuffled = zip(data.records, masks[7:] + masks[:7], strict=True)
        return replace(data, records=tuple(replace(record, mask=mask) for record, mask in shuffled))


@pytest.fixture(scope="module")
def results(tmp_path_factory, one_thread_for_the_module):
    toys = SimpleNamespace(
        name="truth-toys",
        dist=SimpleNamespace(name="toy-distribution", version="1.0"),
        load=lambda: SimpleNamespace(register_plugins=lf.hookimpl(lambda: [ShuffledPhantoms])),
    )
    registry = Registry([*entry_points(group=ENTRY_POINT_GROUP), toys])
    study = lf.Study.from_toml(STUDY)
    return study.run(output=tmp_path_factory.mktemp("truth") / "study", registry=registry, device="cpu")


def dice(results, arm):
    return next(r for r in results.table("comparisons") if (r["arm"], r["metric"]) == (arm, "dice"))


def test_cases_of_the_true_process_help_where_real_ones_are_scarce(results):
    found = dice(results, "R+process")
    assert found["outcome"] == "gain" and found["verdict"].startswith("gain: +")
    assert float(found["low"]) > 0.02 and float(found["p_holm"]) < 0.05


def test_cases_with_the_masks_of_others_do_not(results):
    found = dice(results, "R+shuffled")
    assert found["outcome"] in ("none", "loss") and float(found["difference"]) < 0


def test_the_page_says_that_all_of_it_are_phantoms_and_shows_what_changed(results):
    page = results.report.read_text()
    assert "Nothing on this page says anything about patients" in page
    assert "Gained most" in page and "data:image/jpeg;base64," in page
    assert results.summary()["phantom"] is True
