"""An example of a lesionforge plugin package: a generator that draws ellipses, and a filter on sharpness."""

from __future__ import annotations

from pydantic import Field

import lesionforge as lf


class Ellipses(lf.Generator):
    """Draws a dark ellipse on a bright ground, with its exact mask."""

    name = "ellipses"

    class Config(lf.PluginConfig):
        size: int = Field(64, ge=16, le=1024, description="edge in pixels")
        contrast: float = Field(0.5, gt=0, le=0.7, description="brightness of the ground minus that of the ellipse")

    def generate(self, batch: lf.Batch) -> lf.Batch:
        import torch

        from lesionforge.kernels import seeded_uniform, stream_of

        # Case by case the only source of randomness: its seed, and the name under which this stage runs.
        drawn = seeded_uniform(batch.seeds, (5,), stream=stream_of(self.context.name), device=self.context.device)
        centre_x, centre_y, radius_x, radius_y, tone = (column.view(-1, 1, 1, 1) for column in drawn.unbind(dim=1))
        grid = (torch.arange(self.config.size, device=drawn.device) + 0.5) / self.config.size
        x = (grid.view(1, 1, 1, -1) - 0.4 - 0.2 * centre_x) / (0.1 + 0.2 * radius_x)
        y = (grid.view(1, 1, -1, 1) - 0.4 - 0.2 * centre_y) / (0.1 + 0.2 * radius_y)
        masks = (x.square() + y.square() < 1).float()
        images = (0.7 + 0.3 * tone - self.config.contrast * masks).expand(-1, 3, -1, -1).contiguous()
        return batch.with_columns(images=images, masks=masks, labels=["ellipse"] * len(batch))


class Sharpness(lf.Filter):
    """Rejects images whose mean gradient lies below a percentile of the real images' own."""

    name = "sharpness"
    needs_fit = True

    class Config(lf.PluginConfig):
        percentile: float = Field(5.0, ge=0, le=100, description="percentile of the real images below which to reject")

    def fit(self, real: lf.Dataset):
        import torch

        values = torch.cat([self._measure(batch.images) for batch in real.batches(64, masks=False)])
        return {"reference/sharpness": values, "threshold": torch.quantile(values, self.config.percentile / 100)}

    def load_fit(self, state) -> None:
        self.threshold = float(state["threshold"])

    def screen(self, batch: lf.Batch) -> lf.Batch:
        batch.require("images", stage=self.context.name)
        values = self._measure(batch.images)
        scored = batch.with_columns(scores={"sharpness": values})
        return scored.rejected_where(
            values < self.threshold, plugin=self.context.name, score="sharpness", threshold=self.threshold
        )

    @staticmethod
    def _measure(images):
        return images.diff(dim=2).abs().mean(dim=(1, 2, 3)) + images.diff(dim=3).abs().mean(dim=(1, 2, 3))


@lf.hookimpl
def register_plugins():
    return [Ellipses, Sharpness]
