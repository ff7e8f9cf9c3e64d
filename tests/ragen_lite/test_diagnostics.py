"""The diagnostics of a step's trajectories, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ragen_lite.agents.trajectory import Context, Outcome, Trajectory
from ragen_lite.runs import diagnostics
from tests.fixtures.making import turn


def played(
    group: int, reward: float, ids: tuple[int, ...], success: bool = False, **fields: Any
) -> Trajectory:
    """One reply of these tokens behind a prompt of one."""
    n = len(ids)
    context = Context((0, *ids), (False, *(True,) * n), (0.0,) * (n + 1))
    outcome = Outcome.SUCCESS if success else Outcome.FAILURE
    turns = (turn(1, 1 + n, reward, **fields),)
    return Trajectory(
        env_id="e", seed=0, group=group, turns=turns, contexts=(context,), outcome=outcome
    )


STEP = [
    played(0, 1.0, (1, 2, 3, 4), success=True, reply="Let me RECHECK it"),
    played(0, 0.0, (1, 1, 1, 1, 1, 1), unreadable="no tags"),
    played(1, 3.0, (5, 6), reply="Up"),
    played(1, 3.0, (5, 6, 7, 5, 6, 7, 5, 6)),
]


def test_spreads_within_and_across_groups() -> None:
    assert diagnostics.spread_within(STEP) == pytest.approx(0.5**0.5 / 2)  # 0.707 and 0
    assert diagnostics.spread_across(STEP) == pytest.approx(2.5 / 2**0.5)  # means 0.5 and 3
    assert (
        diagnostics.spread_within(STEP[:1]) is None and diagnostics.spread_across(STEP[:2]) is None
    )


def test_lengths_by_outcome() -> None:
    assert diagnostics.tokens_won(STEP) == 4 and diagnostics.tokens_lost(STEP) == pytest.approx(
        16 / 3
    )
    assert diagnostics.tokens_won(STEP[1:]) is None


def test_what_was_readable_and_wrong_reflected_and_repeated() -> None:
    assert diagnostics.readable_failures(STEP) == 0.5
    assert diagnostics.reflection(STEP) == 0.25
    # Three runs of four ones, one of them new; five runs, three of them new; the other replies have one or none.
    assert diagnostics.repetition(STEP) == pytest.approx((0 + 2 / 3 + 2 / 5) / 3)
    assert (
        diagnostics.repetition([])
        == diagnostics.reflection([])
        == diagnostics.readable_failures([])
        == 0
    )
