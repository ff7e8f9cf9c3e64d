"""Credit by turns: what was done in a state, against what others did there or could have done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragen_lite.agents.trajectory import Group, Turn
from ragen_lite.algorithms.advantages import (
    Array,
    Values,
    discounted_turns,
    returns_of,
    spread_turns,
    standardise,
)
from ragen_lite.algorithms.batch_credit import NoCredit
from ragen_lite.algorithms.options import not_negative, share


@dataclass(frozen=True)
class GiGPO:
    """Groups within groups: the trajectory's advantage, and that of each turn in its state.

    Turns of a group that were shown the same message stand in the same state (the message tells the
    budget left); the discounted returns from there on are compared. A state seen once has none.
    Source: arXiv:2505.10978.
    """

    step_weight: float = 1.0
    """Weight of the turn's part."""
    gamma: float = 0.95
    """Discount of a turn, in the turn's part."""
    normalize: bool = False
    """Divide both parts by their group's sample standard deviation."""

    def __post_init__(self) -> None:
        share("gamma", self.gamma)
        not_negative("step_weight", self.step_weight)

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage."""
        arrays = []
        for group in groups:
            whole = standardise(returns_of(group), self.normalize)
            by_state = self._by_state(group)
            for trajectory, value, steps in zip(group.trajectories, whole, by_state, strict=True):
                arrays += spread_turns(trajectory, value + self.step_weight * steps)
        return arrays

    def _by_state(self, group: Group) -> list[Array]:
        """The turn's part of every turn, a trajectory an array."""
        returns = [discounted_turns(t, self.gamma) for t in group.trajectories]
        anchors: dict[str, list[tuple[int, int]]] = {}
        for i, trajectory in enumerate(group.trajectories):
            for k, turn in enumerate(trajectory.turns):
                anchors.setdefault(turn.observation, []).append((i, k))
        found = [np.zeros(len(t.turns)) for t in group.trajectories]
        for places in anchors.values():
            values = np.array([returns[i][k] for i, k in places])
            for (i, k), value in zip(places, standardise(values, self.normalize), strict=True):
                found[i][k] = value
        return found


@dataclass(frozen=True)
class Oracle:
    """The solver's word: a turn's advantage is minus its regret, the value it gave away.

    That is the true advantage against the optimal policy, where reward counts what regret counts.
    Its mean over the step's turns is taken off: else all are below 0, and push probability to what
    was never sampled.
    """

    needs_solver = True
    compares_members = False
    reads_rewards = False

    lost: float = 10.0
    """What a turn gives away that loses the game or cannot be read, in the regret's unit."""
    normalize: bool = True
    """Divide by the sample standard deviation over the step's turns."""

    def __post_init__(self) -> None:
        not_negative("lost", self.lost)

    def __call__(self, groups: Sequence[Group], values: Values | None = None) -> list[Array]:
        """See Advantage. Raises NoCredit where the task tells no regret."""
        trajectories = [t for group in groups for t in group.trajectories]
        per_turn = [[-self._regret(turn) for turn in t.turns] for t in trajectories]
        everything = np.array([value for values in per_turn for value in values])
        scaled = iter(standardise(everything, self.normalize))
        arrays = []
        for trajectory in trajectories:
            arrays += spread_turns(trajectory, [next(scaled) for _ in trajectory.turns])
        return arrays

    def _regret(self, turn: Turn) -> float:
        if turn.unreadable is not None:
            return self.lost
        if turn.regret is None:
            raise NoCredit(
                "credit=oracle: the task does not tell the regret of a turn; take a task with a "
                "solver that does, or another credit"
            )
        return min(turn.regret, self.lost) if math.isfinite(turn.regret) else self.lost
