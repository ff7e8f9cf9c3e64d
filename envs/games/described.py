"""Discrete Gymnasium environments as text.

A task is an environment, a sentence for each of its states, and the words for its actions.

CliffWalking and Taxi are Gymnasium's own, dynamics and all, as is Blackjack in blackjack.py;
rewards are those of every game here (-0.1 an action, +10 solved), with -1 for what the environment
itself punishes. Its own reward is ``info["native_reward"]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.games.game import Game
from ragen_lite.envs.games.tabular import Model, Table
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split


class Described(Game):
    """A Gymnasium environment with Discrete actions, described state by state.

    Subclass it with the environment's id, ``action_names``, ``instructions`` and ``describe``;
    where the environment has Gymnasium's table ``P``, the optimum, the regret and the solver come
    by themselves.

    Args:
        env_id: any registered environment.
        env_kwargs: options of that environment.
        max_turns, max_actions_per_turn, max_actions: the budgets.

    ``info``: native_reward. Where the dynamics are deterministic, Game's costs in actions. Where
    they are not, optimal_success (the best chance of success within the budget, at the start) and
    regret (the chance of success that an action gave away).
    """

    LENGTH = 300  # characters of a description
    describe: Callable[[Any], str]

    def __init__(
        self,
        env_id: str,
        env_kwargs: dict[str, Any],
        max_turns: int,
        max_actions_per_turn: int,
        max_actions: int,
        render_mode: str | None = None,
    ) -> None:
        self.budget(max_turns, max_actions_per_turn, max_actions)
        # Unwrapped: the state and the table are read here, and the budgets replace Gymnasium's
        # time limit.
        self.inner: Any = gym.make(env_id, disable_env_checker=True, **env_kwargs).unwrapped
        self.render_mode = render_mode
        actions: Any = self.inner.action_space
        self.action_space = gym.spaces.Discrete(actions.n)
        self.observation_space = text_space(self.LENGTH)
        self._plan()

    def wins(self, reward: float, terminated: bool) -> bool:
        """Whether a transition reaches the goal."""
        return terminated and reward > 0

    def content(self, observation: Any) -> str:
        """The instance as text, by which it belongs to a split."""
        return str(observation)

    def _plan(self) -> None:
        """Work out the optimum of a tabular environment.

        ``_table`` (S,) holds the actions to the goal where the dynamics are deterministic;
        ``_chances`` (max_actions + 1, S) the best chances of success where they are not. The other
        one is None, and both are where there is no table ``P``.
        """
        table: Table | None = getattr(self.inner, "P", None)
        self.model = Model(table, self.wins) if table else None
        self._table = self._chances = None
        if self.model is None:
            return
        # An outcome that is certain is the only one of its action, and so the first.
        self.stochastic = bool((self.model.probability[..., 0] < 1).any())
        if self.stochastic:
            self._chances = self.model.horizon(self.max_actions)
        else:
            self._table = self.model.costs()

    def begin_inner(self) -> Any:
        """Draw a start; returns the environment's observation.

        The environment's seed is drawn from the task's own randomness.
        """
        return self.inner.reset(seed=int(self.np_random.integers(2**31)))[0]

    def _within_reach(self) -> Any:
        """A start from which the goal can be reached within the budget."""
        for _ in range(10_000):
            observation = self.begin_inner()
            if self._table is None or self._table[observation] <= self.max_actions:
                return observation
        raise RuntimeError(
            f"no start reaches the goal in max_actions={self.max_actions}: allow more"
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a start of ``options["split"]`` (``train`` where it is left out)."""
        gym.Env.reset(self, seed=seed)
        self.state = self.draw(requested_split(options), self._within_reach, self.content)
        self._won = False
        text, info = self.begin(native_reward=0.0)
        return text, info | self._chance(None)

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action; see the class for rewards and info."""
        action = self.check_action(action)
        lost = self._given_away(action)  # before the state changes
        self.inner.np_random = self.np_random  # chance is the task's, and so the member's
        self.state, native, terminated, _, _ = self.inner.step(action)
        self._won = success = self.wins(float(native), bool(terminated))
        # A step costs -1 in Gymnasium's CliffWalking and Taxi; what is below is a punishment (-100
        # for a fall, -10 for a wrong pick-up or drop-off).
        gained = -1.0 if native < -1 else 0.0
        *result, info = self.end_step(
            success, gained, bool(terminated), native_reward=float(native)
        )
        return *result, info | self._chance(lost)  # type: ignore[return-value]

    def _given_away(self, action: int) -> float | None:
        """The chance of success that an action gives away; None where it is not known."""
        left = self.max_actions - self.actions_taken
        if self.model is None or self._chances is None or left < 1:
            return None
        # The action itself uses one of those left, so what follows has one fewer.
        q = self.model.q(self._chances[left - 1])[self.state]
        return float(q.max() - q[action])

    def _chance(self, lost: float | None) -> dict[str, Any]:
        if self._chances is None:
            return {}
        if self.actions_taken == 0:
            self.optimal_success = float(self._chances[self.max_actions][self.state])
        return {"optimal_success": self.optimal_success, "regret": lost}

    def text(self) -> str:
        """The description of the present state."""
        return self.describe(self.state)

    def cost_to_go(self) -> float | None:
        """Actions to the goal; None where chance decides."""
        if self._table is None:
            return None
        # A goal is reached by a transition, so the table has no 0 for the goal's own state. The
        # flag ``_won`` tells that nothing is left to do.
        return 0.0 if self._won else float(self._table[self.state])

    def solve(self) -> list[int] | None:
        """A shortest path to the goal; where chance decides, the one best action."""
        if self.model is None:
            return None
        if self._chances is not None:
            # At least 1, so that there is an answer once the budget is spent.
            left = max(1, self.max_actions - self.actions_taken)
            return [int(self.model.q(self._chances[left - 1])[self.state].argmax())]
        assert self._table is not None
        state = int(self.state)
        plan = []
        if not math.isfinite(self._table[state]):
            return None
        # Downhill in the table: each action leads to a state that is one action nearer.
        while True:
            goal = self.model.goal[state, :, 0]
            after = self.model.after[state, :, 0]
            # Cost (A,) left after each action: 0 at the goal, inf where it ends without it.
            cost = np.where(
                goal, 0.0, np.where(self.model.ends[state, :, 0], math.inf, self._table[after])
            )
            plan.append(int(cost.argmin()))
            if goal[plan[-1]]:
                return plan
            state = int(after[plan[-1]])

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The next actions of the solver; the thought is how far there is to go."""
        plan = (self.solve() or self.guess(rng))[: self.max_actions_per_turn]
        cost = self.cost_to_go()
        return "" if cost is None else f"{cost:g} to go", plan


def squares(rows: Sequence[Sequence[str]]) -> str:
    """A board as text: symbols apart, rows on lines of their own."""
    return "\n".join(" ".join(row) for row in rows)
