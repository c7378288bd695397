from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lesionforge.core.batch import Batch
from lesionforge.core.chain import Chain
from lesionforge.core.config import build_config, checkpoint_fields
from lesionforge.core.context import Context
from lesionforge.core.errors import ConfigError, DataError, PluginError
from lesionforge.core.loading import load_dataset
from lesionforge.plugins.captions.attributes import Attributes, measure
from lesionforge.plugins.captions.config import PREFIX, DescriptionConfig
from lesionforge.plugins.captions.plugin import DermPrompt
from lesionforge.testing import assert_contract, disc_dataset

AXIS = torch.arange(256) + 0.5


def stage(**values) -> DermPrompt:
    annotator = DermPrompt(build_config(DescriptionConfig, values, where="stage derm-prompt"))
    annotator.setup(Context(torch.device("cpu"), name="derm-prompt"))
    return annotator


def scene() -> Batch:
    """A small black disc at the lower right of light skin."""
    mask = ((AXIS - 190) ** 2 + (AXIS[:, None] - 190) ** 2 < 30**2).float()[None, None]
    skin = torch.tensor([0.86, 0.72, 0.62])[:, None, None].expand(3, 256, 256)
    image = torch.where(mask > 0, torch.tensor([0.11, 0.08, 0.07])[:, None, None], skin)
    return Batch.blank(1).with_columns(images=image, masks=mask)


def test_a_drawn_scene_is_described_as_it_was_drawn():
    assert stage(wording="plain").annotate(scene()).prompts == (
        f"{PREFIX} A small round lesion, black, symmetric with a regular border, towards the lower right, "
        "on very light skin.",
    )


@pytest.mark.parametrize("edge", [512, 1000])
def test_the_size_of_the_image_changes_nothing(edge):
    batch = scene()
    assert batch.images is not None and batch.masks is not None
    sizes = {"size": (edge, edge), "mode": "bilinear", "antialias": True}
    images = torch.nn.functional.interpolate(batch.images, **sizes)
    masks = (torch.nn.functional.interpolate(batch.masks, **sizes) > 0.5).float()
    other = batch.with_columns(images=images, masks=masks)
    assert stage(wording="plain").annotate(other).prompts == stage(wording="plain").annotate(batch).prompts


def test_without_a_mask_nothing_is_said_of_the_lesion():
    batch = scene()
    bare = Batch.blank(1).with_columns(images=batch.images)
    empty = bare.with_columns(masks=torch.zeros_like(batch.masks))
    for without in (bare, empty):
        [prompt] = stage(wording="plain").annotate(without).prompts
        assert prompt == f"{PREFIX} A lesion, on very light skin."


def test_keeps_the_contract_of_its_role():
    assert_contract('derm-prompt(prefix="{label}:", max_tokens=20)', data=disc_dataset(8, 64))


def test_a_column_of_cases_can_be_taken_apart_and_joined():
    batch = load_dataset("phantom(size=64, count=5)").fetch(range(5), masks=True)
    found = measure(batch.images, batch.masks)
    again = Attributes.joined([found.select([3]), found.select([0, 4])])
    assert len(again) == 3
    for name, column in again.columns().items():
        assert torch.equal(column.nan_to_num(-9), found.columns()[name][[3, 0, 4]].nan_to_num(-9))
    assert len(measure(torch.zeros(0, 3, 8, 8))) == 0


def test_masks_must_belong_to_the_images():
    with pytest.raises(DataError, match="do not belong to images"):
        measure(torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 8, 8))


def test_images_are_needed_and_the_sampler_is_pointed_at():
    with pytest.raises(PluginError, match=r"stage derm-prompt describes images, .* derm-prompt-sampler"):
        stage().annotate(Batch.blank(2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "endpoint"}, "backend endpoint needs url, model, cache"),
        ({"backend": "transformers"}, "backend transformers needs checkpoint"),
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"url": "http://me:secret@host/v1"}, "holds no user name"),
        ({"key_variable": "sk-123"}, "the name of an environment variable is meant"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(values, message):
    with pytest.raises(ConfigError, match=message):
        build_config(DescriptionConfig, values, where="stage derm-prompt")


def test_what_it_reads_is_declared_to_the_runner():
    assert sorted(checkpoint_fields(DescriptionConfig)) == ["captions", "checkpoint"]


def test_in_a_chain_prompts_land_in_the_ledger(tmp_path):
    chain = Chain.parse('phantom(size=32) | derm-prompt(prefix="A dermoscopic image.")')
    run = chain.run(count=3, output=tmp_path / "run", device="cpu", report=False)
    prompts = [case.prompt for case in run.cases()]
    assert len(prompts) == 3 and all(prompt.startswith("A dermoscopic image. ") for prompt in prompts)


def test_the_plugin_module_is_light():
    code = (
        "import sys; import lesionforge.plugins.captions.plugin as p; p.register_plugins();"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'PIL'} & sys.modules.keys();"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
