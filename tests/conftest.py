from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # pytest names test modules by their path below its root; from tests/ that would be a `kernels` that shadows PyPI's.
    config._rootpath = config.rootpath.parent
