"""docs/plugins.md names the whole public interface, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import lesionforge as lf

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()


def test_the_table_is_the_public_interface():
    rows = re.findall(r"^\| (?!for |---)[^|]+ \| (.*) \|$", PAGE, flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(lf.__all__)


def test_every_public_name_is_there_and_described():
    bare = [name for name in lf.__all__ if name not in ("Checkpoint", "__version__") and not getattr(lf, name).__doc__]
    assert not bare
