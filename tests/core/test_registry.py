from __future__ import annotations

import pytest

import lesionforge as lf
from lesionforge.core.errors import PluginError
from lesionforge.core.registry import Registry


def _raise(error):
    raise error


def test_a_plugin_that_fails_to_import_is_listed_and_fails_only_when_asked_for(toys):
    bad = toys.entry_point("bad", lambda: _raise(ImportError("no module named frobnicate\nmore")), "stranger")
    registry = toys.toy_registry(bad)
    assert [(b.entry_point, b.distribution) for b in registry.broken] == [("bad", "stranger")]
    assert registry.find("blobs").distribution == "toy-distribution"
    with pytest.raises(
        PluginError, match=r"plugin 'bad' of stranger is broken: ImportError: no module named frobnicate$"
    ):
        registry.find("bad")


def test_two_plugins_of_one_role_and_name_name_both_distributions(toys):
    registry = toys.toy_registry(toys.entry_point("again", lambda: toys.module([toys.Blobs]), "other-distribution"))
    with pytest.raises(PluginError, match="provided by both other-distribution and toy-distribution"):
        registry.find("blobs", "generator")
    assert registry.find("threshold")


def test_an_unknown_hook_is_reported(toys):
    hooks = {"run_finished": lf.hookimpl(lambda: None)}
    registry = Registry([toys.entry_point("typo", lambda: toys.module([], **hooks))])
    assert "implements unknown hooks run_finished; known are" in registry.broken[0].reason


@pytest.mark.parametrize("thing", [object(), int, lf.Generator])
def test_what_is_no_plugin_is_reported(toys, thing):
    registry = Registry([toys.entry_point("odd", lambda: toys.module([thing]))])
    assert len(registry.broken) == 1 and not registry.entries()


def test_an_incomplete_plugin_is_told_what_it_lacks(toys):
    class Lazy(lf.Filter):
        """Does nothing."""

        name = "lazy"

    registry = Registry([toys.entry_point("lazy", lambda: toys.module([Lazy]))])
    assert "plugin lazy does not define screen" in registry.broken[0].reason


def test_a_name_used_in_two_roles_is_found_by_role(toys):
    class BlobSource(lf.Source):
        """Blobs as data."""

        name = "blobs"

        def load(self, location):
            raise NotImplementedError

    registry = toys.toy_registry(toys.entry_point("s", lambda: toys.module([BlobSource])))
    assert registry.find("blobs", "source").plugin is BlobSource
    with pytest.raises(PluginError, match="names a generator and a source; say which role"):
        registry.find("blobs")
