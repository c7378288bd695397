from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import Field
from torch.nn import functional

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.registry import Registry
from lesionforge.plugins.quality import extractors, plugin


class Colours(lf.Extractor):
    """Stands for a trained network: fixed colour maps at two resolutions."""

    name = "colours"

    class Config(lf.PluginConfig):
        model: str = Field("small", description="anything")
        weights: lf.Checkpoint | None = Field(None, description="anything")

    label = "colours of a test"

    def feature_maps(self, images):
        mixing = torch.tensor([[1.0, 0.5, 0.2], [0.1, 1.0, -0.4], [0.3, -0.7, 1.0], [0.6, 0.6, 0.6]])
        maps = torch.einsum("kc,nchw->nkhw", mixing, images)
        return [functional.avg_pool2d(maps, 2), functional.avg_pool2d(maps.square(), 8)]

    def features(self, images):
        return torch.cat([layer.mean((2, 3)) for layer in self.feature_maps(images)], dim=1)


@pytest.fixture
def registry() -> Registry:
    """The house's quality plugins and the test's extractor, in place of what is installed."""
    fakes = SimpleNamespace(register_plugins=lf.hookimpl(lambda: [Colours]))
    modules = {"quality": plugin, "extractors": extractors, "fakes": fakes}
    found = Registry(
        [
            SimpleNamespace(
                name=name, dist=SimpleNamespace(name="test", version="1"), load=lambda module=module: module
            )
            for name, module in modules.items()
        ]
    )
    assert not found.broken
    return found


@pytest.fixture
def ready(registry: Registry):
    """Return a function that creates a plugin and sets it up on the CPU."""

    def create(role: str, name: str, key: str = "", **values):
        made = registry.create(role, name, values, where=name)
        made.setup(Context(torch.device("cpu"), name=key or name, registry=registry))
        return made

    return create
