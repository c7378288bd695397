"""A Stable Diffusion base: networks, tokenizer and noise schedule, from a folder in diffusers' format or the hub."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SCHEDULER_CONFIG_NAME
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from ...core.checkpoints import checkpoint_path, hub_revision, is_hub_name
from ...core.durable import new_folder, read_json, write_text
from ...core.errors import CheckpointError, StoreError, first_line
from ..diffusion.schedule import NoiseSchedule
from .posterior import downsampling
from .progress_bars import without_progress_bars

LATENT_CHANNELS = 4
NETWORKS: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
PARTS = (*NETWORKS, "tokenizer", "scheduler")
DAMAGE = (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError, StoreError)


@dataclass(frozen=True)
class StableDiffusionBase:
    """The parts of a Stable Diffusion model of version 1 or 2, in evaluation mode.

    Attributes:
        unet: predicts noise, velocity or the clean latents, see ``schedule.prediction_type``.
        vae: images (N, 3, H, W) in [-1, 1] <-> latents (N, 4, H / f, W / f), f = :attr:`downsampling`.
        text_encoder: tokens -> (N, 77, d).
        schedule: the forward process that the U-Net was trained on.
        folder: where the parts were loaded from.
        revision: the hub's commit, None for a folder of one's own.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule
    folder: Path
    revision: str | None = None

    @property
    def downsampling(self) -> int:
        """Pixels along the edge of one latent."""
        return downsampling(self.vae)

    @property
    def size(self) -> int:
        """Edge in pixels of the images that the U-Net was made for."""
        return self.unet.config["sample_size"] * self.downsampling

    @property
    def device(self) -> torch.device:
        """Where the U-Net's weights are."""
        return self.unet.device

    def to(self, device: torch.device | str) -> Self:
        """Move the networks to ``device``, those with convolutions channels-last, and return this base."""
        self.unet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.text_encoder.to(device)  # type: ignore[arg-type]
        return self

    def compiled(self, backend: str = "inductor") -> Self:
        """Compile the U-Net in place with ``torch.compile``, on its first passes, and return this base.

        Each shape gets code of its own, and none is chosen by timing it, so that a case keeps its bits whatever was
        drawn before it. Inductor needs a C++ compiler on the CPU.
        """
        options = {"deterministic": True} if backend == "inductor" else None
        self.unet.compile(backend=backend, dynamic=False, options=options)
        return self


def load_base(where: str | Path) -> StableDiffusionBase:
    """Load a base in fp32 on the CPU.

    Args:
        where: a local folder in diffusers' format, ``builtin:NAME``, or ``owner/model`` or ``owner/model@revision`` on
            the hub. What is local or in the hub's cache is loaded without a network.

    Raises:
        CheckpointError: there is no such base, or it is of another kind, incomplete or damaged.
    """
    folder = _find(str(where))
    networks = {part: _network(folder, part) for part in NETWORKS}
    base = StableDiffusionBase(
        **networks,
        tokenizer=_read(folder, "tokenizer", lambda: _tokenizer(folder / "tokenizer")),
        schedule=_read(folder, "scheduler", lambda: _schedule(folder / "scheduler")),
        folder=folder,
        revision=hub_revision(folder),
    )
    _check_fit(base)
    return base


def save_base(base: StableDiffusionBase, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write all parts into ``folder`` as diffusers does, weights as safetensors in ``dtype``.

    ``model_index.json`` comes last and marks it as complete; diffusers' StableDiffusionPipeline opens the folder.
    Raises StoreError where the file system refuses.
    """
    for part in NETWORKS:
        network = getattr(base, part)
        if network.dtype != dtype:
            network = copy.deepcopy(network)
            nn.Module.to(network, dtype)  # diffusers' own warns of layers that there are not
        with new_folder(folder / part) as draft, without_progress_bars():
            network.save_pretrained(draft)
    with new_folder(folder / "tokenizer") as draft:
        base.tokenizer.save_pretrained(draft)
    with new_folder(folder / "scheduler") as draft:
        base.schedule.ddim().save_pretrained(draft)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        **{part: ["diffusers", NETWORKS[part].__name__] for part in ("unet", "vae")},
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    write_text(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


def _find(name: str) -> Path:
    path = checkpoint_path(name)
    if is_hub_name(name) and not all((path / part).is_dir() for part in PARTS):
        return _download(name)
    if not path.is_dir():
        raise CheckpointError(
            f"no Stable Diffusion base at {name}: there is no such folder; give a folder in diffusers' format with "
            f"{', '.join(PARTS)}, builtin:NAME, or a hub name"
        )
    return path


def _download(name: str) -> Path:
    """Fetch the parts' configurations and safetensors into the hub's cache and return the snapshot's folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    model, _, revision = name.partition("@")
    wanted = [f"{part}/*{suffix}" for part in PARTS for suffix in (".json", ".txt", ".safetensors")]
    variants = ["*.fp16.safetensors", "*.non_ema.safetensors"]
    try:
        found = snapshot_download(model, revision=revision or None, allow_patterns=wanted, ignore_patterns=variants)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"no Stable Diffusion base at {name}: it is neither a folder nor in the hub's cache, and could not be "
            f"downloaded: {first_line(error)}; give a local folder in diffusers' format"
        ) from error
    return Path(found)


def _network(folder: Path, part: str) -> Any:
    kind = NETWORKS[part]

    def load() -> Any:
        config = read_json(folder / part / "config.json")
        said = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
        if said != kind.__name__:
            raise ValueError(f"it holds a {said}, not a {kind.__name__}")
        precision = {"torch_dtype" if part != "text_encoder" else "dtype": torch.float32}
        with without_progress_bars():
            network, report = kind.from_pretrained(
                folder / part, local_files_only=True, use_safetensors=True, output_loading_info=True, **precision
            )
        # Both libraries would leave what is missing random.
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"its weights lack {len(missing)} tensors, {missing[0]} first")
        return network.eval()

    return _read(folder, part, load)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    # Without its files transformers would make up a vocabulary of three words.
    if not (folder / "tokenizer.json").is_file() and not (folder / "merges.txt").is_file():
        raise ValueError("it has neither tokenizer.json nor vocab.json and merges.txt")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _schedule(folder: Path) -> NoiseSchedule:
    return NoiseSchedule.from_config(read_json(folder / SCHEDULER_CONFIG_NAME))


def _read(folder: Path, part: str, load: Callable[[], Any]) -> Any:
    if not (folder / part).is_dir():
        raise CheckpointError(
            f"{folder} is no Stable Diffusion base: {part}/ is missing; one in diffusers' format has {', '.join(PARTS)}"
        )
    try:
        return load()
    except DAMAGE as error:
        raise CheckpointError(f"Stable Diffusion base {folder}: {part}/ cannot be used: {first_line(error)}") from error


def _check_fit(base: StableDiffusionBase) -> None:
    """Raise CheckpointError where the parts do not belong together, or latents have other than 4 channels."""
    unet, text = base.unet.config, base.text_encoder.config
    channels = {"unet in_channels": unet["in_channels"], "unet out_channels": unet["out_channels"]}
    channels["vae latent_channels"] = base.vae.config["latent_channels"]
    problems = [
        f"{key} is {count}, not {LATENT_CHANNELS}" for key, count in channels.items() if count != LATENT_CHANNELS
    ]
    width = unet["cross_attention_dim"]
    if width != text.hidden_size:
        problems.append(f"the unet attends to text {width} wide, the encoder's is {text.hidden_size} wide")
    if len(base.tokenizer) > text.vocab_size:
        problems.append(f"the tokenizer has {len(base.tokenizer)} tokens, the encoder knows {text.vocab_size}")
    if problems:
        raise CheckpointError(f"Stable Diffusion base {base.folder}: {'; '.join(problems)}")
