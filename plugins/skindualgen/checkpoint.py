"""The folder of a trained adapter: ``unet_lora/`` as peft writes it, ``vae.safetensors``, and ``config.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.peft_model import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from ...core.durable import new_folder, read_json, write_bytes, write_text
from ...core.errors import CheckpointError, StoreError, first_line
from ..data.icd11 import Terms
from ..stable_diffusion.base import StableDiffusionBase, load_base
from ..stable_diffusion.fingerprint import base_fingerprint
from .network import PairNetwork, widened
from .widening import load_widened, widened_state

KIND = "skindualgen"
LORA, LORA_CONFIG, LORA_WEIGHTS = "unet_lora", "adapter_config.json", "adapter_model.safetensors"
VAE_WEIGHTS, CARD = "vae.safetensors", "config.json"
DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StoreError)


@dataclass(frozen=True)
class AdapterCard:
    """What a sampler must know besides weights.

    Attributes:
        base: name of the base, as the training was told.
        base_sha256: its :func:`base_fingerprint`.
        prediction_type: what its U-Net predicts.
        classes: class names that prompts were trained with.
        size: edge in pixels of the training images.
        dataset: name of the training data.
        terms: how prompts word the classes.
    """

    base: str
    base_sha256: str
    prediction_type: str
    classes: tuple[str, ...]
    size: int
    dataset: str
    terms: Terms = "plain"


def save_adapter(network: PairNetwork, card: AdapterCard, folder: Path) -> None:
    """Write what was learnt into ``folder``; ``config.json`` comes last and marks it as complete."""
    lora = network.adapted.peft_config["default"].to_dict()
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in lora.items()}
    settings |= {"base_model_name_or_path": card.base, "inference_mode": True}
    with new_folder(folder / LORA) as draft:
        tensors = get_peft_model_state_dict(network.adapted, save_embedding_layers=False)
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, draft / LORA_WEIGHTS)
        write_text(draft / LORA_CONFIG, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    write_bytes(folder / VAE_WEIGHTS, save(widened_state(network.first, network.last)))
    write_text(folder / CARD, json.dumps({"kind": KIND, **asdict(card)}, indent=2) + "\n")


def load_adapted(folder: Path, base: str | None = None) -> tuple[StableDiffusionBase, AdapterCard]:
    """Return the base that an adapter was trained on, widened, with the adapter merged into it, and the card.

    Args:
        folder: what :func:`save_adapter` wrote.
        base: the base's name here; unless given, the name that training knew it by.

    Raises:
        CheckpointError: the folder is missing, of another kind or damaged, or the base is missing or another one.
    """
    card = read_card(folder)
    loaded = _matching_base(folder, card, base)
    first, last = widened(loaded)
    try:
        load_widened(first, last, load_file(folder / VAE_WEIGHTS))
        for name in (LORA_CONFIG, LORA_WEIGHTS):
            if not (folder / LORA / name).is_file():
                raise FileNotFoundError(f"{LORA}/{name} is missing")
        lora = LoraConfig.from_pretrained(str(folder / LORA))
        lora.base_model_name_or_path = None  # peft would warn that a local module has no name
        tensors = load_file(folder / LORA / LORA_WEIGHTS)
        adapted = get_peft_model(loaded.unet, lora)  # type: ignore[arg-type]
        if set(get_peft_model_state_dict(adapted, save_embedding_layers=False)) != set(tensors):
            raise ValueError(f"{LORA}/ has other tensors than its configuration says")
        set_peft_model_state_dict(adapted, tensors)
    except DAMAGE as error:
        raise CheckpointError(
            f"skindualgen checkpoint {folder} is damaged: {first_line(error)}; train it again"
        ) from error
    assert isinstance(adapted, PeftModel)
    adapted.merge_and_unload()
    return loaded, card


def read_card(folder: Path) -> AdapterCard:
    """Return the card in ``folder``; raises CheckpointError where there is none or it is of another kind."""
    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(
            f"no skindualgen checkpoint at {folder}: there is no {CARD}; give the finished output folder of trainer "
            "skindualgen"
        )
    try:
        values: dict[str, Any] = read_json(path)
        kind = values.pop("kind", None)
        if kind != KIND:
            raise CheckpointError(f"{folder} holds a checkpoint of kind {kind!r}, not {KIND!r}")
        return AdapterCard(**{**values, "classes": tuple(values["classes"])})
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"skindualgen checkpoint {folder}: {CARD} is damaged: {first_line(error)}") from error


def _matching_base(folder: Path, card: AdapterCard, name: str | None) -> StableDiffusionBase:
    try:
        base = load_base(name or card.base)
    except CheckpointError as error:
        hint = "" if name else f"; name the base that adapter {folder} was trained on with base=..."
        raise CheckpointError(f"{error}{hint}") from error
    if base.schedule.prediction_type != card.prediction_type:
        raise CheckpointError(
            f"adapter {folder} was trained on a base that predicts {card.prediction_type}, {base.folder} predicts "
            f"{base.schedule.prediction_type}; give base {card.base}"
        )
    found = base_fingerprint(base)
    if found != card.base_sha256:
        raise CheckpointError(
            f"adapter {folder} was trained on another base than {base.folder}: on {card.base} with weights "
            f"{card.base_sha256[:12]}, these are {found[:12]}; give the base it was trained on"
        )
    return base
