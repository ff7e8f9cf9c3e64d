"""Credit by a critic: what happened, against what the critic had expected.

A value is that of the state *before* a token. What was not sampled neither discounts nor resets:
behind the last token of a turn comes the value of the first token of the next turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragen_lite.agents.trajectory import Group, Trajectory
from ragen_lite.algorithms.advantages import Array, Values, whitened, with_prompts
from ragen_lite.algorithms.options import share


@dataclass(frozen=True)
class ValueCredit(ABC):
    """What an entry of the table with a critic is made from."""

    needs_values = True
    compares_members = False

    gamma: float = 1.0
    """Discount of a sampled token."""
    lam: float = 1.0
    """Share of what is learnt from later tokens: 1 waits for the outcome, 0 trusts the critic."""

    def __post_init__(self) -> None:
        share("gamma", self.gamma)
        share("lam", self.lam)

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """The advantages, whitened over the step's sampled tokens; see Advantage."""
        trajectories = [t for group in groups for t in group.trajectories]
        return whitened(trajectories, self._all(trajectories, values))

    def targets(self, groups: Sequence[Group], values: Values) -> list[Array]:
        """What the critic should have said, at each sampled token, arranged as the values are."""
        trajectories = [t for group in groups for t in group.trajectories]
        arrays = self._all(trajectories, values)
        return [array + value for array, value in zip(arrays, values, strict=True)]

    def _all(self, trajectories: Sequence[Trajectory], values: Values | None) -> list[Array]:
        assert values is not None
        given = iter(values)
        arrays = []
        for trajectory in trajectories:
            own = [next(given) for _ in trajectory.contexts]
            found = self.advantages(trajectory, own)
            arrays += with_prompts(trajectory, found)
        return arrays

    @abstractmethod
    def advantages(self, trajectory: Trajectory, values: Values) -> list[Array]:
        """The advantages of a trajectory's sampled tokens, one array a context."""


@dataclass(frozen=True)
class GAE(ValueCredit):
    """Generalised advantage estimation over the sampled tokens (arXiv:1506.02438).

    A turn's reward stands on its last token, and the last turn's end is the end: a game that was
    cut short is worth what it had brought.
    """

    def advantages(self, trajectory: Trajectory, values: Values) -> list[Array]:
        """See ValueCredit."""
        arrays = [np.zeros(len(context.token_ids)) for context in trajectory.contexts]
        after = 0.0
        ahead = 0.0  # the value of the next sampled token's state
        for turn in reversed(trajectory.turns):
            own = values[turn.context]
            reward = turn.reward
            for t in range(turn.stop - 1, turn.start - 1, -1):
                error = reward + self.gamma * ahead - own[t]
                after = error + self.gamma * self.lam * after
                arrays[turn.context][t] = after
                ahead = own[t]
                reward = 0.0
        return arrays


@dataclass(frozen=True)
class BiLevelGAE(ValueCredit):
    """GAE over the turns first, then over the tokens of each turn, and across no turn's bounds.

    A turn's value is that before its last token. Source: VAGEN's bi-level GAE, which RAGEN names
    too (arXiv:2504.20073).
    """

    turn_gamma: float = 0.95
    """Discount of a turn."""
    turn_lam: float = 1.0
    """As lam, over turns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        share("turn_gamma", self.turn_gamma)
        share("turn_lam", self.turn_lam)

    def advantages(self, trajectory: Trajectory, values: Values) -> list[Array]:
        """See ValueCredit."""
        arrays = [np.zeros(len(context.token_ids)) for context in trajectory.contexts]
        after_turn = 0.0
        next_turn = 0.0  # the value of the next turn
        for turn in reversed(trajectory.turns):
            own = values[turn.context]
            last = turn.stop - 1
            error = turn.reward + self.turn_gamma * next_turn - own[last]
            after_turn = error + self.turn_gamma * self.turn_lam * after_turn
            next_turn = own[last]
            after = after_turn
            arrays[turn.context][last] = after
            for t in range(last - 1, turn.start - 1, -1):
                after = self.gamma * own[t + 1] - own[t] + self.gamma * self.lam * after
                arrays[turn.context][t] = after
        return arrays
