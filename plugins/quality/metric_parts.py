"""What all metrics share: the number of resamples, their extractor, and what numbers depend on through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

if TYPE_CHECKING:
    from ...core.metrics import Comparison
    from ...core.roles import Extractor

RESAMPLES = Field(1000, ge=0, le=100_000, description="bootstrap resamples of lesions for the interval; 0 for none")


def shared_extractor(config: Any, comparison: Comparison, metric: str) -> Extractor:
    """Return the extractor that a metric's ``config`` names, loaded once for all metrics that name the same."""
    from .real_features import ready_extractor

    names = (config.extractor, config.model, config.weights)
    return comparison.shared(
        ("extractor", *names),
        lambda: ready_extractor(*names, comparison.context, where=f"metric {metric}"),
        of_second=False,
    )


def conventions_of(extractor: Extractor) -> dict[str, Any]:
    """Return what a number that was measured with ``extractor`` depends on."""
    return {"extractor": extractor.label, "weights": extractor.weights_hash}
