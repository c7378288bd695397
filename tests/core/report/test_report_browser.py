"""The page in Chromium, where there is one: laid out, and nothing on the console."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from lesionforge.core.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_chromium_opens_the_page_without_a_word(folder, make_real, tmp_path):
    folder.begin(name="<b>page</b>").manifest().shard(0).fitted().shard(16)
    page = write_report(folder.open(), real=make_real())
    picture = tmp_path / "page.png"
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900", f"--screenshot={picture}"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60)
    assert picture.exists(), done.stderr
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
