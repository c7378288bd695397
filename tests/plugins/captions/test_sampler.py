from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lesionforge.core.batch import Batch
from lesionforge.core.chain import Chain
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import ConfigError, PluginError
from lesionforge.core.loading import load_dataset
from lesionforge.plugins.captions.plugin import DermPromptSampler
from lesionforge.plugins.captions.recombination import GROUPS, RealCases
from lesionforge.plugins.captions.wording import describe, facts
from lesionforge.testing import assert_contract, disc_dataset


@pytest.fixture(scope="module")
def real() -> RealCases:
    phantoms = load_dataset("phantom(size=64, count=20, hair=0.5)")
    return RealCases.measured(phantoms, torch.device("cpu"), lambda done, total, metrics: None)


def test_keeps_the_contract_of_its_role():
    assert_contract("derm-prompt-sampler", data=disc_dataset(8, 64))


def test_a_blank_chain_can_begin_with_prompts(tmp_path):
    chain = Chain.parse("derm-prompt-sampler | phantom(size=32)")
    run = chain.run(count=4, output=tmp_path / "run", data=disc_dataset(9, 64), device="cpu", report=False)
    prompts = [case.prompt for case in run.cases()]
    assert all(prompt.startswith("An image of <lesion> on <skin>. ") for prompt in prompts) and len(set(prompts)) > 1
    with pytest.raises(ConfigError, match="must be fitted on real data"):
        chain.run(count=4, output=tmp_path / "other", device="cpu")


def test_the_drawn_facts_are_distributed_as_the_real_ones(real):
    drawn = real.draw(range(4000), [None] * 4000, None, stream="s")
    for name in ("skin_tone", "hair", "area", "colours"):
        expected, found = (Counter(row.get(name) for row in facts(table)) for table in (real.attributes, drawn))
        for level, count in expected.items():
            assert found[level] / 4000 == pytest.approx(count / len(real.attributes), abs=0.04)


def test_each_group_comes_whole_from_one_real_case_and_groups_from_several(real):
    drawn = real.draw(range(50), [None] * 50, None, stream="s")
    donors = {}
    for group, names in GROUPS.items():
        rows = [
            torch.stack(
                [
                    (real.attributes.columns()[name].nan_to_num(-9) == drawn.columns()[name][case].nan_to_num(-9))
                    .view(len(real.attributes), -1)
                    .all(1)
                    for name in names
                ]
            ).all(0)
            for case in range(50)
        ]
        assert all(row.any() for row in rows)
        donors[group] = [int(row.nonzero()[0, 0]) for row in rows]
    assert sum(a == b for a, b in zip(donors["form"], donors["surroundings"], strict=True)) < 10


def test_a_case_s_prompt_is_its_seed_s_alone(real):
    alone = real.draw([7], [None], None, stream="s")
    among = real.draw([3, 7, 9], [None, None, None], None, stream="s")
    for name, column in alone.columns().items():
        assert torch.equal(column.nan_to_num(-9), among.columns()[name][1:2].nan_to_num(-9))


def test_labelled_cases_look_like_their_class(real):
    drawn = real.draw(range(60), ["melanoma"] * 60, None, stream="s")
    of_class = real.attributes.select((real.labels == real.classes.index("melanoma")).nonzero()[:, 0])
    assert set(drawn.area.tolist()) <= set(of_class.area.tolist())
    assert set(drawn.colours[:, 0].tolist()) <= set(of_class.colours[:, 0].tolist())
    assert not set(drawn.skin_tone.tolist()) <= set(of_class.skin_tone.tolist())
    with pytest.raises(PluginError, match="no real case is of class 'angioma'; there are"):
        real.draw([0], ["angioma"], None, stream="s")


def test_size_and_place_come_from_the_masks_that_are_there(real):
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 40:60, 5:25] = 1
    drawn = real.draw([1, 2], [None, None], masks, stream="s")
    assert drawn.area[0].item() == pytest.approx(400 / 64**2, rel=0.03)
    assert drawn.centre[0].tolist() == pytest.approx([15 / 64, 50 / 64], abs=0.01)
    plain = real.draw([1, 2], [None, None], None, stream="s")
    assert torch.equal(drawn.colours, plain.colours)
    assert drawn.area[1] == plain.area[1], "an empty mask says nothing"


def test_the_fit_survives_being_written(real):
    again = RealCases.from_state(real.state(), torch.device("cpu"))
    assert again.classes == real.classes and again.captions == real.captions
    assert torch.equal(again.labels, real.labels)
    for name, column in real.attributes.columns().items():
        assert torch.equal(again.attributes.columns()[name].nan_to_num(-9), column.nan_to_num(-9))


def test_a_prompt_agrees_with_the_mask_that_is_there():
    sampler = DermPromptSampler(DermPromptSampler.Config(wording="plain"))
    sampler.setup(Context(torch.device("cpu"), name="derm-prompt-sampler"))
    sampler.load_fit(sampler.fit(disc_dataset(6, 64)))
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 2:14, 2:14] = 1
    [prompt] = sampler.annotate(Batch.blank(1).with_columns(masks=masks)).prompts
    assert "A small round lesion" in prompt and "towards the upper left" in prompt


def without_masks(data: Dataset, keep: Callable[[Record], bool]) -> Dataset:
    records = [record if keep(record) else replace(record, mask=None) for record in data.records]
    return replace(data, records=tuple(records))


def fitted(data: Dataset) -> RealCases:
    return RealCases.measured(data, torch.device("cpu"), lambda done, total, metrics: None)


def test_a_class_without_masks_lends_skin_and_marks_only():
    data = without_masks(disc_dataset(12, 64), lambda record: record.label == "melanoma")
    real = fitted(data)
    melanoma, nevus = (real.draw(range(40), [label] * 40, None, stream="s") for label in ("melanoma", "nevus"))
    assert melanoma.area.isfinite().all() and melanoma.colours.isfinite().all()
    assert nevus.area.isnan().all() and nevus.colours.isnan().all() and nevus.elongation.isnan().all()
    assert nevus.skin_tone.isfinite().all() and torch.equal(nevus.skin_tone, melanoma.skin_tone)
    anyone = real.draw(range(40), [None] * 40, None, stream="s")
    assert set(anyone.area.tolist()) <= set(melanoma.area.tolist())


def test_without_any_mask_prompts_are_invented_for_every_class():
    sampler = DermPromptSampler(DermPromptSampler.Config(wording="plain", prefix="A {label}."))
    sampler.setup(Context(torch.device("cpu"), name="derm-prompt-sampler"))
    sampler.load_fit(sampler.fit(without_masks(disc_dataset(6, 64), lambda record: False)))
    prompts = sampler.annotate(Batch.blank(2).with_columns(labels=("nevus", "melanoma"))).prompts
    assert [prompt.split(",")[0] for prompt in prompts] == ["A nevus. A lesion", "A melanoma. A lesion"]
    assert all("skin" in prompt for prompt in prompts)


def test_what_has_a_caption_need_not_be_measured():
    data = disc_dataset(6, 64)
    uncaptioned = replace(data.records[4], caption=None)
    data = replace(data, records=(*data.records[:4], uncaptioned, data.records[5]))
    real = RealCases.measured(data, torch.device("cpu"), lambda *report: None, spare_captioned=True)
    assert real.attributes.skin_tone.isfinite().tolist() == [row == 4 for row in range(6)]
    texts = {text for group in real.examples(range(50), [None] * 50, stream="s") for text in group}
    measured = describe(fitted(data).attributes.select([4]), [0], varied=False)
    assert texts == {record.caption for record in data.records if record.caption} | set(measured)
