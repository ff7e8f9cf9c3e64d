"""Micro-batches: literal masks and positions, little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragen_lite.batch import Sample, collate, plan


def sample(ids: list[int], trained: list[int], base: float = 0.0) -> Sample:
    n = len(ids)
    return Sample(ids, np.array(trained, dtype=bool), base - np.arange(n) / 10, base + np.arange(n) * 1.0)


# Three turns: prompt 5 6, reply 7 2; message 3 8 9, reply 4 2 (cut short: no 2); message 3 9, reply 2
THREE_TURNS = sample([5, 6, 7, 2, 3, 8, 9, 4, 4, 2, 3, 9, 2], [0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1])
SHORT = sample([5, 9, 2], [0, 0, 1], base=100.0)


def test_the_literal_targets_of_three_turns() -> None:
    batch = collate([THREE_TURNS, SHORT], [0.5, 0.25], [[0], [1]], pad_id=0, dtype=torch.float64)
    assert batch.token_ids.tolist() == [[5, 6, 7, 2, 3, 8, 9, 4, 4, 2, 3, 9, 2], [5, 9, 2] + [0] * 10]
    assert batch.position_ids.tolist() == [list(range(13)), [0, 1, 2] + [0] * 10]
    assert batch.mask is None
    assert batch.targets.tolist() == [7, 2, 4, 4, 2, 2]
    assert batch.predictors.tolist() == [1, 2, 6, 7, 11, 13 + 1]  # the position before each
    assert batch.behaviour.tolist() == pytest.approx([-0.2, -0.3, -0.7, -0.8, -1.2, 99.8])
    assert batch.advantages.tolist() == [2, 3, 7, 8, 12, 102]
    assert batch.weights.tolist() == [0.5] * 5 + [0.25]
    assert (batch.tokens, batch.padding) == (16, 10)


def test_packed_rows_see_only_themselves() -> None:
    batch = collate([sample([5, 6, 2], [0, 1, 1]), SHORT], [1.0, 1.0], [[0, 1]], pad_id=0, dtype=torch.float64)
    assert batch.token_ids.tolist() == [[5, 6, 2, 5, 9, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert batch.mask is not None and batch.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]
    assert batch.predictors.tolist() == [0, 1, 4] and batch.targets.tolist() == [6, 2, 2]


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80), packed=st.booleans(), budget=st.integers(50, 3000)
)
def test_a_plan_holds_every_sample_once_within_its_budget(lengths: list[int], packed: bool, budget: int) -> None:
    batches = plan(lengths, budget, packed)
    assert sorted(i for rows in batches for row in rows for i in row) == list(range(len(lengths)))
    for rows in batches:
        widths = [sum(lengths[i] for i in row) for row in rows]
        area = len(rows) * max(widths)
        assert area <= budget or len(rows) == 1
        assert packed or (area - sum(widths)) / area <= 0.05 + 1e-12


def test_padding_stays_under_five_percent_packed_too() -> None:
    lengths = np.random.default_rng(0).integers(90, 320, size=160).tolist()
    for packed in (False, True):
        batches = plan(lengths, 8192, packed)
        area = sum(len(rows) * max(sum(lengths[i] for i in row) for row in rows) for rows in batches)
        assert 1 - sum(lengths) / area < 0.05
