"""What ``make bench-gpu`` measures, on tiny shapes and without a card: that it runs, and the table it becomes."""

from __future__ import annotations

import numpy as np

from benchmarks import gpu


def test_every_part_runs_without_a_card() -> None:
    shape = gpu.SMALL_SHAPE
    assert gpu.arithmetic(shape, "cpu")["mean_gap"] > 0
    step = gpu.learner_step(shape, "cpu", count=2, length=32, repeats=1)
    assert step["tokens_per_second"] > 0 and step["parameters"] == 205_376
    rates = gpu.engine_rates(shape, "cpu", (2,), reply=4)
    assert rates.keys() == {"2"} and rates["2"] > 0
    samples = gpu.samples_of(2, 8, 100)
    assert [s.trained for s in samples] == [6, 6] and not np.any(samples[0].loss_mask[:2])


def test_the_table_is_made_from_the_measurements() -> None:
    found = {
        "card": "NVIDIA H100", "torch": "2.11", "transformers": "5.17",
        "arithmetic": {"mean_gap": 0.004, "largest_gap": 0.05},
        "loss_memory": {"tokens": 16384, "peak_bytes": 3e9, "whole_logits_bytes": 7.5e9},
        "learner_0.5B": {"parameters": 494_000_000, "tokens_per_second": 60_000.0, "mfu": 0.18, "peak_bytes": 2e10},
        "engine": {"64": 1000.0, "512": 4000.0}, "vllm": None,
        "demonstration": {"steps": 80, "seconds": 300.0, "success_before": 0.45, "success_after": 0.68, "largest_logprob_gap": 0.1},
    }  # fmt: skip
    lines = gpu.table(found)
    assert "| learner's step, 0.5B | 60,000 tokens/s, MFU 18.0%, 20.0 GB |" in lines
    assert any("64: 1,000, 512: 4,000" in line for line in lines)
    # One that was cut off has what it measured by then.
    short = gpu.table(
        {
            name: found[name]
            for name in ("card", "torch", "transformers", "arithmetic", "loss_memory")
        }
    )
    assert short == lines[:4]
    assert gpu.table(None) == [
        "No card has been measured yet: `make bench-gpu` on one fills this table."
    ]
