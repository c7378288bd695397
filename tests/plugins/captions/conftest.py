from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def coordinates() -> tuple[torch.Tensor, torch.Tensor]:
    """Horizontal and vertical coordinates of the pixels of a 256 px square, from its upper left corner."""
    axis = torch.arange(256) + 0.5
    return axis.expand(256, 256), axis[:, None].expand(256, 256)
