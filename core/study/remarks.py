"""What a reader must know to judge a study, and would not see in its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.wording import count
from .comparison import Comparison, few_runs
from .outcomes import TEST, Outcome
from .statistics import FEWEST_SEEDS, SMALLEST_TEST

if TYPE_CHECKING:
    from .preparation import Material
    from .recipe import Study


def remarks(
    study: Study,
    material: Material,
    outcomes: Sequence[Outcome],
    comparisons: Sequence[Comparison],
    machines: Mapping[str, Sequence[Any]],
) -> list[str]:
    """Return all remarks, the gravest first."""
    return [
        *_sizes(outcomes, comparisons),
        *_hidden_data(study, material, outcomes),
        *material.remarks,
        *_unequal(study, outcomes),
        *_places(machines),
    ]


def _sizes(outcomes: Sequence[Outcome], comparisons: Sequence[Comparison]) -> Iterator[str]:
    if comparisons and few_runs(comparisons):
        yield (
            f"Fewer than {FEWEST_SEEDS} trainings of each kind: how much training again would change is hardly known, "
            "and no claim can rest on it."
        )
    elif any(c.seeds.wilcoxon_p is None and c.seeds.runs > 1 for c in comparisons):
        runs = min(c.seeds.runs for c in comparisons)
        yield (
            f"A rank test over {runs} runs cannot give a p below {2 / 2**runs:.2g} whatever the data, so none is "
            "shown; intervals rest on Student's t with as few degrees of freedom as there are."
        )
    for test, images in _images(outcomes).items():
        if images < SMALLEST_TEST:
            place = "The test split" if test == TEST else f"External set {test}"
            yield f"{place} has {count(images)} images, too few to show differences of a point."


def _images(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {outcome.test: len(outcome.images) for outcome in outcomes if outcome.images}


def _hidden_data(study: Study, material: Material, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Tell of real images that stand behind an arm without being counted in it."""
    for name, made in material.synthetic.items():
        behind = made.provenance.images
        counts = sorted({o.cell.real_count for o in outcomes if o.cell.training.synthetic == name})
        fewer = [number for number in counts if number < behind]
        if fewer:
            through = ", ".join(seen.by for seen in made.provenance.seen)
            arms = " or ".join(count(number) if number else "none" for number in reversed(fewer))
            yield (
                f"Synthetic set {name} was made with the help of {count(behind)} real images ({through}), but arms "
                f"with it count fewer: {arms}. A gain there is not free: it also carries what those images taught the "
                "generator, its annotators and its filters."
            )
    if study.settings.validation and any(record.split == "val" for record in material.real.records):
        held = "a fold" if study.settings.folds else f"{count(len(material.real.split('val')))} real images"
        yield (
            f"In every arm the weights are those that did best on {held} kept for validation, which the numbers of "
            "real training images do not include. validation = false leaves them out."
        )


def _unequal(study: Study, outcomes: Sequence[Outcome]) -> Iterator[str]:
    models = dict.fromkeys(outcome.row.model for outcome in outcomes)
    for model in models:
        steps = sorted({o.steps for o in outcomes if o.row.model == model and o.steps is not None})
        if len(steps) > 1:
            why = "as the budget of epochs has it" if study.settings.budget == "epochs" else "some stopped early"
            yield (
                f"Trainings of {model} took from {count(steps[0])} to {count(steps[-1])} steps, {why}; part of a "
                "difference between arms may come from that alone."
            )
    if study.settings.folds:
        yield (
            f"The {study.settings.folds} folds of a seed share most of their training images, so their runs are more "
            "alike than independent ones, and intervals may be too narrow."
        )


def _places(machines: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    if len(machines["machine"]) > 1:
        yield f"The cells were trained on {len(machines['machine'])} kinds of machines, whose last bits may differ."
    if len(machines["versions"]) > 1:
        yield f"The cells were trained by {len(machines['versions'])} different sets of package versions."
