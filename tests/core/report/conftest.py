"""Run folders made by hand, in the store's own layout, so that every state of a run can be reported on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lesionforge.core.batch import Batch
from lesionforge.core.chain import Chain
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.manifest import canonical_json
from lesionforge.core.recipe import Job, Recipe, Synthesis
from lesionforge.core.run import Run
from lesionforge.core.store import RunStore, ShardDraft, pixel_columns

CHAIN = 'ddpm(checkpoint="weights", steps=50) | segmenter | mask-quality(min_area=0.01) | feature-gate'
DATA = {"name": "isic2018", "phantom": False, "cases": 1800, "size": 32, "sha256": "ab" * 32}


def disc(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy brown ellipse on skin, (size, size, 3) uint8, and its mask of 0 and 1."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    x, y, wide, high = rng.uniform(0.35, 0.65, 2).tolist() + rng.uniform(0.12, 0.35, 2).tolist()
    mask = (((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2 < 1).astype(np.uint8)
    skin, lesion = np.array([222, 178, 160]), np.array([120, 74, 58])
    image = np.where(mask[..., None] > 0, lesion, skin) + rng.normal(0, 9, (size, size, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def real_dataset(
    count: int = 40, *, size: int = 32, seed: int = 7, phantom: bool = False, masks: bool = True
) -> Dataset:
    """Return images in memory: three quarters training, the rest test; two images a lesion."""
    rng = np.random.default_rng(seed)
    pairs = [disc(size, rng) for _ in range(count)]
    records = tuple(
        Record(
            image_id=f"real-{row:03d}",
            image=image,
            mask=mask if masks else None,
            label=("nevus", "melanoma")[row % 2],
            group=f"lesion-{row // 2}",
            split="train" if row < count * 3 // 4 else "test",
        )
        for row, (image, mask) in enumerate(pairs)
    )
    return Dataset(name="isic2018", records=records, size=size, phantom=phantom)


class RunFolder:
    """A run folder under construction; every method adds one kind of content."""

    def __init__(self, root: Path) -> None:
        self.store = RunStore(root)
        self.recipe = Recipe()

    def begin(
        self, *, chain: str | None = CHAIN, count: int = 32, jobs: tuple[Job, ...] = (), **entries: str
    ) -> RunFolder:
        synthesis = Synthesis(Chain.parse(chain), count=count, shard_size=16) if chain else None
        self.recipe = Recipe(jobs=jobs, synthesis=synthesis, seed=2024, **entries)
        self.store.create(self.recipe.to_toml(), resume=False)
        return self

    def manifest(self, *, data: dict | None = DATA) -> RunFolder:
        stages = zip(self.recipe.synthesis.chain.keys, self.recipe.synthesis.chain.stages, strict=True)
        facts = [
            {
                "key": key,
                "plugin": stage.plugin,
                "role": "generator" if key in ("ddpm", "phantom") else "filter",
                "distribution": "lesionforge",
                "version": "0.1.0",
                "config": dict(stage.values),
                "checkpoints": {"checkpoint": "cd" * 32} if "checkpoint" in stage.values else {},
                "fitted": "ef" * 32 if key == "feature-gate" else None,
            }
            for key, stage in stages
        ]
        machine = {"device": "cpu", "capability": "AVX512", "threads": 2}
        versions = {"python": "3.11.4", "lesionforge": "0.1.0", "torch": "2.11.0"}
        manifest = {"stages": facts, "data": data, "machine": machine, "versions": versions, "seed": 2024}
        self.store.write_manifest(canonical_json(manifest))
        return self

    def shard(
        self, first: int = 0, count: int = 16, *, images: bool = True, masks: bool = True, soft: bool = False, **changes
    ) -> RunFolder:
        """Commit a shard; every fourth case breaks a limit of one of two filters, unless ``rejected`` says how."""
        rng, rows = np.random.default_rng(first), torch.arange(count)
        pairs = [disc(changes.get("size", 32), rng) for _ in range(count)]
        area = torch.tensor([float(mask.mean()) for _, mask in pairs], dtype=torch.float64)
        distance = torch.from_numpy(rng.gamma(6, 6, count)).clamp(max=60.0)
        batch = Batch.blank(count, seed=2024, first=first).with_columns(
            images=torch.from_numpy(np.stack([p[0] for p in pairs])).permute(0, 3, 1, 2) / 255 if images else None,
            masks=torch.from_numpy(np.stack([p[1] for p in pairs]))[:, None].float() if masks else None,
            labels=changes.get("labels", ["nevus", "melanoma"] * (count // 2)),
            prompts=changes.get("prompts"),
            soft_masks=torch.from_numpy(np.stack([p[1] for p in pairs]))[:, None].float() * 0.7 if soft else None,
            scores={
                "mahalanobis_segmenter": torch.where(rows % 8 == 3, 80.0, distance),
                "mask_area": torch.where(rows % 8 == 1, 0.005, area),
            },
        )
        limits = ((1, "mask-quality", "mask_area", 0.01), (3, "feature-gate", "mahalanobis_segmenter", 62.5))
        for remainder, by, score, limit in changes.get("rejected", limits):
            batch = batch.rejected_where(rows % 8 == remainder, plugin=by, score=score, threshold=limit)
        draft = ShardDraft(self.store, first, self.store.manifest_hash())
        written = draft.write(range(first, first + count), batch, pixel_columns(batch))

        class Written:
            def result(self):
                return written

        draft.commit([Written()])
        return self

    def fitted(self, *, stage: str = "feature-gate", values: np.ndarray | None = None) -> RunFolder:
        reference = np.random.default_rng(1).gamma(5, 7, 300) if values is None else values
        state = {
            "reference/mahalanobis_segmenter": torch.from_numpy(reference),
            "threshold": torch.tensor(62.5, dtype=torch.float64),
            "measure": torch.tensor(list(b"squared Mahalanobis distance, segmenter encoder"), dtype=torch.uint8),
        }
        save_file(state, self.store.fitted / f"{stage}.safetensors")
        return self

    def job(
        self, name: str, *, metrics: dict | None = None, dice: dict[str, float] | None = None, **changes
    ) -> RunFolder:
        """Leave what a job leaves: facts and curves; ``metrics`` where it has finished; ``dice`` by test image."""
        folder = self.store.jobs / name
        (folder / "samples").mkdir(parents=True)
        data = {**DATA, "phantom": changes.get("phantom", False)}
        (folder / "job.json").write_text(json.dumps({"on": ["real"], "data": data, "machine": None, "versions": None}))
        steps = range(10, changes.get("steps", 200) + 1, 10)
        rows = [f"{step},{1 / step + 0.02},{'' if step % 50 else 0.5 + step / 1000}" for step in steps]
        (folder / "curves.csv").write_text("\n".join(["step,loss,val_dice", *rows]) + "\n")
        sheet = disc(64, np.random.default_rng(3))[0]
        for step in (100, 200):
            Image.fromarray(sheet).save(folder / "samples" / f"step-{step:08d}.png")
        if metrics is not None:
            (folder / "metrics.json").write_text(json.dumps(metrics))
        if dice is not None:
            lines = [f"{image},{value},{value / (2 - value)},12.5,3.1" for image, value in dice.items()]
            (folder / "per_image.csv").write_text("\n".join(["image_id,dice,iou,hd95,asd", *lines]) + "\n")
        return self

    def log(self, **event) -> RunFolder:
        self.store.append_log(event)
        return self

    def open(self) -> Run:
        return Run(self.store.root)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """An empty run folder to fill."""
    return RunFolder(tmp_path / "run")


@pytest.fixture
def make_real():
    """The function that makes real data in memory."""
    return real_dataset
