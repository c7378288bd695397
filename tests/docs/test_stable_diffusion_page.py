"""The page about Stable Diffusion is run from top to bottom, and prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "stable-diffusion.md"


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    promised = [match for block in blocks for match in re.findall(r"^print\(.*\)  # (.*)$", block, flags=re.MULTILINE)]
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert capsys.readouterr().out.splitlines() == promised and len(promised) == 5
    assert (names["guided"] != names["latents"]).any()
