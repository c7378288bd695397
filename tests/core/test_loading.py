from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from PIL import Image

from lesionforge.core.errors import ConfigError, DataError, LesionforgeError, PluginError
from lesionforge.core.loading import load_dataset
from lesionforge.core.registry import Registry


@pytest.fixture(scope="module")
def sources() -> Registry:
    modules: Iterable[str] = ("folders", "isic")
    return Registry(EntryPoint(name, f"lesionforge.plugins.data.{name}", "lesionforge") for name in modules)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "my (data): a|b" / "images"
    folder.mkdir(parents=True)
    for number in range(10):
        Image.fromarray(np.full((6, 9, 3), number, np.uint8)).save(folder / f"{number}.png")
    return folder.parent


def test_location_options_split_and_size(images, sources):
    dataset = load_dataset(f"folder(fractions=[0.5, 0.0, 0.5]):{images}", split="test", size=4, registry=sources)
    assert len(dataset) == 5 and dataset.image(0).shape == (4, 4, 3)
    whole = load_dataset(f"folder:{images}", registry=sources)
    assert len(whole) == 10 and whole.image(0).shape == (6, 9, 3)


def test_every_shipped_source_registers(sources):
    assert not sources.broken
    assert {entry.name for entry in sources.entries("source")} == {
        *("folder", "imagefolder", "run", "ph2", "ham10000"),
        *(f"isic{year}" for year in range(2016, 2021)),
    }


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("/some/folder", ConfigError, r"data are named as SOURCE:PATH .* not '/some/folder'"),
        ("folder", DataError, "needs a folder: folder:PATH"),
        ("folder:", ConfigError, "nothing stands behind the colon"),
        ("folders:{images}", PluginError, "no source is called 'folders'; there are folder, ham10000"),
        ("folder(size=3):{images}", ConfigError, "data folder: unknown key 'size'; allowed are split_file"),
        ("folder(fractions=[1, 1, 1]):{images}", ConfigError, "add up to 1"),
        ("folder(fractions=:{images}", ConfigError, "SOURCE:PATH"),
        ("isic2018:{images}", DataError, "official layout"),
        ("folder:{images}/nowhere", DataError, "does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(images, sources, spec, error, message):
    with pytest.raises(error, match=message) as caught:
        load_dataset(spec.replace("{images}", str(images)), registry=sources)
    assert isinstance(caught.value, LesionforgeError) and str(caught.value).isprintable()


def test_an_absent_split_and_an_impossible_size(images, sources):
    with pytest.raises(DataError, match="no split 'holdout'; it has test, train, val"):
        load_dataset(f"folder:{images}", split="holdout", registry=sources)
    with pytest.raises(ConfigError, match="at least 1 pixel"):
        load_dataset(f"folder:{images}", size=0, registry=sources)
