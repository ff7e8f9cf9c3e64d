"""GAE and bi-level GAE on numbers worked by hand, their identities, and a critic's loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.trajectory import Context, Group, Outcome, Trajectory
from ragen_lite.algorithms.advantages import Array, whitened
from ragen_lite.algorithms.critics import OwnCritic, SharedCritic
from ragen_lite.algorithms.options import BadOption
from ragen_lite.algorithms.value_credit import GAE, BiLevelGAE, ValueCredit
from tests.fixtures.making import trajectory as made
from tests.fixtures.making import turn

# A prompt of one token, a1 a2, a message of one token, b1 b2.
SPANS = [(1, 3), (4, 6)]
VALUES = np.array([9.0, 0.2, 0.3, 0.9, 0.5, 0.4])  # what stands beside no reply is never read
SAMPLED = [1, 2, 4, 5]


def played(rewards: tuple[float, float]) -> Trajectory:
    turns = [turn(*span, reward) for span, reward in zip(SPANS, rewards, strict=True)]
    return made(turns, 6, Outcome.SUCCESS)


def of(credit: ValueCredit, trajectory: Trajectory, values: Array = VALUES) -> list[float]:
    (array,) = credit.advantages(trajectory, [values])
    return [float(array[i]) for i in SAMPLED]


@pytest.mark.parametrize(
    ("credit", "rewards", "expected"),
    [
        (GAE(), (0, 1), [0.8, 0.7, 0.5, 0.6]),
        (GAE(gamma=0.9, lam=0.5), (0, 1), [0.163825, 0.2085, 0.13, 0.6]),
        (GAE(gamma=0.9, lam=0.5), (0.1, 1), [0.208825, 0.3085, 0.13, 0.6]),
        (BiLevelGAE(), (0, 1), [0.75, 0.65, 0.5, 0.6]),
    ],
    ids=["all_1", "discounted", "two_rewards", "bi_level"],
)
def test_by_hand(credit: ValueCredit, rewards: tuple[float, float], expected: list[float]) -> None:
    assert of(credit, played(rewards)) == pytest.approx(expected)


def test_whitened_by_hand() -> None:
    (array,) = GAE()([Group((played((0, 1)),))], [VALUES])
    expected = [1.161895, 0.387298, -1.161895, -0.387298]
    assert [array[i] for i in SAMPLED] == pytest.approx(expected, abs=1e-6)
    # A prompt's tokens have what their reply's first token has.
    assert (array[0], array[3]) == (array[1], array[4])
    assert not whitened([played((0, 0))], [np.full(6, 3.0)])[0].any()


def test_targets_are_advantages_before_whitening_plus_values() -> None:
    group = Group((played((0.25, 1)),))
    (target,) = GAE().targets([group], [VALUES])
    # With gamma and lambda 1, what is still to come.
    assert [target[i] for i in SAMPLED] == pytest.approx([1.25, 1.25, 1, 1])


def test_identities() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        trajectory = played((rng.normal(), rng.normal()))
        values = rng.normal(size=6)
        whole = of(GAE(), trajectory, values)
        assert of(BiLevelGAE(turn_gamma=1), trajectory, values) == pytest.approx(whole)
        # Lambda 0 is the error of one step: the next value, behind the message, less this one.
        ahead = [values[2], values[4], values[5], 0]
        reward = [0, trajectory.turns[0].reward, 0, trajectory.turns[1].reward]
        errors = [r + 0.7 * n - values[i] for r, n, i in zip(reward, ahead, SAMPLED, strict=True)]
        assert of(GAE(gamma=0.7, lam=0), trajectory, values) == pytest.approx(errors)


@pytest.mark.parametrize("credit", [GAE(0.9, 0.5), BiLevelGAE(0.9, 0.5)], ids=["gae", "bi_level"])
def test_two_contexts_are_as_one(credit: ValueCredit) -> None:
    """Where each turn has a context of its own, the same numbers stand at the same replies."""
    whole = of(credit, played((0.1, 1)))
    turns = (turn(1, 3, 0.1), turn(2, 4, 1.0, context=1))
    contexts = (
        Context((0, 1, 2), (False, True, True), (0.0,) * 3),
        Context((7, 3, 4, 5), (False, False, True, True), (0.0,) * 4),
    )
    outcome: Any = Outcome.SUCCESS
    apart = Trajectory(env_id="e", seed=0, turns=turns, contexts=contexts, outcome=outcome)
    values = [VALUES[[0, 1, 2]], VALUES[[0, 3, 4, 5]]]
    first, second = credit.advantages(apart, values)
    assert [*first[1:3], *second[2:4]] == pytest.approx(whole)


def test_a_critics_loss_by_hand() -> None:
    old, target = torch.tensor([0.2, 0.2]), torch.tensor([1.0, 1.0])
    values = torch.tensor([0.9, -0.6], requires_grad=True)
    # The second is clipped to -0.3, which is nearer; the larger error counts.
    clipped = OwnCritic(clip=0.5).loss(values, old, target)
    assert clipped.tolist() == pytest.approx([0.045, 1.28])
    assert OwnCritic().loss(values, old, target).tolist() == pytest.approx([0.005, 1.28])
    clipped.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None and values.grad.tolist() == pytest.approx([0, -1.6])


def test_options_that_cannot_work_are_refused() -> None:
    for wrong in (
        lambda: GAE(gamma=1.5),
        lambda: BiLevelGAE(turn_lam=-1),
        lambda: OwnCritic(lr_ratio=0),
        lambda: SharedCritic(coef=0),
    ):
        with pytest.raises(BadOption):
            wrong()
