"""Planning on a tabular environment's dynamics, Gymnasium's ``P``.

The plans are the best chance of success within a number of actions, and the fewest actions to the
goal. In shapes, S counts the states, A the actions and K the outcomes of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Gymnasium's ``P``: state -> action -> outcomes (probability, next state, reward, terminated).
Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]
Floats = NDArray[np.float64]


class Model:
    """A tabular environment's dynamics as arrays, and the plans that follow from them.

    Args:
        table: Gymnasium's ``P``, of S states and A actions.
        wins: whether a transition (reward, terminated) reaches the goal.

    Attributes:
        probability: (S, A, K) of each outcome. Actions with fewer than K outcomes are padded with
            outcomes of probability 0.
        after: (S, A, K) the next state.
        goal: (S, A, K) whether the outcome reaches the goal.
        ends: (S, A, K) whether it ends the episode.
    """

    def __init__(self, table: Table, wins: Callable[[float, bool], bool]) -> None:
        states = len(table)
        actions = len(table[0])
        width = max(len(table[s][a]) for s in table for a in table[s])
        self.probability = np.zeros((states, actions, width))
        self.after = np.zeros((states, actions, width), dtype=np.int64)
        self.goal = np.zeros((states, actions, width), dtype=bool)
        # Padding ends the episode, so no plan looks beyond it.
        self.ends = np.ones((states, actions, width), dtype=bool)
        for s, row in table.items():
            for a, outcomes in row.items():
                for k, (p, to, reward, terminated) in enumerate(outcomes):
                    self.probability[s, a, k] = p
                    self.after[s, a, k] = to
                    self.goal[s, a, k] = wins(reward, terminated)
                    self.ends[s, a, k] = terminated

    def q(self, value: Floats) -> Floats:
        """Chance of success (S, A) of each action.

        ``value`` (S,) is the chance of success from the next state on.
        """
        future = np.where(self.ends, 0.0, value[self.after])
        chance: Floats = (self.probability * np.where(self.goal, 1.0, future)).sum(-1)
        return chance

    def horizon(self, steps: int) -> Floats:
        """Best chance of success (steps + 1, S); row k is that with k actions left.

        This is finite-horizon value iteration. With no action left the chance is 0.
        """
        values = np.zeros((steps + 1, len(self.after)))
        for left in range(1, steps + 1):
            values[left] = self.q(values[left - 1]).max(-1)
        return values

    def costs(self) -> Floats:
        """Fewest actions to the goal (S,) where nothing is left to chance; inf without a way."""
        # Value iteration from above: after n rounds the costs of up to n are right. It ends when a
        # round changes nothing.
        cost = np.full(len(self.after), math.inf)
        # The dynamics are deterministic, so the first outcome is the only one.
        after = self.after[..., 0]
        goal = self.goal[..., 0]
        ends = self.ends[..., 0]
        while True:
            step = 1 + np.where(goal, 0.0, np.where(ends, math.inf, cost[after]))
            better = np.minimum(cost, step.min(-1))
            if np.array_equal(better, cost):
                return cost
            cost = better
