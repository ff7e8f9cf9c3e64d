"""Every credit against numbers worked by hand, and the identities between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.credits import by_turn, ranks, same_sign, spearman
from ragen_lite.agents.trajectory import Group, Outcome, Trajectory
from ragen_lite.algorithms.advantages import (
    GRPO,
    RLOO,
    Advantage,
    DrGRPO,
    TurnReturn,
    discounted_turns,
)
from ragen_lite.algorithms.batch_credit import BatchMean, MaxRL, NoCredit, ReBN, ReinforcePP
from ragen_lite.algorithms.options import BadOption
from ragen_lite.algorithms.tables import ADVANTAGES
from ragen_lite.algorithms.turn_credit import GiGPO, Oracle
from ragen_lite.envs.names import resolve
from tests.fixtures.making import trajectory as made
from tests.fixtures.making import turn


def played(rewards: Sequence[float], lengths: Sequence[int] = (), **fields: Any) -> Trajectory:
    """Turns of two prompt tokens and a reply of the given length; ``fields`` hold one value a turn."""
    turns = []
    at = 0
    for k, reward in enumerate(rewards):
        length = lengths[k] if lengths else 1
        own = {name: values[k] for name, values in fields.items()}
        turns.append(turn(at + 2, at + 2 + length, reward, **own))
        at += 2 + length
    return made(turns, at, Outcome.OUT_OF_TURNS)


def single(returns: Sequence[float], lengths: Sequence[int]) -> Group:
    return Group(tuple(played([r], [n]) for r, n in zip(returns, lengths, strict=True)))


def values(groups: Sequence[Group], credit: Advantage) -> list[list[float]]:
    """Of each trajectory, the advantage of every turn's first sampled token."""
    arrays = iter(credit(groups))
    found = []
    for group in groups:
        for trajectory in group.trajectories:
            (array,) = [next(arrays) for _ in trajectory.contexts]
            assert len(array) == len(trajectory.contexts[0].token_ids)
            found.append([float(array[t.start]) for t in trajectory.turns])
    return found


P = single((1, 0, 0), (2, 3, 5))
Q = single((1, 1, 1), (2, 2, 2))


@pytest.mark.parametrize(
    ("credit", "won", "lost", "solved"),
    [
        (GRPO(), 1.154699, -0.577349, 0),
        (DrGRPO(), 0.666667, -0.333333, 0),
        (RLOO(), 1, -0.5, 0),
        (MaxRL(), 2, -1, 0),
        (BatchMean(), 0.333333, -0.666667, 0.333333),
        (ReinforcePP(), 0.968246, -0.968246, 0.968246),
        (ReinforcePP(baseline=True), 2.25, -0.75, 0.25),
        (ReBN(), 0.707107, -1.414214, 0.707107),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (int, float)) else "",
)
def test_one_turn_by_hand(credit: Advantage, won: float, lost: float, solved: float) -> None:
    found = [number for (number,) in values([P, Q], credit)]
    assert found == pytest.approx([won, lost, lost, solved, solved, solved], abs=2e-6)


def test_discounted_turns_by_hand() -> None:
    assert discounted_turns(played([0.1, 0, 1]), 0.9).tolist() == pytest.approx([0.91, 0.9, 1])
    assert discounted_turns(played([0.1, 0, 1])).tolist() == pytest.approx([1.1, 1, 1])


def test_turns_are_compared_by_what_they_still_earn() -> None:
    group = Group((played([1.0, 2.0]), played([-1.0]), played([0.0, 1.0])))
    # At gamma 0.5: 2, -1, 0.5 (mean 0.5), and 2, 1 (mean 1.5).
    assert values([group], TurnReturn(normalize=False, gamma=0.5)) == [
        [1.5, 0.5],
        [-1.5],
        [0, -0.5],
    ]


STATES = Group((
    played([0, 1], observation=["s0", "s1"]),
    played([0, 0, 0], observation=["s0", "s1", "s2"]),
    played([0, 0], observation=["s0", "s2"]),
))  # fmt: skip


def test_groups_within_groups_by_hand() -> None:
    found = values([STATES], GiGPO())
    expected = [[1.3, 1.166667], [-0.65, -0.833333, -0.333333], [-0.65, -0.333333]]
    for mine, right in zip(found, expected, strict=True):
        assert mine == pytest.approx(right, abs=1e-6)
    # Without the turn's part, or where every state is another, it is the trajectory's.
    whole = values([STATES], DrGRPO())
    assert values([STATES], GiGPO(step_weight=0)) == whole
    apart = [
        played([t.reward for t in x.turns], observation=[f"{i}{k}" for k in range(len(x.turns))])
        for i, x in enumerate(STATES.trajectories)
    ]
    assert values([Group(tuple(apart))], GiGPO()) == whole
    # With one turn each, seen by all, it is (1 + weight) times the trajectory's.
    one = [[1.5 * a for a in row] for row in values([P], DrGRPO())]
    assert np.allclose(values([P], GiGPO(step_weight=0.5)), one)
    # States of other groups are other states.
    both = values([STATES, STATES], GiGPO())
    assert both == found + found


def test_token_returns_by_hand() -> None:
    # Two turns of two tokens, rewards 0 and 1, discount 0.5 a token: 1/8, 1/4, 1/2, 1.
    trajectory = played([0, 1], [2, 2])
    (array,) = ReinforcePP(gamma=0.5)._token_returns(trajectory)
    assert array.tolist() == [0.125, 0.125, 0.125, 0.25, 0.5, 0.5, 0.5, 1.0]
    # A reward amid the way is added, and observations neither discount nor reset.
    (array,) = ReinforcePP(gamma=0.5)._token_returns(played([4, 1], [1, 1]))
    assert array[[2, 5]].tolist() == [4.5, 1.0]


def test_whitened_tokens_have_mean_0_and_variance_1() -> None:
    rng = np.random.default_rng(0)
    groups = [
        Group(tuple(played(rng.normal(size=k), rng.integers(1, 5, k).tolist()) for k in (1, 3, 2)))
        for _ in range(4)
    ]
    arrays = ReinforcePP()(groups)
    masks = [np.array(t.contexts[0].loss_mask) for g in groups for t in g.trajectories]
    tokens = np.concatenate([a[m] for a, m in zip(arrays, masks, strict=True)])
    assert tokens.mean() == pytest.approx(0, abs=1e-12) and tokens.var(ddof=1) == pytest.approx(
        1, abs=1e-6
    )


def test_the_oracle_takes_the_solvers_regret() -> None:
    group = Group((
        played([0, 0], regret=[0.0, 2.0]),
        played([0, 0], regret=[float("inf"), None], unreadable=[None, "no answer"]),
    ))  # fmt: skip
    # 0, -2, -10, -10, less their mean of -5.5.
    assert values([group], Oracle(normalize=False)) == [[5.5, 3.5], [-4.5, -4.5]]
    assert values([group], Oracle(lost=3, normalize=False)) == [[2, 0], [-1, -1]]
    with pytest.raises(NoCredit, match="does not tell the regret"):
        Oracle()([P])
    assert Oracle.needs_solver and Oracle()([]) == []


def test_identities() -> None:
    rng = np.random.default_rng(1)
    for size in (2, 3, 8):
        group = single(rng.random(size).tolist(), rng.integers(1, 9, size).tolist())
        dr = np.array(values([group], DrGRPO()))
        assert np.allclose(values([group], RLOO()), dr * size / (size - 1))
        assert np.allclose(
            values([group], MaxRL()), dr / np.mean([t.returns for t in group.trajectories])
        )
        for credit in (GRPO(), DrGRPO(), RLOO(), MaxRL()):
            assert np.sum(values([group], credit)) == pytest.approx(0, abs=1e-9)


def test_the_expected_gradients_of_a_coin() -> None:
    """Bernoulli(p), all outcomes of a group: E[mean(A dlog p)] / dp is 1 for RLOO, (G - 1) / G for Dr. GRPO, and
    the sum of (1 - p)^(j - 1) for MaxRL."""
    p, size = 0.3, 4
    expected = {
        DrGRPO: (size - 1) / size,
        RLOO: 1.0,
        MaxRL: sum((1 - p) ** (j - 1) for j in range(1, size)),
    }
    for credit, right in expected.items():
        total = 0.0
        for number in range(2**size):
            wins = [number >> k & 1 for k in range(size)]
            chance = np.prod([p if win else 1 - p for win in wins])
            found = [a for (a,) in values([single(wins, [1] * size)], credit())]
            slopes = [1 / p if win else -1 / (1 - p) for win in wins]
            total += chance * np.mean([a * s for a, s in zip(found, slopes, strict=True)])
        assert total == pytest.approx(right)


def test_returns_below_0_are_refused_by_maxrl() -> None:
    with pytest.raises(NoCredit, match="has the return -0.5"):
        MaxRL()([single((1, -0.5), (1, 1))])


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_step_without_groups_and_a_trajectory_without_turns_have_no_credit(name: str) -> None:
    credit = resolve(ADVANTAGES[name])()
    needs = getattr(credit, "needs_values", False)
    assert credit([], *([[]] if needs else [])) == []
    empty = made([], 0, Outcome.OUT_OF_TOKENS)
    given = [[np.zeros(0), np.zeros(3)]] if needs else []
    arrays = credit([Group((empty, played([0.5], regret=[0.0])))], *given)
    assert [len(a) for a in arrays] == [0, 3] and all(np.isfinite(a).all() for a in arrays)


def test_how_credits_are_compared() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(a, a**3) == pytest.approx(1) and spearman(a, -a) == pytest.approx(-1)
    assert (
        spearman(a, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)
        and spearman(a, a * 0) == 0
    )
    assert ranks(np.array([5.0, 1.0, 5.0])).tolist() == [1.5, 0, 1.5]
    assert same_sign(np.array([1.0, -1, 0, 2]), np.array([3.0, 1, 5, 0])) == 0.5
    assert [v.tolist() for v in by_turn([P], DrGRPO())] == [pytest.approx([2 / 3, -1 / 3, -1 / 3])]


@pytest.mark.parametrize("credit", [TurnReturn, ReBN, ReinforcePP, GiGPO])
def test_a_discount_is_from_0_to_1(credit: Any) -> None:
    with pytest.raises(BadOption, match="from 0 to 1"):
        credit(gamma=1.5)
