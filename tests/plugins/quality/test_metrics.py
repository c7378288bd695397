"""Metrics of two datasets against scikit-image, SciPy and their definitions in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import ConfigError, PluginError
from lesionforge.core.metrics import Comparison, measure, why_not

SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def noisy(name, count=8, size=24, seed=0, shift=0, group=1):
    rng = np.random.default_rng(seed)
    base = np.linspace(30, 200, size * size * 3).reshape(size, size, 3)
    pixels = (base + shift + rng.normal(0, 25, (count, size, size, 3))).clip(0, 255).astype(np.uint8)
    masks = np.zeros((count, size, size), np.uint8)
    for row in range(count):
        masks[row, : row + 2, :5] = 1
    records = [Record(f"i{n}", pixels[n], masks[n], group=f"lesion-{n // group}") for n in range(count)]
    return Dataset(name, tuple(records))


def measured(registry, first, second, *metrics, seed=0):
    found = lf.compare(first, second, metrics, device="cpu", seed=seed, registry=registry)
    assert not found.refused
    return found.measured


def arrays(first, second, scale):
    rows = range(len(first))
    return [data.images_array(rows).astype(np.float64) / 255 * scale for data in (first, second)]


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_mse_psnr_and_ssim_match_their_definitions(registry, scale):
    first, second = noisy("a"), noisy("b", seed=1, shift=10)
    names = [f"{name}(data_range={scale}, resamples=50)" for name in ("mse", "psnr", "ssim")]
    mse, psnr, ssim = measured(registry, first, second, *names)
    a, b = arrays(first, second, scale)
    squares = ((a - b) ** 2).mean((1, 2, 3))
    assert mse.value == pytest.approx(squares.mean(), rel=1e-5)
    assert psnr.value == pytest.approx(np.mean(10 * np.log10(scale**2 / squares)), rel=1e-5)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(a, b, strict=True)
    expected = [structural_similarity(x, y, channel_axis=2, data_range=scale, **options) for x, y in pairs]
    assert ssim.value == pytest.approx(np.mean(expected), abs=1e-5)
    assert ssim.conventions["data_range"] == scale and ssim.pairs == 8


def literal_ms_ssim(a, b):
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()

    def smooth(x):
        return correlate1d(correlate1d(x, window, 0), window, 1)[5:-5, 5:-5]

    factors = []
    for scale in range(5):
        mean_a, mean_b = smooth(a), smooth(b)
        var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
        contrast = (2 * (smooth(a * b) - mean_a * mean_b) + 0.03**2) / (var_a + var_b + 0.03**2)
        light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        factors.append(max((contrast if scale < 4 else contrast * light).mean(), 0))
        a, b = (
            x[: len(x) // 2 * 2, : len(x) // 2 * 2].reshape(len(x) // 2, 2, len(x) // 2, 2, 3).mean((1, 3))
            for x in (a, b)
        )
    return np.prod([factor**weight for factor, weight in zip(factors, SSIM_WEIGHTS, strict=True)])


def test_ms_ssim_matches_its_definition(registry):
    first, second = noisy("a", 2, 176), noisy("b", 2, 176, seed=1)
    (found,) = measured(registry, first, second, "ms-ssim")
    pairs = zip(*arrays(first, second, 1.0), strict=True)
    assert found.value == pytest.approx(np.mean([literal_ms_ssim(x, y) for x, y in pairs]), abs=1e-6)


def test_equal_images_are_as_near_as_can_be(registry):
    data = noisy("a")
    values = [
        found.value for found in measured(registry, data, data, "mse", "psnr", "ssim", 'lpips(extractor="colours")')
    ]
    assert values == [0, float("inf"), pytest.approx(1), 0]


def features(registry, data):
    extractor = registry.create("extractor", "colours", {}, where="test")
    return extractor.features(data.fetch(range(len(data))).images).double().numpy()


def test_set_distances_match_scipy_and_a_double_sum(registry):
    first, second = noisy("a", 40), noisy("b", 30, seed=1, shift=8)
    options = '(extractor="colours", resamples=20)'
    frechet, kernel = measured(registry, first, second, f"frechet{options}", f"kernel{options}")
    a, b = features(registry, first), features(registry, second)
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet.value == pytest.approx(expected, rel=1e-3)
    table = [[[(x @ y / 8 + 1) ** 3 for y in right] for x in left] for left, right in ((a, a), (b, b), (a, b))]
    within = [(np.sum(t) - np.trace(t)) / (len(t) * (len(t) - 1)) for t in table[:2]]
    assert kernel.value == pytest.approx(sum(within) - 2 * np.mean(table[2]), rel=1e-6, abs=1e-9)
    assert frechet.name == "Frechet distance, colours of a test" and frechet.conventions["features"] == 8
    for found in (frechet, kernel):
        assert found.low < found.value < found.high and found.images == (40, 30)
    assert measured(registry, second, first, f"kernel{options}")[0].value == pytest.approx(kernel.value, rel=1e-9)


def test_the_first_dataset_is_described_once_for_all_second_ones(registry, monkeypatch):
    first, others = noisy("a", 20), [noisy("b", seed=1), noisy("c", seed=2)]
    colours, batches = registry.find("colours", "extractor").plugin, []
    found = colours.features
    monkeypatch.setattr(colours, "features", lambda self, images: batches.append(images) or found(self, images))
    kernel = registry.create("metric", "kernel", {"extractor": "colours"}, where="metric")
    pair = Comparison(first, others[0], Context(torch.device("cpu"), registry=registry))
    told = [measure("kernel", kernel, pair.with_second(data)) for data in others]
    assert len(batches) == 2 + 1 + 1
    assert told == [measured(registry, first, data, 'kernel(extractor="colours")')[0] for data in others]


def test_a_frechet_distance_of_few_images_is_refused_and_a_kernel_distance_is_not(registry):
    found = lf.compare(
        noisy("a", 8),
        noisy("b", 9),
        ['frechet(extractor="colours")', 'kernel(extractor="colours")'],
        device="cpu",
        registry=registry,
    )
    assert [item.name for item in found.measured] == ["kernel distance, colours of a test"]
    assert "needs at least 9 images" in found.refused[0].reason and "KID" in found.refused[0].reason


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ('frechet(extractor="colours")', "needs at least 9 images in each set, but the second has 4"),
        ('kernel(extractor="colours")', None),
        ('lpips-diversity(extractor="colours", among="between")', None),
        ("fid(weights='nowhere')", "weights nowhere do not exist"),
        ("ssim", "no image ids in common"),
        ('ssim(pair_by="mask")', None),
        ('ms-ssim-diversity(among="between")', "161x161 pixels, not 24x24"),
        ('lpips-diversity(extractor="colours", among="second")', None),
    ],
)
def test_what_is_known_beforehand_is_told_without_a_look_at_the_second_set(registry, metric, told):
    first = noisy("a", 20).resized(24)
    records = tuple(Record(f"case-{n}", Path("never-read.png")) for n in range(4))
    reason = why_not(first, Dataset("stand-in", records, size=24), metric, device="cpu", registry=registry)
    assert (reason is None) if told is None else (told in reason)


def test_pairs_within_a_single_image_are_refused_beforehand(registry):
    one = Dataset("stand-in", (Record("case-0", Path("never-read.png")),), size=24)
    metric = 'lpips-diversity(extractor="colours", among="second")'
    reason = why_not(noisy("a", 20).resized(24), one, metric, device="cpu", registry=registry)
    assert reason == "pairs within a set need images of at least two lesions"


def test_intervals_are_wider_where_lesions_repeat(registry):
    """Copies add no knowledge: three of each image must not narrow the interval."""
    single = [noisy(name, 20, seed=seed) for name, seed in (("a", 0), ("b", 1))]

    def tripled(data):
        records = [Record(f"{r.image_id}-{n}", r.image, group=r.lesion) for r in data.records for n in range(3)]
        return Dataset(data.name, tuple(records))

    (once,) = measured(registry, *single, "mse(resamples=2000)")
    (thrice,) = measured(registry, *map(tripled, single), "mse(resamples=2000)")
    assert thrice.value == pytest.approx(once.value) and thrice.groups == (20, 20) and thrice.pairs == 60
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.1)
    errors = ((np.subtract(*arrays(*single, 1.0))) ** 2).mean((1, 2, 3))
    assert once.high - once.low == pytest.approx(2 * 1.96 * errors.std() / 20**0.5, rel=0.15)


def test_pairs_by_mask_find_the_case_whatever_its_name(registry):
    first, second = noisy("a"), noisy("b", seed=1)
    renamed = Dataset("c", tuple(Record(f"case-{n}", r.image, r.mask) for n, r in enumerate(reversed(second.records))))
    (by_id,) = measured(registry, first, second, "mse")
    (by_mask,) = measured(registry, first, renamed, 'mse(pair_by="mask")')
    assert by_mask.value == pytest.approx(by_id.value, rel=1e-12) and by_mask.pairs == 8
    refused = lf.compare(first, renamed, ["mse"], device="cpu", registry=registry).refused
    assert "no image ids in common" in refused[0].reason


def test_random_pairs_are_seeded_and_named(registry):
    first, second = noisy("a", group=2), noisy("b", seed=1)
    metric = 'lpips-diversity(extractor="colours", among="{}", pairs=40)'
    between, again = (measured(registry, first, second, metric.format("between"))[0] for _ in range(2))
    within = measured(registry, first, second, metric.format("first"))[0]
    assert between == again and between != measured(registry, first, second, metric.format("between"), seed=1)[0]
    assert between.name == "perceptual distance, colours of a test, random pairs between both"
    assert within.name.endswith("random pairs within the first") and within.groups == (4, 4)
    one = noisy("one", group=8)
    assert (
        "two lesions"
        in lf.compare(one, one, [metric.format("first")], device="cpu", registry=registry).refused[0].reason
    )


def test_small_images_and_unequal_sizes_are_refused(registry):
    small, large = noisy("a", 3, 24), noisy("b", 3, 32)
    reasons = [item.reason for item in lf.compare(small, large, ["mse"], device="cpu", registry=registry).refused]
    reasons += [item.reason for item in lf.compare(small, small, ["ms-ssim"], device="cpu", registry=registry).refused]
    assert "24x24 and 32x32" in reasons[0] and "161x161 pixels, not 24x24" in reasons[1]


def test_bad_metrics_stop_before_any_work(registry):
    data = noisy("a", 2)
    for expression, error in (("nothing", PluginError), ("mse(data_range=0)", ConfigError), ("mse:x", ConfigError)):
        with pytest.raises(error):
            lf.compare(data, data, [expression], device="cpu", registry=registry)
