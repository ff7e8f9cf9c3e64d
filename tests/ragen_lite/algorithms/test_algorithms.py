"""Credit and loss against hand-worked numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.trajectory import Group, Outcome, Trajectory
from ragen_lite.algorithms.advantages import GRPO, RLOO, Advantage, TurnReturn, standardise
from ragen_lite.algorithms.filters import KeepAll, MixedOutcomes, Spread
from ragen_lite.algorithms.kl import K1, K2, K3, k1, k2, k3
from ragen_lite.algorithms.losses import PPO, LossInputs, Reinforce, token_weights
from ragen_lite.algorithms.options import BadOption
from ragen_lite.algorithms.tables import ADVANTAGES
from ragen_lite.envs.names import resolve
from tests.fixtures.making import trajectory as made
from tests.fixtures.making import turn


def trajectory(rewards: list[float], success: bool = False) -> Trajectory:
    """Turns of a two-token prompt and a reply of two tokens."""
    turns = [turn(4 * k + 2, 4 * k + 4, reward) for k, reward in enumerate(rewards)]
    outcome = Outcome.SUCCESS if success else Outcome.OUT_OF_TURNS
    return made(turns, 4 * len(rewards), outcome)


GROUP = Group(
    (trajectory([1.0, 2.0], True), trajectory([-1.0]), trajectory([0.0, 1.0]))
)  # returns 3, -1, 1


def per_turn(group: Group, credit: Advantage) -> list[list[float]]:
    found = []
    for t, a in zip(group.trajectories, credit([group]), strict=True):
        assert a.shape == (len(t.contexts[0].token_ids),)
        found.append([float(a[x.start]) for x in t.turns])
        for x in t.turns:
            assert len(set(a[x.start : x.stop])) == 1
    return found


def test_grpo() -> None:
    assert per_turn(GROUP, GRPO(normalize=False)) == [[2, 2], [-2], [0, 0]]
    divided = per_turn(GROUP, GRPO(normalize=True))  # sample standard deviation of 3, -1, 1 is 2
    assert divided[0] == pytest.approx([1, 1], abs=1e-6) and divided[1] == pytest.approx(
        [-1], abs=1e-6
    )


def test_dividing_by_the_spread_favours_a_sure_payment() -> None:
    """Two arms, four members each: 0.1 for sure, or 1 with a chance of 1/4, which is the better one by 0.15."""
    credit = {True: 0.0, False: 0.0}  # expected advantage of a risky pull
    for won in range(5):
        chance = math.comb(4, won) * 0.25**won * 0.75 ** (4 - won)
        group = Group(tuple(trajectory([r]) for r in [1.0] * won + [0.0] * (4 - won) + [0.1] * 4))
        for divide in credit:
            credit[divide] += (
                chance * sum(a for (a,) in per_turn(group, GRPO(normalize=divide))[:4]) / 4
            )
    assert credit[False] == pytest.approx(0.15 / 2)  # against the mean of both arms
    assert credit[True] == pytest.approx(-0.0694, abs=1e-4)


def test_rloo_is_grpo_over_the_others() -> None:
    assert per_turn(GROUP, RLOO(normalize=False)) == [
        [3, 3],
        [-3],
        [0, 0],
    ]  # 3 - mean(-1, 1), -1 - mean(3, 1), 1 - 1


def test_turn_credit() -> None:
    # to go at turn 1: 3, -1, 1 (mean 1); at turn 2, reached by two: 2, 1 (mean 1.5)
    assert per_turn(GROUP, TurnReturn(normalize=False)) == [[2, 0.5], [-2], [0, -0.5]]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_group_without_variance_has_no_credit_at_all(name: str) -> None:
    calm = made([turn(2, 4, 0.1, regret=1.0)], 4, Outcome.OUT_OF_TURNS)
    same = Group((calm, calm, calm))
    credit = resolve(ADVANTAGES[name])()
    given = [[np.zeros(4)] * 3] if getattr(credit, "needs_values", False) else []
    assert all((a == 0.0).all() for a in credit([same], *given))


@pytest.mark.parametrize("divide", [True, False])
def test_one_value_alone_has_no_spread(divide: bool) -> None:
    assert (standardise(np.array([5.0]), divide) == 0.0).all()


def test_filters() -> None:
    failed = Group((trajectory([-1.0]), trajectory([-0.5])))
    won = Group((trajectory([9.0], True), trajectory([8.0], True)))
    same = Group((trajectory([0.1]), trajectory([0.1])))
    step = (GROUP, failed, won, same)
    assert MixedOutcomes()(step) == [True, False, False, False]
    assert Spread()(step) == [True, True, True, False]
    assert KeepAll()(step) == [True, True, True, True]


def test_credit_sees_the_whole_step_in_order() -> None:
    other = Group((trajectory([5.0]), trajectory([7.0, 0.0])))
    for name in ("grpo", "rloo", "turn_return"):
        credit = resolve(ADVANTAGES[name])()
        together = credit([GROUP, other])
        apart = credit([GROUP]) + credit([other])
        assert len(together) == 5
        for first, second in zip(together, apart, strict=True):
            assert first.tolist() == second.tolist()


def inputs(ratios: list[float], advantages: list[float]) -> LossInputs:
    n = len(ratios)
    logs = [math.log(ratio) for ratio in ratios]
    zeros = torch.zeros(n, dtype=torch.float64)
    return LossInputs(
        logprobs=torch.tensor(logs, dtype=torch.float64, requires_grad=True),
        behaviour_logprobs=zeros,
        reference_logprobs=zeros - 1,
        entropy=zeros + 0.5,
        advantages=torch.tensor(advantages, dtype=torch.float64),
        weights=zeros + 1 / n,
        sequences=torch.zeros(n, dtype=torch.long),
        share=1 / n,
    )


def test_clip_higher_by_hand() -> None:
    x = inputs([1.0, 1.5, 1.5, 0.5, 0.5, 1.25], [1, 1, -1, 1, -1, 1])
    output = PPO()(x)
    assert output.per_token.tolist() == pytest.approx([-1, -1.28, 1.5, -0.5, 0.8, -1.25])
    assert output.metrics["train/clip_fraction"].tolist() == [0, 1, 0, 0, 1, 0]
    output.per_token.sum().backward()  # type: ignore[no-untyped-call]
    assert x.logprobs.grad is not None
    # No gradient where it is clipped.
    assert x.logprobs.grad.tolist() == pytest.approx([-1, 0, 1.5, -0.5, 0, -1.25])


def test_reinforce_is_never_clipped() -> None:
    assert Reinforce()(inputs([3.0, 0.1], [1, -1])).per_token.tolist() == pytest.approx([-3, 0.1])


def test_kl_estimators_by_hand_and_in_expectation() -> None:
    p = torch.tensor([0.7, 0.3], dtype=torch.float64)
    q = torch.tensor([0.5, 0.5], dtype=torch.float64)
    true = (p * (p / q).log()).sum()
    for estimate in (k1, k3):  # unbiased under the policy
        assert (p * estimate(p.log() - q.log())).sum().item() == pytest.approx(true.item())
    one = torch.tensor([1.0], dtype=torch.float64)
    by_hand = [1, 0.5, math.exp(-1)]
    assert [estimate(one).item() for estimate in (k1, k2, k3)] == pytest.approx(by_hand)
    found = [kl(coef=0.2).estimate(inputs([1.0], [0.0])).item() for kl in (K1, K2, K3)]
    assert found == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: PPO(clip_low=-0.1), "clip_low"),
        (lambda: PPO(clip_high=float("nan")), "clip_high"),
        (lambda: PPO(entropy_coef=-1.0), "entropy_coef"),
        (lambda: Reinforce(aggregation="mean"), "aggregation"),
        (lambda: K3(coef=0.0), "coef"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(BadOption) as refused:
        make()
    assert refused.value.key == key


def test_aggregations() -> None:
    assert token_weights([1, 3], "token") == [0.25, 0.25]
    assert token_weights([1, 4], "sequence") == [0.5, 0.125]
    assert token_weights([1, 4], "constant", 10) == [0.05, 0.05]


def test_constant_aggregation_does_not_depend_on_the_other_lengths() -> None:
    assert token_weights([7, 2], "constant", 10)[0] == token_weights([7, 200], "constant", 10)[0]
