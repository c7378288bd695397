"""The model card beside the weights: what it is, what it learnt from, how, how it looks, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from ....core.chain import write_value
from ....core.context import Context
from ....core.dataset import Dataset
from ....core.durable import write_text
from ..base import LATENT_CHANNELS
from .autoencoder import FOLDER
from .pictures import save_curves

if TYPE_CHECKING:
    from .plugin import LatentDiffusionConfig

CARD = "README.md"
CURVES = "curves.png"
PARTS = {"vae": "autoencoder", "text_encoder": "text encoder (CLIP's vocabulary)", "unet": "U-Net"}


def write_card(output: Path, config: LatentDiffusionConfig, train: Dataset, context: Context) -> None:
    """Write ``README.md`` and ``curves.png`` into the finished folder ``output``."""
    save_curves([output / FOLDER / "curves.csv", output / "curves.csv"], output / CURVES)
    sections = [_opening(output, config), _data(config, train), _recipe(config, context), _pictures(output), LIMITS]
    write_text(output / CARD, "\n\n".join(sections) + "\n")


def add_measurements(output: Path, test: Dataset, metrics: Mapping[str, float]) -> None:
    """Add what was measured on ``test`` to the card."""
    card = (output / CARD).read_text(encoding="utf-8")
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
    section = f"## Measured on {len(test):,} test images\n\n| | mean |\n| --- | --- |\n{rows}\n"
    write_text(output / CARD, f"{card}\n{section}")


def _opening(output: Path, config: LatentDiffusionConfig) -> str:
    rows = "\n".join(f"| `{part}/` | {words} | {_parameters(output / part):,} |" for part, words in PARTS.items())
    edge = config.size // config.factor
    return f"""# A small latent diffusion base for dermoscopic images

Text to image at {config.size} px, latents of {LATENT_CHANNELS} x {edge} x {edge}, trained from scratch by
lesionforge's trainer `latent-diffusion`. In diffusers' layout: `StableDiffusionPipeline.from_pretrained` loads it, and
so do all Stable-Diffusion methods of lesionforge. **For research only**: nothing here is validated for clinical use.

| folder | network | parameters |
| --- | --- | --- |
{rows}

Weights are bf16 safetensors. The U-Net has self- and cross-attention on every level, {edge} x {edge} and coarser."""


def _data(config: LatentDiffusionConfig, train: Dataset) -> str:
    kind = " **They are procedural phantoms, not real images.**" if train.phantom else ""
    captions = f"by `{config.captioner}`" if config.captioner else "the data's own"
    return f"""## Data

{len(train):,} images of `{train.name}`, the split `train` alone; no image of the splits `val` and `test` was learnt
from.{kind} Licence of the data: {config.licence}.

Captions: {captions}. In training a share of {config.short_share:g} was replaced by "{config.short_prompt}" and of
{config.empty_share:g} by nothing."""


def _recipe(config: LatentDiffusionConfig, context: Context) -> str:
    settings = "\n".join(f"{key} = {write_value(value)}" for key, value in config.model_dump(mode="json").items())
    machine = "a GPU" if context.device.type == "cuda" else "a CPU"
    return f"## Recipe\n\nTrained on {machine} in {context.precision}, seed {context.seed}.\n\n```toml\n{settings}\n```"


def _pictures(output: Path) -> str:
    shown = ["## Curves and samples", f"![Curves of both trainings]({CURVES})"]
    for folder, words in (
        (f"{FOLDER}", "Held-out images where there are some, and what the autoencoder makes of them"),
        ("samples", "Samples for captions of training images, by DDIM with 25 steps; not chosen by looks"),
    ):
        newest = max((output / folder).glob("step-*.png"), default=None)
        if newest is not None:
            shown.append(f"![{words}]({folder}/{newest.name})\n\n*{words}.*")
    return "\n\n".join(shown)


LIMITS = """## What it cannot do

- It is small and was trained shortly on few images: texture is soft, hairs and rulers are smeared or missing.
- It knows the words of its captions and no others; what a caption says is followed in part.
- It inherits what its data lack, above all darker skin and rare diagnoses.
- How far it repeats training images was not examined."""


def _parameters(folder: Path) -> int:
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118, the handle is no mapping
                size = 1
                for edge in weights.get_slice(name).get_shape():
                    size *= edge
                count += size
    return count
