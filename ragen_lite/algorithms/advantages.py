"""Credit: from a step's groups to one advantage a token.

An advantage is a frozen dataclass. Its fields are its options, and calling it is the algorithm. It
sees the whole step, before any filter drops a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragen_lite.agents.trajectory import Group, Trajectory
from ragen_lite.algorithms.options import share

Array = NDArray[np.float64]
Values = Sequence[Array]  # a critic's, one array a context, one entry a token
EPSILON = 1e-6  # verl's, added to the spread before dividing by it
WHITENING = 1e-8  # verl's, added to the variance before its root is taken


class Advantage(Protocol):
    """What an entry of the table makes, once its options are set.

    One that reads the solver's regret says ``needs_solver = True``; one that reads a critic's
    values says ``needs_values = True``, is given them, and has ``targets`` for the critic.
    ``compares_members = False`` says that a group may be of one, ``reads_rewards = False`` that
    rewards do not count, ``from_zero = True`` that returns below 0 are refused.
    """

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """One array a context, one entry a token, in nested order of groups and trajectories."""


def standardise(values: Array, divide: bool) -> Array:
    """Values less their mean; divided by their sample standard deviation where asked.

    All zero where all are equal, and where there is but one.

    >>> standardise(np.array([1.0, 3.0]), divide=False).tolist()
    [-1.0, 1.0]
    """
    # Equal returns teach nothing. Asked directly, since rounding would leave a spread of 1e-17.
    if len(values) < 2 or values.max() == values.min():
        return np.zeros(len(values))
    centred: Array = values - values.mean()
    if not divide:
        return centred
    spread: Array = values.std(ddof=1) + EPSILON
    return np.divide(centred, spread)


def spread_turns(trajectory: Trajectory, per_turn: Sequence[float] | Array) -> list[Array]:
    """Per-token advantages, one array a context, from one number a turn.

    The tokens of a turn are its prompt and its reply: they begin where the reply before it ended,
    and end where its own reply ends. All of them get the turn's number; the loss mask decides later
    which are trained on.
    """
    arrays = []
    for number, context in enumerate(trajectory.contexts):
        tokens = np.zeros(len(context.token_ids))
        start = 0
        for k, turn in trajectory.turns_of(number):
            tokens[start : turn.stop] = per_turn[k]
            start = turn.stop
        arrays.append(tokens)
    return arrays


def spread_trajectories(group: Group, per_trajectory: Array) -> list[Array]:
    """Per-token advantages of a group, from one number a trajectory."""
    arrays = []
    for trajectory, value in zip(group.trajectories, per_trajectory, strict=True):
        arrays += spread_turns(trajectory, np.full(len(trajectory.turns), value))
    return arrays


def with_prompts(trajectory: Trajectory, arrays: list[Array]) -> list[Array]:
    """Give the tokens of each turn's prompt what its reply's first token has."""
    begins: dict[int, int] = {}  # where a turn's tokens begin, behind the reply before it
    for turn in trajectory.turns:
        array = arrays[turn.context]
        array[begins.get(turn.context, 0) : turn.start] = array[turn.start]
        begins[turn.context] = turn.stop
    return arrays


def whitened(trajectories: Sequence[Trajectory], arrays: list[Array]) -> list[Array]:
    """Per-token numbers with mean 0 and variance 1 over the sampled tokens; all 0 where equal."""
    masks = [np.array(c.loss_mask, dtype=bool) for t in trajectories for c in t.contexts]
    sampled = [array[mask] for array, mask in zip(arrays, masks, strict=True)]
    everything = np.concatenate([*sampled, np.zeros(0)])
    if not len(everything) or everything.max() == everything.min():
        return [np.zeros(len(array)) for array in arrays]
    mean = everything.mean()
    spread = np.sqrt(everything.var(ddof=1) + WHITENING)
    return [(array - mean) / spread for array in arrays]


def discounted_turns(trajectory: Trajectory, gamma: float = 1.0) -> Array:
    """The return from each turn on, one number a turn, discounted by ``gamma`` a turn.

    >>> # rewards .1, 0, 1 and gamma .9 give .91, .9, 1
    """
    returns = np.zeros(len(trajectory.turns))
    after = 0.0
    for k in range(len(returns) - 1, -1, -1):
        after = trajectory.turns[k].reward + gamma * after
        returns[k] = after
    return returns


def returns_of(group: Group) -> Array:
    """The return of each trajectory of a group."""
    return np.array([trajectory.returns for trajectory in group.trajectories])


@dataclass(frozen=True)
class GRPO:
    """One advantage a trajectory: its return, standardised in its group (arXiv:2402.03300)."""

    normalize: bool = True
    """Divide by the group's sample standard deviation; Dr. GRPO does not (arXiv:2503.20783)."""

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        arrays = []
        for group in groups:
            arrays += spread_trajectories(group, standardise(returns_of(group), self.normalize))
        return arrays


@dataclass(frozen=True)
class DrGRPO:
    """One advantage a trajectory: its return less its group's mean (arXiv:2503.20783)."""

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        return GRPO(normalize=False)(groups)


@dataclass(frozen=True)
class RLOO:
    """One advantage a trajectory: its return less the mean of the others' (arXiv:2402.14740)."""

    normalize: bool = False
    """Divide by the group's sample standard deviation."""

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        arrays = []
        for group in groups:
            size = len(group.trajectories)
            # r - mean(others) = (r - mean(all)) * n / (n - 1).
            scale = size / (size - 1) if size > 1 else 1.0
            own = standardise(returns_of(group), self.normalize) * scale
            arrays += spread_trajectories(group, own)
        return arrays


@dataclass(frozen=True)
class TurnReturn:
    """One advantage a turn: the return from it on, among the group's members that reached it."""

    normalize: bool = True
    """Divide by the sample standard deviation of those members."""
    gamma: float = 1.0
    """Discount of a turn."""

    def __post_init__(self) -> None:
        share("gamma", self.gamma)

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        arrays = []
        for group in groups:
            arrays += self._of_group(group)
        return arrays

    def _of_group(self, group: Group) -> list[Array]:
        members = group.trajectories
        # What a member still earned from each of its turns on.
        to_go = [discounted_turns(t, self.gamma) for t in members]
        per_turn = [np.zeros(len(t.turns)) for t in members]
        for k in range(max((len(t.turns) for t in members), default=0)):
            # Only members that reached turn k can be compared at turn k.
            reached = [i for i, t in enumerate(members) if len(t.turns) > k]
            values = standardise(np.array([to_go[i][k] for i in reached]), self.normalize)
            for i, value in zip(reached, values, strict=True):
                per_turn[i][k] = value
        arrays = []
        for trajectory, numbers in zip(members, per_turn, strict=True):
            arrays += spread_turns(trajectory, numbers)
        return arrays
