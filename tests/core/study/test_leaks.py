"""Every way in which training data can hold test images is refused, and told in red where it is allowed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as Picture

import lesionforge as lf
from lesionforge.core.chain import Chain
from lesionforge.core.errors import DataError
from lesionforge.core.recipe import Job, Recipe, Synthesis
from lesionforge.core.study.leaks import Known, archive_id, fingerprints, split_leaks
from lesionforge.core.study.provenance import Image, provenance_of
from lesionforge.core.study.recipe import Study


def image(image_id, lesion="", content="", split="test"):
    return Image(image_id, lesion or image_id, split, content or f"hash of {image_id}")


def known(*images):
    return Known(images)


def test_the_same_content_is_the_same_image_whatever_its_name():
    assert known(image("a", content="x")).among([image("b", content="x"), image("c")]) == ["b"]


def test_archive_ids_name_an_image_in_every_dataset():
    assert archive_id("ISIC_0012345_downsampled") == "ISIC_0012345" and archive_id("case-00000001") is None
    assert known(image("ISIC_0012345", content="x")).among([image("isic_0012345_x", content="y")]) == ["isic_0012345_x"]


def test_lesion_names_count_where_both_sides_are_of_one_dataset():
    ours = [image("b", lesion="lesion-1", content="y")]
    alone = known(image("a", lesion="lesion-1", content="x"))
    assert alone.among(ours) == []
    assert alone.among(ours, namespace=[image("a", content="x")]) == ["b"]
    archive = known(image("a", lesion="HAM_0000007", content="x"))
    assert archive.among([image("b", lesion="HAM_0000007", content="y")]) == ["b"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_splits_that_share_an_image_or_a_lesion_leak(split):
    clean = [image("a", split="train"), image("b", split="val"), image("c", split="test")]
    assert split_leaks(clean) == []
    for shared in (image("d", content="hash of c", split=split), image("d", lesion="c", split=split)):
        (leak,) = split_leaks([*clean, shared])
        assert leak.images == ("c",) and "1 image of the test split" in str(leak)


@pytest.fixture
def registry(toy_registry):
    return toy_registry


def made_run(folder, data, registry, *, chain='square-drawer(checkpoint="train:generator")', jobs=("generator",)):
    """A run of two dozen cases by a generator that was trained on the training split of ``data``."""
    recipe = Recipe(
        jobs=tuple(Job(name, "pixels", ("real",), {"steps": 2}) for name in jobs),
        synthesis=Synthesis(Chain.parse(chain), count=24, batch_size=8, shard_size=24),
    )
    return recipe.run(output=folder, data=data, registry=registry, device="cpu", report=False)


def study_on(text, **changes):
    study = Study.from_toml(text).with_value("study.seeds", [0]).with_value("study.real_counts", ["all"])
    for path, value in changes.items():
        study = study.with_value(path.replace("__", "."), value)
    return study


def carry_out(study, data, registry, output, **options):
    return study.run(output=output, data=data, registry=registry, device="cpu", **options)


def resplit(data, changes):
    return replace(data, records=tuple(replace(r, split=changes.get(r.image_id, r.split)) for r in data.records))


def test_a_generator_that_kept_away_from_the_test_split_is_no_leak(toy_text, real, registry, tmp_path):
    made_run(tmp_path / "run", real, registry)
    study = study_on(toy_text, synthetic__discs__run=str(tmp_path / "run"))
    results = carry_out(study, real, registry, tmp_path / "study", report=False)
    assert results.summary()["leaks"] == []
    assert any("made with the help of 32 real images (training generator)" in r for r in results.summary()["remarks"])


def leaking_cases(real):
    """What a generator may have seen that it should not: name -> data of its run."""
    test = real.split("test").ids[0]
    record = next(r for r in real.records if r.image_id == test)
    train = next(r for r in real.records if r.split == "train")
    other_view = replace(record, image_id="another-view", image=255 - record.image, split="train")
    return {
        "an image of the test split": resplit(real, {test: "train"}),
        "one that chose its weights": resplit(real, {test: "val"}),
        "the lesion of one": replace(real, records=(*real.split("train").records, other_view, train_like(train))),
    }


def train_like(record):
    return replace(record, image_id="val-image", group="another lesion", image=255 - record.image, split="val")


@pytest.mark.parametrize("case", ["an image of the test split", "one that chose its weights", "the lesion of one"])
def test_a_generator_that_saw_the_test_split_is_refused(toy_text, real, registry, tmp_path, case):
    made_run(tmp_path / "run", leaking_cases(real)[case], registry)
    study = study_on(toy_text, synthetic__discs__run=str(tmp_path / "run"))
    with pytest.raises(
        DataError, match=r"1 image of the test split.*training generator of synthetic set discs"
    ) as caught:
        carry_out(study, real, registry, tmp_path / "study")
    assert "--allow-leak" in str(caught.value) and not list((tmp_path / "study" / "cells").iterdir())


def test_an_allowed_leak_is_told_in_red(toy_text, real, registry, tmp_path):
    made_run(tmp_path / "run", leaking_cases(real)["an image of the test split"], registry)
    study = study_on(toy_text, synthetic__discs__run=str(tmp_path / "run"))
    results = carry_out(study, real, registry, tmp_path / "study", allow_leak=True)
    (leak,) = results.summary()["leaks"]
    page = results.report.read_text()
    assert 'class="banner leak"' in page and leak.split("(")[0].strip() in page
    assert ".leak { background: #9b1313" in page


def test_a_leak_by_another_runs_checkpoint_and_by_a_fit_is_found(toy_text, real, registry, tmp_path):
    leaking = leaking_cases(real)["an image of the test split"]
    made_run(tmp_path / "first", leaking, registry)
    checkpoint = tmp_path / "first" / "train" / "generator"
    chains = [f'square-drawer(checkpoint="{checkpoint}")', "square-drawer | gate"]
    for number, (chain, data) in enumerate(zip(chains, (real, leaking), strict=True)):
        jobs = ("other",) if "gate" in chain else ()
        made_run(tmp_path / f"run-{number}", data, registry, chain=chain, jobs=jobs)
        study = study_on(toy_text, synthetic__discs__run=str(tmp_path / f"run-{number}"))
        by = "fit of gate" if "gate" in chain else "training generator"
        with pytest.raises(DataError, match=f"known to {by} of synthetic set discs"):
            carry_out(study, real, registry, tmp_path / f"study-{number}")


def test_what_cannot_be_told_is_a_remark(real, registry, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    run = made_run(tmp_path / "run", real, registry, chain=f'square-drawer(checkpoint="{weights}")', jobs=())
    found = provenance_of(run, registry)
    assert found.seen == () and "nothing tells what checkpoint" in found.unknown[0]


def test_synthetic_cases_that_are_test_images_are_refused(toy_text, real, study_registry, tmp_path):
    copies = real.split("test")
    folder = tmp_path / "copies"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for row, image_id in enumerate(copies.ids):
        Picture.fromarray(copies.image(row)).save(folder / "images" / f"renamed-{image_id}.png")
        Picture.fromarray((copies.mask(row) * 255).astype(np.uint8)).save(folder / "masks" / f"renamed-{image_id}.png")
    on_disk = lf.load_dataset(f"folder:{folder}")
    records = [*(r for r in real.records if r.split != "test"), *(replace(r, split="test") for r in on_disk.records)]
    data = replace(real, records=tuple(records))
    assert {image.image for image in fingerprints(on_disk)} <= {image.image for image in fingerprints(data)}
    study = study_on(toy_text, synthetic__discs__data=f"copies:{folder}")

    class Copies(lf.Source):
        name = "copies"

        def load(self, location):
            return on_disk

    with pytest.raises(DataError, match="known to synthetic set discs itself"):
        carry_out(study, data, study_registry(Copies), tmp_path / "study")


def test_an_external_set_loses_what_trainings_know_or_is_refused(toy_text, real, registry, tmp_path):
    text = toy_text + '[[external]]\nname = "far"\ndata = "toy-discs(first=0, count=60)"\n'
    results = carry_out(study_on(text), real, registry, tmp_path / "clean", report=False)
    assert any("External set far" in remark and "were left out" in remark for remark in results.summary()["remarks"])
    literal = study_on(text.replace('count=60)"\n', 'count=60)"\ndeleak = false\n'))
    with pytest.raises(DataError, match="of external set far, or of the same lesions, are known to training"):
        carry_out(literal, real, registry, tmp_path / "leaking")


def test_leaking_splits_are_refused_before_anything_is_made(toy_text, real, registry, tmp_path):
    first = next(record for record in real.records if record.split == "test")
    twin = replace(first, image_id="twin", split="train", group="another lesion")
    data = replace(real, records=(*real.records, twin))
    with pytest.raises(DataError, match=r"1 image of the test split.*known to training \(disc-0004\)"):
        carry_out(study_on(toy_text), data, registry, tmp_path / "study")
    assert not list((tmp_path / "study" / "cells").iterdir())


def test_a_set_that_the_study_makes_never_sees_the_test_split(toy_text, real, registry, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[train.generator]\nuse = "pixels"\nsteps = 2\n[train.unused]\nuse = "pixels"\nsteps = 2\n'
        '[synthesis]\ncount = 24\nbatch_size = 8\n[[stage]]\nuse = "square-drawer"\ncheckpoint = "train:generator"\n'
        '[[stage]]\nuse = "gate"\n[train.after]\nuse = "pixels"\non = ["real", "synthetic"]\nsteps = 2\n'
    )
    study = study_on(toy_text, synthetic__discs__recipe=str(recipe))
    results = carry_out(study, real, registry, tmp_path / "study", report=False)
    (run,) = (tmp_path / "study" / "synthetic").iterdir()
    assert {job.name for job in (run / "train").iterdir()} == {"generator"}
    lines = [json.loads(line) for file in run.glob("train/*/*_data.jsonl") for line in file.read_text().splitlines()]
    assert {line[0] for line in lines} == {*real.split("train").ids, *real.split("val").ids}
    assert results.summary()["leaks"] == []
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*.png")}
    carry_out(study, real, registry, tmp_path / "study", report=False, resume=True)
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*.png")} == before


@pytest.mark.parametrize("deleak", [True, False])
def test_a_generators_own_data_lose_the_test_images_or_need_permission(toy_text, real, registry, tmp_path, deleak):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[train.generator]\nuse = "pixels"\nsteps = 2\n[synthesis]\ncount = 40\nbatch_size = 8\n'
        '[[stage]]\nuse = "square-drawer"\ncheckpoint = "train:generator"\n'
    )
    # The generator's own data are all discs, in other splits: the paper's way with ISIC 2017 inside ISIC 2018.
    study = study_on(toy_text, synthetic__discs__recipe=str(recipe))
    study = study.with_value("synthetic.discs.trained_on", "toy-discs(first=0, count=48, splits=true)")
    study = study.with_value("synthetic.discs.deleak", deleak)
    everything = replace(
        real, records=tuple(replace(r, split="train" if n % 3 else "test") for n, r in enumerate(real.records))
    )
    if deleak:
        results = carry_out(study, everything, registry, tmp_path / "study", report=False)
        told = "images of toy-discs(first=0, count=48, splits=true) that the study tests on were left out"
        assert any(told in remark for remark in results.summary()["remarks"]) and not results.summary()["leaks"]
    else:
        with pytest.raises(DataError, match="training generator of synthetic set discs"):
            carry_out(study, everything, registry, tmp_path / "study")
