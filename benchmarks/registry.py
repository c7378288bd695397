"""All benchmarks. A new one is a module with a BENCHMARK, and its line here."""

from __future__ import annotations

from . import attention, dilated_block, guided_step, mask_extraction, pipeline_overhead, sampling, seeded_noise, startup

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        startup.BENCHMARK,
        seeded_noise.BENCHMARK,
        mask_extraction.BENCHMARK,
        dilated_block.BENCHMARK,
        attention.REFINEMENT,
        attention.LAYOUT_LOSS,
        attention.TOKEN_ATTENTION,
        pipeline_overhead.BENCHMARK,
        sampling.BENCHMARK,
        guided_step.BENCHMARK,
    )
}
