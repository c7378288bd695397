from __future__ import annotations

import pytest

import lesionforge as lf
from lesionforge.core.errors import ConfigError
from lesionforge.core.loading import absolute_source, with_source
from lesionforge.core.plan import plan_run
from lesionforge.core.recipe import Job, Synthesis
from lesionforge.core.store import RunStore

DATA = "phantom(count=8, size=32)"
TRAINING = Job("net", "segmentation", values={"dilations": [2, 4], "size": 32})


@pytest.fixture
def recipe():
    chain = lf.Chain.parse("phantom(size=64) | mask-quality")
    return lf.Recipe(jobs=(TRAINING,), synthesis=Synthesis(chain, count=10, shard_size=4))


def test_a_plan_writes_out_defaults_and_creates_nothing(recipe, tmp_path):
    plan = plan_run(recipe, output=tmp_path / "new" / "run", data=DATA)
    assert list(tmp_path.iterdir()) == []
    assert (plan.shards, plan.committed, plan.exists, plan.obstacle) == (3, 0, False, None)
    assert plan.data is not None and plan.data["cases"] == 8 and plan.data["phantom"]
    assert [(job.name, state) for job, state in plan.jobs] == [("net", "to do")]
    assert plan.as_dict()["stages"][1]["config"]["max_components"] == 1


def test_what_is_there_is_told(recipe, tmp_path):
    store = RunStore(tmp_path / "run")
    store.create(with_source(recipe, DATA).resolved().to_toml(), resume=False)
    store.shard(4).mkdir()
    (store.jobs / "net").mkdir(parents=True)
    plan = plan_run(recipe, output=store.root, data=DATA, resume=True)
    assert plan.obstacle is None and plan.exists and plan.committed == 1
    assert plan.jobs[0][1] == "begun"
    (store.jobs / "net" / "metrics.json").write_text("{}")
    assert plan_run(recipe, output=store.root, data=DATA, resume=True).jobs[0][1] == "finished"


def test_obstacles_are_those_of_the_store(recipe, tmp_path):
    recipe = with_source(recipe, DATA)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "holds no run" in str(plan_run(recipe, output=tmp_path / "full").obstacle)
    assert "holds no run" in str(plan_run(recipe, output=tmp_path / "full" / "thesis.txt").obstacle)
    RunStore(tmp_path / "run").create(recipe.resolved().to_toml(), resume=False)
    assert "add --resume" in str(plan_run(recipe, output=tmp_path / "run").obstacle)
    other = recipe.with_value("seed", 5)
    assert "another recipe" in str(plan_run(other, output=tmp_path / "run", resume=True).obstacle)


def test_missing_data_are_noticed_before_anything_is_made(recipe, tmp_path):
    with pytest.raises(ConfigError, match="training net needs real data"):
        plan_run(recipe, output=tmp_path / "run")
    with pytest.raises(ConfigError, match="training net needs real data"):
        recipe.run(output=tmp_path / "run", report=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spec", "absolute"),
    [
        ("phantom", "phantom"),
        ("phantom(count=3)", "phantom(count=3)"),
        ("folder:data", "folder:{here}/data"),
        ("folder : data/set (1): final", "folder : {here}/data/set (1): final"),
        ('isic2018(splits="a:b.csv"):data', 'isic2018(splits="a:b.csv"):{here}/data'),
        ("folder:/data", "folder:/data"),
    ],
)
def test_a_location_becomes_absolute(spec, absolute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_source(spec) == absolute.format(here=tmp_path)


def test_a_relative_source_of_a_recipe_becomes_absolute(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_source(recipe.with_value("data.source", "folder:x"), None).data.source == f"folder:{tmp_path}/x"
    assert with_source(recipe, None).data.source is None
