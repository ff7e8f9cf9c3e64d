"""Micro-batches: literal masks and positions, little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragen_lite.learning.batches import Sample, collate, free_padding, plan


def sample(ids: list[int], trained: list[int], base: float = 0.0) -> Sample:
    n = len(ids)
    mask = np.array(trained, dtype=bool)
    return Sample(ids, mask, base - np.arange(n) / 10, base + np.arange(n) * 1.0, mask)


# Three turns: prompt 5 6, reply 7 2; message 3 8 9, reply 4 2 (cut short: no 2); message 3 9, reply 2
THREE_TURNS = sample(
    [5, 6, 7, 2, 3, 8, 9, 4, 4, 2, 3, 9, 2], [0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1]
)
SHORT = sample([5, 9, 2], [0, 0, 1], base=100.0)


def test_the_literal_targets_of_three_turns() -> None:
    batch = collate([THREE_TURNS, SHORT], [0.5, 0.25], [0, 1], pad_id=0, dtype=torch.float64)
    assert batch.token_ids.tolist() == [
        [5, 6, 7, 2, 3, 8, 9, 4, 4, 2, 3, 9, 2],
        [5, 9, 2] + [0] * 10,
    ]
    assert batch.targets.tolist() == [7, 2, 4, 4, 2, 2]
    assert batch.predictors.tolist() == [1, 2, 6, 7, 11, 13 + 1]  # the position before each
    assert batch.behaviour_logprobs.tolist() == pytest.approx([-0.2, -0.3, -0.7, -0.8, -1.2, 99.8])
    assert batch.advantages.tolist() == [2, 3, 7, 8, 12, 102]
    assert batch.rows.tolist() == [0] * 5 + [1] and batch.sampled.all()
    assert batch.weights.tolist() == [0.5] * 5 + [0.25]
    assert (batch.tokens, batch.padding) == (16, 10)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80),
    budget=st.integers(50, 3000),
    free=st.sampled_from([0, 0, 100, 9000]),
)
def test_a_plan_holds_every_sample_once_within_its_budget(
    lengths: list[int], budget: int, free: int
) -> None:
    batches = plan(lengths, budget, free)
    assert sorted(i for part in batches for i in part) == list(range(len(lengths)))
    for part in batches:
        area = len(part) * max(lengths[i] for i in part)
        assert area <= budget or len(part) == 1
        assert area - sum(lengths[i] for i in part) <= max(free, 0.05 * area + 1e-9)


def test_padding_is_free_where_a_pass_is_dear() -> None:
    lengths = [50, 40, 20, 10]
    assert plan(lengths, 1000) == [[0], [1], [2], [3]]
    assert plan(lengths, 1000, free=40) == [[0, 1, 2], [3]] and len(plan(lengths, 1000, 80)) == 1
    assert free_padding(865_664, torch.device("cpu")) == 0
    small, large = (free_padding(size, torch.device("cuda")) for size in (1_000_000, 7_000_000_000))
    assert small > 500_000 and 50 < large < 150


def test_padding_stays_under_five_percent() -> None:
    lengths = np.random.default_rng(0).integers(90, 320, size=160).tolist()
    area = sum(len(part) * max(lengths[i] for i in part) for part in plan(lengths, 8192))
    assert 1 - sum(lengths) / area < 0.05
