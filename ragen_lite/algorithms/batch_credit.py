"""Credit against the whole step: baselines over every trajectory, turn or token of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import Group, Trajectory
from ragen_lite.algorithms.advantages import (
    Array,
    Values,
    discounted_turns,
    returns_of,
    spread_trajectories,
    spread_turns,
    standardise,
    whitened,
    with_prompts,
)
from ragen_lite.algorithms.options import share

BATCH = 1e-9  # GEM's, added to the spread


class NoCredit(UserError, ValueError):
    """A credit that these trajectories cannot be given."""


@dataclass(frozen=True)
class BatchMean:
    """One advantage a trajectory: its return less the mean over the step (Williams 1992)."""

    compares_members = False

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        if not groups:
            return []
        returns = np.concatenate([returns_of(group) for group in groups])
        standing = iter(standardise(returns, divide=False))
        arrays = []
        for group in groups:
            own = np.array([next(standing) for _ in group.trajectories])
            arrays += spread_trajectories(group, own)
        return arrays


@dataclass(frozen=True)
class MaxRL:
    """One advantage a trajectory: its return less the group's mean, over that mean.

    Its gradient is that of a sum over pass@k. Zero where nobody earned anything; returns below 0
    are refused. Source: arXiv:2602.02710, prime-rl.
    """

    from_zero = True

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage. Raises NoCredit for a return below 0."""
        arrays = []
        for group in groups:
            returns = returns_of(group)
            if returns.min() < 0:
                raise NoCredit(
                    f"credit=maxrl: a trajectory has the return {returns.min():g}, and this credit "
                    "is for returns from 0 on; take a task's reward of 0 or 1, or credit=grpo"
                )
            mean = returns.mean()
            own = standardise(returns, divide=False)
            arrays += spread_trajectories(group, own / mean if mean > 0 else own)
        return arrays


@dataclass(frozen=True)
class ReBN:
    """One advantage a turn: the return from it on, standardised over all turns of the step.

    Return batch normalisation needs no group. Source: GEM, arXiv:2510.01051.
    """

    compares_members = False

    gamma: float = 1.0
    """Discount of a turn."""

    def __post_init__(self) -> None:
        share("gamma", self.gamma)

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        trajectories = [t for group in groups for t in group.trajectories]
        per_turn = [discounted_turns(t, self.gamma) for t in trajectories]
        everything = np.concatenate([*per_turn, np.zeros(0)])
        if not len(everything) or everything.max() == everything.min():
            mean = everything.mean() if len(everything) else 0.0
            spread = np.inf
        else:
            mean = everything.mean()
            spread = everything.std() + BATCH
        arrays = []
        for trajectory, own in zip(trajectories, per_turn, strict=True):
            arrays += spread_turns(trajectory, (own - mean) / spread)
        return arrays


@dataclass(frozen=True)
class ReinforcePP:
    """One advantage a token: the return from it on, whitened over the step's sampled tokens.

    A turn's reward stands on its last sampled token; what was not sampled neither discounts nor
    resets. Source: REINFORCE++, arXiv:2501.03262.
    """

    gamma: float = 1.0
    """Discount of a token."""
    baseline: bool = False
    """Take the trajectory's return less its group's mean in place of the return from a token on."""

    def __post_init__(self) -> None:
        share("gamma", self.gamma)

    @property
    def compares_members(self) -> bool:
        """Whether a trajectory is held against its group."""
        return self.baseline

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        trajectories = [t for group in groups for t in group.trajectories]
        arrays = []
        for group in groups:
            centred = returns_of(group) - returns_of(group).mean()
            for trajectory, value in zip(group.trajectories, centred, strict=True):
                if self.baseline:
                    arrays += spread_turns(trajectory, np.full(len(trajectory.turns), value))
                else:
                    arrays += self._token_returns(trajectory)
        return whitened(trajectories, arrays)

    def _token_returns(self, trajectory: Trajectory) -> list[Array]:
        """The discounted return from each sampled token on; a prompt has its reply's first."""
        arrays = [np.zeros(len(context.token_ids)) for context in trajectory.contexts]
        after = 0.0
        for turn in reversed(trajectory.turns):
            last = turn.reward + self.gamma * after
            ahead = np.arange(turn.stop - turn.start - 1, -1, -1)
            array = arrays[turn.context]
            array[turn.start : turn.stop] = last * self.gamma**ahead
            after = array[turn.start]
        return with_prompts(trajectory, arrays)
