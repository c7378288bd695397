"""What a stage is told before it starts: where to compute, how precisely, under which name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from .registry import Registry

Precision = Literal["fp32", "bf16"]


def _ignore_progress(done: int, total: int, metrics: Mapping[str, Any]) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class Context:
    """Surroundings of one stage or training job.

    Attributes:
        device: where tensors live and networks run.
        precision: arithmetic of network forwards; ``bf16`` means bfloat16 autocast.
        name: the stage's key in its chain (``ddpm``, ``mask-quality-2``) or the training job's name; hash it with
            ``kernels.stream_of`` to get the stage's own noise stream.
        seed: the run's or training job's seed.
        progress: call it with (done, total, metrics) during long work; shown as a progress bar.
        registry: where to look up plugins that this one uses; None means everything installed.
    """

    device: torch.device
    precision: Precision = "fp32"
    name: str = ""
    seed: int = 0
    progress: Callable[[int, int, Mapping[str, Any]], None] = field(default=_ignore_progress)
    registry: Registry | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context manager under which networks run: bfloat16 autocast, or nothing for fp32."""
        import torch

        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_device(name: str = "auto") -> torch.device:
    """Return the torch device for ``name``; ``auto`` takes the first CUDA device, else the CPU.

    Raises:
        ConfigError: the name is no device, or no such device is present.
    """
    import torch

    from .errors import ConfigError, first_line

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {first_line(error)}") from error
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> Precision:
    """Resolve ``auto``: bf16 where the hardware multiplies it natively (CUDA sm_80 up, AVX-512 BF16), else fp32."""
    import torch

    from .errors import ConfigError

    if name == "fp32" or name == "bf16":
        return name
    if name != "auto":
        raise ConfigError(f"precision {name!r} is not known; take auto, fp32 or bf16")
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "bf16" if native else "fp32"
