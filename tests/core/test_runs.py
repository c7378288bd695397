from __future__ import annotations

import gc
import hashlib
import resource
import shutil
import signal
import tracemalloc
from dataclasses import replace
from statistics import median
from typing import ClassVar

import pytest
import torch

import lesionforge as lf
from lesionforge.core.chain import Chain
from lesionforge.core.errors import ConfigError, PluginError, PluginFailure, StoreError
from lesionforge.core.recipe import Recipe, Synthesis
from lesionforge.core.shards import missing_shards
from lesionforge.testing import disc_dataset

CHAIN = "blobs(size=16) | threshold | brightness"


@pytest.fixture(scope="module")
def real():
    discs = disc_dataset(30, 16)
    splits = ("train", "train", "val", "test")
    return replace(discs, records=tuple(replace(r, split=splits[n % 4]) for n, r in enumerate(discs.records)))


def recipe(chain=CHAIN, **settings):
    defaults = {"count": 21, "batch_size": 4, "shard_size": 8}
    return Recipe(seed=3, synthesis=Synthesis(Chain.parse(chain), **{**defaults, **settings}))


def content(run):
    """Everything that identifies cases: ids, scores, verdicts and file hashes."""
    rows = [(c.id, c.seed, c.label, dict(c.scores), dict(c.verdict), dict(c.sha256)) for c in run.cases()]
    files = {c.id: {k: hashlib.sha256(p.read_bytes()).hexdigest() for k, p in c.files.items()} for c in run.cases()}
    assert all(files[c.id] == dict(c.sha256) for c in run.cases())
    return rows


def tree(folder):
    names = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("log.jsonl", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_a_run_is_complete_traceable_and_screened(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    summary = run.summary()
    assert summary["cases"] == 21 and 0 < summary["kept"] < 21
    assert sum(summary["rejected"].values()) == 21 - summary["kept"]
    verification = run.verify()
    assert verification.ok and verification.complete
    for case in run.cases(kept=False):
        assert case.verdict["by"] == "brightness" and case.reason and "rejected" in str(case.files["image"])
    one = next(run.cases(kept=True))
    assert one.image is not None and one.image.shape == (16, 16, 3)
    assert one.mask is not None and set(one.mask.ravel()) <= {0, 1}
    assert len(run.dataset()) == summary["kept"] and run.dataset().fetch([0]).masks is not None
    stage = run.manifest["stages"][2]
    assert stage["config"] == {"percentile": 20.0} and len(stage["fitted"]) == 64


@pytest.mark.parametrize("change", [{"shard_size": 5}, {"shard_size": 21}, {"shard_size": 3}, {"count": 20}])
def test_shards_and_count_do_not_change_a_bit(tmp_path, registry, real, change):
    one = recipe().run(output=tmp_path / "one", data=real, registry=registry, report=False)
    other = recipe(**change).run(output=tmp_path / "other", data=real, registry=registry, report=False)
    assert content(one)[: change.get("count", 21)] == content(other)


def test_order_of_shards_does_not_change_a_bit(tmp_path, registry, real):
    whole = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    before = tree(whole.path)
    for first in (0, 16):
        shutil.rmtree(whole.store.shard(first))
    assert [shard.start for shard in missing_shards(whole.store, whole.recipe.synthesis)] == [0, 16]
    recipe().run(output=tmp_path / "run", data=real, registry=registry, resume=True, report=False)
    assert tree(whole.path) == before


def test_any_case_can_be_made_again(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    for number in (0, 7, 20):
        again = run.regenerate(f"case-{number:08d}", registry=registry)
        assert again.identical and (again.pixels["image"] == again.case.image).all()
    with pytest.raises(StoreError, match="has no case 'case-99'"):
        run.regenerate("case-99", registry=registry)


def test_verify_finds_every_kind_of_tampering(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    cases = list(run.cases())
    cases[0].files["image"].write_bytes(b"other")
    cases[1].files["mask"].unlink()
    (run.store.shard(8) / "images" / "stranger.png").write_bytes(b"x")
    (run.store.fitted / "brightness.safetensors").write_bytes(b"x")
    shutil.rmtree(run.store.shard(16))
    found = run.verify()
    said = " ".join(found.problems)
    assert len(found.problems) == 4 and not found.ok and not found.complete
    for part in ("has changed", "is missing", "is in no ledger row", "brightness.safetensors"):
        assert part in said


def test_a_failing_plugin_leaves_a_run_that_resumes_to_the_same_bytes(tmp_path, registry, real):
    marker = tmp_path / "calm"
    chain = f'{CHAIN} | explodes(at=13, marker="{marker}")'
    marker.touch()
    recipe(chain).run(output=tmp_path / "whole", data=real, registry=registry, report=False)
    marker.unlink()
    with pytest.raises(PluginFailure) as caught:
        recipe(chain).run(output=tmp_path / "run", data=real, registry=registry, report=False)
    said = "stage explodes failed on case-00000012 to case-00000015: ZeroDivisionError: boom"
    assert str(caught.value) == said and caught.value.exit_code == 1
    assert "second line" in (tmp_path / "run/log.jsonl").read_text()
    assert [shard.name for shard in (tmp_path / "run/shards").iterdir()] == ["00000000"]
    marker.touch()
    recipe(chain).run(output=tmp_path / "run", data=real, registry=registry, resume=True, report=False)
    assert tree(tmp_path / "run") == tree(tmp_path / "whole")


def test_an_existing_run_is_not_touched_by_accident(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    before = tree(run.path)
    with pytest.raises(StoreError, match="holds a run already; add --resume"):
        recipe().run(output=tmp_path / "run", data=real, registry=registry)
    with pytest.raises(StoreError, match="was started with another recipe"):
        recipe(count=22).run(output=tmp_path / "run", data=real, registry=registry, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="is not empty and holds no run"):
        recipe().run(output=tmp_path / "full", data=real, registry=registry)
    assert tree(run.path) == before


def test_resuming_under_changed_facts_is_refused(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    shutil.rmtree(run.store.shard(8))
    fewer = replace(real, records=real.records[:-3])
    with pytest.raises(StoreError, match=r"cannot be resumed bit for bit, since something changed: data\.cases: was"):
        recipe().run(output=tmp_path / "run", data=fewer, registry=registry, resume=True)


def test_resuming_takes_the_threads_that_the_run_began_with(tmp_path, registry, real):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
        torch.set_num_threads(1)
        shutil.rmtree(run.store.shard(8))
        recipe().run(output=tmp_path / "run", data=real, registry=registry, resume=True, report=False)
        assert torch.get_num_threads() == 1 and run.verify().complete
    finally:
        torch.set_num_threads(threads)


def test_two_processes_cannot_share_a_run_by_accident(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    with run.store.locked(), pytest.raises(StoreError, match="another process is working on"):
        recipe().run(output=tmp_path / "run", data=real, registry=registry, resume=True)


def test_what_a_stage_lacks_is_said_before_and_during_work(tmp_path, registry):
    with pytest.raises(ConfigError, match="stage brightness must be fitted on real data; name some"):
        recipe().run(output=tmp_path / "a", registry=registry)
    with pytest.raises(PluginError, match="stage threshold needs images, which no earlier stage filled"):
        recipe("threshold").run(output=tmp_path / "b", registry=registry)


def test_a_stage_that_breaks_its_contract_is_caught(tmp_path, toys, registry):
    class Vandal(lf.Annotator):
        """Paints over images."""

        name = "vandal"

        def annotate(self, batch):
            return batch.with_columns(images=batch.images * 0)

    broken = toys.toy_registry(toys.entry_point("v", lambda: toys.module([Vandal])))
    with pytest.raises(PluginError, match="stage vandal changed images, which the role annotator must not"):
        recipe("blobs | vandal").run(output=tmp_path / "a", registry=broken)


def test_output_that_cannot_be_written_is_one_line(tmp_path, registry):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to .*file"):
        recipe("blobs").run(output=tmp_path / "file" / "run", registry=registry)


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(tmp_path, registry):
    whole = recipe("blobs(size=64)").run(output=tmp_path / "whole", registry=registry, report=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write shard .*File too large"):
            recipe("blobs(size=64)").run(output=tmp_path / "run", registry=registry, report=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list((tmp_path / "run/shards").iterdir()) == []
    recipe("blobs(size=64)").run(output=tmp_path / "run", registry=registry, resume=True, report=False)
    assert tree(tmp_path / "run") == tree(whole.path)


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path, registry):
    class Meter:
        held: ClassVar[list[int]] = []

        @lf.hookimpl
        def shard_done(self, first, cases):
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        chain = Chain.parse("blobs(size=16) | threshold")
        settings = {"shard_size": 16, "batch_size": 8, "device": "cpu", "report": False}
        chain.run(count=400, output=tmp_path / "run", registry=registry, observers=[Meter()], **settings)
    finally:
        tracemalloc.stop()
    early, late = Meter.held[4:9], Meter.held[-6:-1]
    assert len(Meter.held) == 25 and median(late) - median(early) < 40_000


def test_observers_see_every_case_once(tmp_path, registry, real):
    class Counter:
        cases, rejected, shards = 0, [], []

        @lf.hookimpl
        def batch_done(self, cases, kept):
            self.cases += cases

        @lf.hookimpl
        def case_rejected(self, case_id, rejection):
            self.rejected.append(case_id)

        @lf.hookimpl
        def shard_done(self, first, cases):
            self.shards.append((first, cases))

    seen = Counter()
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, observers=[seen], report=False)
    assert seen.cases == 21 and seen.rejected == [case.id for case in run.cases(kept=False)]
    assert seen.shards == [(0, 8), (8, 8), (16, 5)]


def test_jobs_before_and_after_the_chain(tmp_path, registry, real):
    text = """
    [train.base]
    use = "mean"
    [train.more]
    use = "mean"
    on = ["real", "synthetic"]
    start = "train:base"
    [synthesis]
    count = 12
    [[stage]]
    use = "blobs"
    size = 16
    """
    run = Recipe.from_toml(text).run(output=tmp_path / "run", data=real, registry=registry, report=False)
    counts = {
        name: len((run.store.jobs / name / "training_data.jsonl").read_text().splitlines()) for name in run.metrics()
    }
    assert counts == {"base": len(real.split("train")), "more": len(real.split("train")) + 12}
    assert run.metrics()["base"] == {"cases": float(len(real.split("test")))}
    assert not (run.store.jobs / "base/state").exists()
    trained_on = (run.store.jobs / "more/training_data.jsonl").read_text()
    assert not any(f'"{image_id}"' in trained_on for image_id in real.split("test").ids)


def test_stages_can_be_used_one_by_one(tmp_path, registry, real):
    run = recipe().run(output=tmp_path / "run", data=real, registry=registry, report=False)
    batch = lf.Batch.blank(4, seed=3)
    for stage in Chain.parse(CHAIN).open(device="cpu", data=real, registry=registry):
        batch = stage(batch)
    stored = list(run.cases())[:4]
    assert batch.ids == tuple(case.id for case in stored) and batch.kept == tuple(case.kept for case in stored)
    assert batch.scores["brightness"].tolist() == [case.scores["brightness"] for case in stored]
