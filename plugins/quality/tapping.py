"""Reading the maps inside a network while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def tapped(layers: Sequence[nn.Module], forward: Callable[[], Any]) -> list[Tensor]:
    """Run ``forward`` and return what each of ``layers`` gave out, in that order; each must run exactly once."""
    found: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _: Any, output: Tensor) -> None:
        found[layer] = output

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return [found[layer] for layer in layers]
