"""Credit and loss against hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ragen_lite.agents.trajectory import Group, Outcome, Trajectory, Turn
from ragen_lite.loss import (
    CREDITS,
    FILTERS,
    LOSSES,
    LossInputs,
    LossOptions,
    kl_estimate,
    policy_loss,
    standardise,
    token_weights,
)  # fmt: skip


def trajectory(rewards: list[float], success: bool = False) -> Trajectory:
    """Turns of a two-token prompt and a reply of two tokens."""
    n = 4 * len(rewards)
    turns = tuple(Turn("", "", 4 * k + 2, 4 * k + 4, r, {}) for k, r in enumerate(rewards))
    sampled = tuple(i % 4 >= 2 for i in range(n))
    outcome = Outcome.SUCCESS if success else Outcome.OUT_OF_TURNS
    return Trajectory("e", 0, 0, 0, tuple(range(n)), sampled, (0.0,) * n, turns, outcome)


GROUP = Group((trajectory([1.0, 2.0], True), trajectory([-1.0]), trajectory([0.0, 1.0])))  # returns 3, -1, 1


def per_turn(group: Group, credit: str, divide: bool) -> list[list[float]]:
    found = []
    for t, a in zip(group.trajectories, CREDITS[credit](group, divide), strict=True):
        assert a.shape == (len(t.token_ids),)
        found.append([float(a[turn.start]) for turn in t.turns])
        for turn in t.turns:
            assert len(set(a[turn.start : turn.stop])) == 1
    return found


def test_grpo() -> None:
    assert per_turn(GROUP, "grpo", divide=False) == [[2, 2], [-2], [0, 0]]
    divided = per_turn(GROUP, "grpo", divide=True)  # sample standard deviation of 3, -1, 1 is 2
    assert divided[0] == pytest.approx([1, 1], abs=1e-6) and divided[1] == pytest.approx([-1], abs=1e-6)


def test_dividing_by_the_spread_favours_a_sure_payment() -> None:
    """Two arms, four members each: 0.1 for sure, or 1 with a chance of 1/4, which is the better one by 0.15."""
    credit = {True: 0.0, False: 0.0}  # expected advantage of a risky pull
    for won in range(5):
        chance = math.comb(4, won) * 0.25**won * 0.75 ** (4 - won)
        group = Group(tuple(trajectory([r]) for r in [1.0] * won + [0.0] * (4 - won) + [0.1] * 4))
        for divide in credit:
            credit[divide] += chance * sum(a for (a,) in per_turn(group, "grpo", divide)[:4]) / 4
    assert credit[False] == pytest.approx(0.15 / 2)  # against the mean of both arms
    assert credit[True] == pytest.approx(-0.0694, abs=1e-4)


def test_rloo_is_grpo_over_the_others() -> None:
    assert per_turn(GROUP, "rloo", divide=False) == [[3, 3], [-3], [0, 0]]  # 3 - mean(-1, 1), -1 - mean(3, 1), 1 - 1


def test_turn_credit() -> None:
    # to go at turn 1: 3, -1, 1 (mean 1); at turn 2, reached by two: 2, 1 (mean 1.5)
    assert per_turn(GROUP, "turn", divide=False) == [[2, 0.5], [-2], [0, -0.5]]


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("divide", [True, False])
def test_a_group_without_variance_has_no_credit_at_all(credit: str, divide: bool) -> None:
    same = Group(tuple(trajectory([0.1]) for _ in range(3)))
    assert all((a == 0.0).all() for a in CREDITS[credit](same, divide))
    assert (standardise(np.array([5.0]), divide) == 0.0).all()


def test_filters() -> None:
    failed = Group((trajectory([-1.0]), trajectory([-0.5])))
    won = Group((trajectory([9.0], True), trajectory([8.0], True)))
    same = Group((trajectory([0.1]), trajectory([0.1])))
    kept = {name: [keep(g) for g in (GROUP, failed, won, same)] for name, keep in FILTERS.items()}
    assert kept == {
        "outcome": [True, False, False, False],
        "spread": [True, True, True, False],
        "none": [True, True, True, True],
    }


def inputs(ratios: list[float], advantages: list[float], weights: list[float] | None = None) -> LossInputs:
    n = len(ratios)
    logprobs = torch.tensor([math.log(r) for r in ratios], dtype=torch.float64, requires_grad=True)
    return LossInputs(
        logprobs, torch.zeros(n, dtype=torch.float64), None, torch.full((n,), 0.5, dtype=torch.float64),
        torch.tensor(advantages, dtype=torch.float64), torch.tensor(weights or [1 / n] * n, dtype=torch.float64), 1 / n,
    )  # fmt: skip


def test_clip_higher_by_hand() -> None:
    x = inputs([1.0, 1.5, 1.5, 0.5, 0.5, 1.25], [1, 1, -1, 1, -1, 1])
    per_token, extra = LOSSES["clip"](x, LossOptions())
    assert per_token.tolist() == pytest.approx([-1, -1.28, 1.5, -0.5, 0.8, -1.25])
    assert extra["train/clip_fraction"].tolist() == [0, 1, 0, 0, 1, 0]
    per_token.sum().backward()
    assert x.logprobs.grad is not None
    assert x.logprobs.grad.tolist() == pytest.approx([-1, 0, 1.5, -0.5, 0, -1.25])  # no gradient where clipped


def test_reinforce_is_never_clipped() -> None:
    per_token, _ = LOSSES["reinforce"](inputs([3.0, 0.1], [1, -1]), LossOptions())
    assert per_token.tolist() == pytest.approx([-3, 0.1])


def test_kl_estimators_by_hand_and_in_expectation() -> None:
    p, q = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    true = (p * (p / q).log()).sum()
    for kind in ("k1", "k3"):  # unbiased under the policy
        assert (p * kl_estimate(kind, p.log(), q.log())).sum().item() == pytest.approx(true.item())
    one = torch.tensor([0.0], dtype=torch.float64)
    assert [kl_estimate(k, one, one - 1).item() for k in ("k1", "k2", "k3")] == pytest.approx([1, 0.5, math.exp(-1)])


def test_kl_and_entropy_enter_the_loss() -> None:
    x = inputs([1.0, 1.0], [0, 0])
    with_reference = LossInputs(x.logprobs, x.behaviour, x.behaviour - 1, x.entropy, x.advantages, x.weights, x.share)
    loss, metrics = policy_loss("clip", with_reference, LossOptions(kl="k2", kl_coef=0.2, entropy_coef=0.1))
    assert loss.item() == pytest.approx(0.2 * 0.5 - 0.1 * 0.5)
    assert metrics["train/kl"].item() == pytest.approx(0.5) and metrics["train/entropy"].item() == pytest.approx(0.5)


def test_aggregations() -> None:
    assert token_weights([1, 3], "token") == [0.25, 0.25]
    assert token_weights([1, 4], "sequence") == [0.5, 0.125]
    assert token_weights([1, 4], "constant", 10) == [0.05, 0.05]


def test_constant_aggregation_does_not_depend_on_the_other_lengths() -> None:
    assert token_weights([7, 2], "constant", 10)[0] == token_weights([7, 200], "constant", 10)[0]
