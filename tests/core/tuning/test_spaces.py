"""What may be searched: read, typed by the plugin's configuration, and refused in one line before any work."""

from __future__ import annotations

import pytest

from lesionforge.core.chain import Chain
from lesionforge.core.errors import LesionforgeError
from lesionforge.core.recipe import Recipe, Synthesis
from lesionforge.core.tuning.search import plan_search
from lesionforge.core.tuning.spaces import read_spaces

TRAINING = """
[train.first]
use = "mean"
[train.other]
use = "mean"
[train.both]
use = "mean"
on = ["real", "synthetic"]
start = "train:other"
[[stage]]
use = "blobs"
[[stage]]
use = "bright"
"""


def recipe(chain="blobs | bright | bright"):
    return Recipe(synthesis=Synthesis(Chain.parse(chain)))


def planned(registry, *search, chain="blobs | bright | bright", metric="kept", **options):
    wanted = Recipe.from_toml(chain) if "\n" in chain else recipe(chain)
    return plan_search(wanted, search, metric, registry=registry, **{"trials": 20, **options})


@pytest.mark.parametrize(
    ("text", "kind", "ends", "more"),
    [
        ("blobs.size=2..64", "int", (2, 64), {}),
        ("blobs.size = 2 .. 64 : log", "int", (2, 64), {"log": True}),
        ("blobs.size=8..64:step=8", "int", (8, 64), {"step": 8}),
        ("bright.level=0..1", "float", (0.0, 1.0), {}),
        ("bright-2.level=1e-3..1:log", "float", (0.001, 1.0), {"log": True}),
        ("blobs.size=8|16|32", "choice", (8, 16, 32), {}),
        ('bright.kind=plain|[1, 2]|true|"a|b"', "choice", ("plain", [1, 2], True, "a|b"), {}),
    ],
)
def test_values_are_read_as_the_key_takes_them(registry, text, kind, ends, more):
    (space,) = read_spaces([text], recipe(), registry)
    assert (space.kind, space.ends) == (kind, ends)
    assert [type(end) for end in space.ends] == [type(end) for end in ends]
    assert {name: getattr(space, name) for name in more} == more


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ([], "nothing to search"),
        (["size=1..2"], "expected PLACE.key=LOW..HIGH"),
        (["blobs.size"], "expected PLACE.key=LOW..HIGH"),
        (["blobs.size=8"], "expected PLACE.key=LOW..HIGH"),
        (["blobs.size=8..."], "expected PLACE.key=LOW..HIGH"),
        (["blobs.size=8..16:cubic"], "expected PLACE.key=LOW..HIGH"),
        (["blobs.size=8..16", "blobs.size=16|32"], "blobs.size is given twice"),
        (["other.size=8..16"], "no stage or training is called 'other'; there are blobs, bright, bright-2"),
        (["blobs.sise=8..16"], "unknown key 'sise'; allowed are size, label"),
        (["blobs.size=1..16"], "size = 1: input should be greater than or equal to 2"),
        (["blobs.size=8..65"], "size = 65: input should be less than or equal to 64"),
        (["blobs.size=8|x"], "size = 'x': input should be a valid integer"),
        (["blobs.size=8..16.5"], "the key takes whole numbers"),
        (["blobs.size=16..8"], "the lower end must be below the upper one"),
        (["blobs.size=8..15:step=4"], "steps of 4 from 8 do not end at 15; the last one is 12"),
        (["blobs.size=8..15:step=0"], "steps of 0"),
        (["blobs.label=1..2"], "the key takes no range of numbers; give its values as a|b|c"),
        (["blobs.label=a|a"], "is given twice"),
        (["blobs.label=a|"], "'' is no value"),
        (['blobs.label="a|b'], "a quotation mark is not closed"),
        (["bright.level=0..1:log"], "a logarithmic range must begin above 0"),
        (["bright.level=0..0.5:step=2"], "steps are for whole numbers"),
        (["bright.level=0..0.5", "bright.below=0.0|0.5"], "below = 0.0: input should be greater than 0"),
    ],
)
def test_wrong_spaces_are_one_line(registry, search, told):
    with pytest.raises(LesionforgeError) as caught:
        planned(registry, *search)
    assert told in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_an_end_counts_as_allowed_where_some_value_of_another_key_allows_it(registry):
    search = planned(registry, "bright.level=0.1..0.9", "bright.below=0.4..1.0")
    assert search.corner["bright.level"] < search.corner["bright.below"]
    with pytest.raises(LesionforgeError, match=r"level 0\.9 must be below 0\.4"):
        planned(registry, "bright.level=0.1..0.9", "bright.below=0.4..0.8")


@pytest.mark.parametrize(
    ("metric", "options", "told"),
    [
        ("papyrus", {}, "no metric is called 'papyrus'"),
        ("contrast(x=1)", {}, "unknown key 'x'"),
        ("gap", {}, "whether more of it is better is not known; add --direction"),
        ("score:light", {}, "add --direction"),
        ("kept", {"direction": "up"}, "take minimize or maximize"),
        ("contrast", {"split": "test"}, "would leak it"),
        ("contrast", {"split": "all"}, "take val or train"),
        ("contrast", {"trials": 0}, "at least one"),
        ("contrast", {"count": 0}, "count = 0"),
        ("both.cases", {}, "measured on the test split, and choosing settings by them would leak it"),
        ("none.val_loss", {}, "no training is called 'none'"),
        ("both.val_loss", {"split": "train"}, "is measured on val"),
        ("first.val_loss", {}, "--search bright: trials do without it"),
        ('contrast(weights="train:both")', {}, "training both differs from trial to trial"),
        ("kept", {"min_kept": 65}, "a trial makes 64 cases"),
        ('contrast(weights="train:none")', {}, "names no training"),
    ],
)
def test_wrong_objectives_are_one_line(registry, metric, options, told):
    with pytest.raises(LesionforgeError) as caught:
        planned(registry, "bright.level=0..1", chain=TRAINING, metric=metric, **options)
    assert told in str(caught.value) and caught.value.exit_code == 2


def test_a_yardstick_that_the_search_changes_is_refused(registry):
    with pytest.raises(LesionforgeError, match="training first differs from trial to trial"):
        planned(
            registry, "first.steps=2..4", "bright.level=0..1", chain=TRAINING, metric='contrast(weights="train:first")'
        )


def test_only_needed_trainings_are_done_and_those_that_no_value_shapes_only_once(registry):
    plain = planned(registry, "bright.level=0..1", chain=TRAINING)
    assert (plain.shared, plain.own) == ((), ())
    judged = planned(registry, "bright.level=0..1", chain=TRAINING, metric='contrast(weights="train:first")')
    assert [job.name for job in judged.shared] == ["first"] and judged.own == ()
    curve = planned(registry, "bright.level=0..1", chain=TRAINING, metric="both.val_loss")
    assert [[job.name for job in jobs] for jobs in (curve.shared, curve.own)] == [["other"], ["both"]]
    searched = planned(registry, "other.steps=2..4", chain=TRAINING, metric="both.val_loss")
    assert [[job.name for job in jobs] for jobs in (searched.shared, searched.own)] == [[], ["other", "both"]]


def test_there_are_no_more_trials_than_combinations(registry):
    assert planned(registry, "blobs.size=8|16", "bright.kind=a|b|c").trials == 6
    assert planned(registry, "blobs.size=8|16", "bright.level=0..1").trials == 20


def test_a_metric_of_the_report_brings_its_own_settings(registry):
    metric = '[[metric]]\nuse = "contrast"\nlevel = 0.25\n'
    search = planned(registry, "bright.level=0..1", chain=TRAINING + metric, metric="contrast")
    assert dict(search.objective.values) == {"level": 0.25} and search.objective.direction == "minimize"


def test_directions_are_known_by_plugin_and_by_name(registry):
    def direction(metric):
        return planned(registry, "bright.level=0..1", chain=TRAINING, metric=metric).objective.direction

    assert direction("kept") == direction("score:mask_iou") == "maximize"
    assert direction("contrast") == direction("both.val_loss") == "minimize"
    turned = planned(registry, "bright.level=0..1", metric="kept", direction="minimize")
    assert turned.objective.direction == "minimize"
