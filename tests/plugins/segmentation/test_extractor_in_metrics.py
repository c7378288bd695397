from __future__ import annotations

import hashlib

import lesionforge as lf


def test_a_kernel_distance_names_the_segmenter_and_its_weights(checkpoint):
    first, second = (lf.load_dataset(f"phantom(count=6, size=32, seed={seed})") for seed in (1, 2))
    metric = f'kernel(extractor="segmenter", weights="{checkpoint}", resamples=20)'
    results = lf.compare(first, second, [metric], device="cpu")
    assert not results.refused
    (found,) = results.measured
    assert found.name.startswith("kernel distance, segmenter encoder")
    expected = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()[:8]
    assert found.conventions["weights"] == expected
