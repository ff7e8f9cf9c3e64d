"""Discrete Gymnasium environments as text: an environment, a sentence for each state, and the words for its actions.

CliffWalking and Taxi are Gymnasium's own, dynamics and all, as is Blackjack in blackjack.py; rewards are those of
every game here (-0.1 an action, +10 solved), with -1 for what the environment itself punishes. Its own reward is
``info["native_reward"]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import Game, either, text_space, wanted_split
from ragen_lite.envs.tabular import Model, Table


class Described(Game):
    """A Gymnasium environment with Discrete actions, described state by state.

    Subclass it with the environment's id, ``action_names``, ``instructions`` and ``describe``; where the environment
    has Gymnasium's table ``P``, the optimum, the regret and the solver come by themselves.

    Args:
        env_id: any registered environment; ``env_kwargs`` go to it.
        max_turns, max_actions_per_turn, max_actions: the budgets.

    ``info``: Game's costs where the dynamics are deterministic; where they are not, optimal_success (the best chance of
    success within the budget, at the start) and regret as the chance that an action gave away; native_reward.
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
        """Work out the optimum of a tabular environment."""
        table: Table | None = getattr(self.inner, "P", None)
        self.model = Model(table, self.wins) if table else None
        self._table = self._chances = None
        if self.model is None:
            return
        self.stochastic = bool((self.model.probability[..., 0] < 1).any())
        if self.stochastic:
            self._chances = self.model.horizon(self.max_actions)
        else:
            self._table = self.model.costs()

    def begin_inner(self) -> Any:
        """Draw a start; returns the environment's observation. Its randomness is the task's own."""
        return self.inner.reset(seed=int(self.np_random.integers(2**31)))[0]

    def _within_reach(self) -> Any:
        """A start from which the goal can be reached within the budget."""
        for _ in range(10_000):
            observation = self.begin_inner()
            if self._table is None or self._table[observation] <= self.max_actions:
                return observation
        raise RuntimeError(f"no start reaches the goal in max_actions={self.max_actions}: allow more")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw a start of ``options["split"]`` (``train`` where it is left out)."""
        gym.Env.reset(self, seed=seed)
        self.state, self._won = self.draw(wanted_split(options), self._within_reach, self.content), False
        text, info = self.begin(native_reward=0.0)
        return text, info | self._chance(None)

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action; see the class for rewards and info."""
        action = self.chosen(action)
        lost = self._given_away(action)
        self.inner.np_random = self.np_random  # chance is the task's, and so the member's
        self.state, native, terminated, _, _ = self.inner.step(action)
        self._won = success = self.wins(float(native), bool(terminated))
        gained = -1.0 if native < -1 else 0.0
        *result, info = self.after(success, gained, bool(terminated), native_reward=float(native))
        return *result, info | self._chance(lost)  # type: ignore[return-value]

    def _given_away(self, action: int) -> float | None:
        left = self.max_actions - self.actions_taken
        if self.model is None or self._chances is None or left < 1:
            return None
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
        return 0.0 if self._won else float(self._table[self.state])

    def solve(self) -> list[int] | None:
        """A shortest path to the goal; where chance decides, the one best action."""
        if self.model is None:
            return None
        if self._chances is not None:
            left = max(1, self.max_actions - self.actions_taken)
            return [int(self.model.q(self._chances[left - 1])[self.state].argmax())]
        assert self._table is not None
        state, plan = int(self.state), []
        if not math.isfinite(self._table[state]):
            return None
        while True:
            goal, after = self.model.goal[state, :, 0], self.model.after[state, :, 0]
            cost = np.where(goal, 0.0, np.where(self.model.ends[state, :, 0], math.inf, self._table[after]))
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


class CliffWalking(Described):
    """Walk to the goal past the cliff (Gymnasium's CliffWalking-v1); a fall costs 1 and puts you back.

    Args:
        slippery: whether a move slides sideways with probability 2/3.

    An instance is a start: any square but the cliff's and the goal's.
    """

    action_names = ("Up", "Right", "Down", "Left")

    def __init__(
        self,
        slippery: bool = False,
        max_turns: int | None = None,
        max_actions_per_turn: int | None = None,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        # On slippery ground the shore takes long, and a plan of several actions is soon out of date.
        turns, each, total = (100, 1, 100) if slippery else (5, 5, 20)
        super().__init__(
            "CliffWalking-v1",
            {"is_slippery": slippery},
            either(max_turns, turns),
            either(max_actions_per_turn, each),
            either(max_actions, total),
            render_mode,
        )
        self.turn_penalty = 1.1 * self.max_actions_per_turn

    @property
    def instructions(self) -> str:
        slip = " The ground is slippery: two moves in three slide to a side." if self.stochastic else ""
        return (
            "You walk in a field of 4x12 squares to the goal G, past a cliff.\nSymbols: P you, _ ground, C "
            "cliff, G goal. Positions are (row,column), counted from (0,0) at the top left.\nUp, Right, Down and "
            f"Left move you one square. A step onto the cliff costs 1 and puts you back to (3,0).{slip}"
        )

    def wins(self, reward: float, terminated: bool) -> bool:
        return terminated

    def begin_inner(self) -> int:
        """Any square above the cliff, or the corner beside it."""
        self.inner.reset(seed=0)
        self.inner.s = int(self.np_random.integers(37))
        self.inner.lastaction = None
        return int(self.inner.s)

    def describe(self, state: int) -> str:  # type: ignore[override]
        """The field, and where you and the goal are."""
        rows = [["_"] * 12 for _ in range(4)]
        rows[3][1:] = ["C"] * 10 + ["G"]
        row, column = divmod(int(state), 12)
        rows[row][column] = "P"
        return f"{squares(rows)}\nP ({row},{column}), G (3,11)"


PLACES = ("Red", "Green", "Yellow", "Blue")
CORNERS = ((0, 0), (0, 4), (4, 0), (4, 3))


class Taxi(Described):
    """Fetch a passenger and bring them to their destination (Gymnasium's Taxi-v4).

    An instance is a start: taxi, passenger and destination. A pick-up where nobody waits, and a drop-off with nobody
    aboard or away from the places, cost 1; at another place than the destination the passenger gets off.
    """

    action_names = ("South", "North", "East", "West", "Pickup", "Dropoff")

    def __init__(
        self,
        max_turns: int = 6,
        max_actions_per_turn: int = 6,
        max_actions: int = 30,
        render_mode: str | None = None,
    ) -> None:
        super().__init__("Taxi-v4", {}, max_turns, max_actions_per_turn, max_actions, render_mode)
        self.turn_penalty = 1.1 * max_actions_per_turn

    @property
    def instructions(self) -> str:
        places = ", ".join(f"{name} ({row},{column})" for name, (row, column) in zip(PLACES, CORNERS, strict=True))
        return (
            "You drive a taxi in a city of 5x5 squares: fetch the passenger and bring them to the destination.\n"
            f"Positions are (row,column), counted from (0,0) at the top left. The places are {places}. "
            "Walls stand on both sides between columns 1 and 2 in rows 0 and 1, between columns 0 and 1 and between "
            "columns 2 and 3 in rows 3 and 4.\nSouth, North, East and West drive one square; Pickup where nobody "
            "waits, and Dropoff with nobody aboard or away from the places, cost 1."
        )

    def describe(self, state: int) -> str:  # type: ignore[override]
        """Where the taxi, the passenger and the destination are."""
        row, column, passenger, destination = self.inner.decode(int(state))
        where = "in the taxi" if passenger == 4 else f"at {PLACES[passenger]}"
        return f"Taxi ({row},{column}), passenger {where}, destination {PLACES[destination]}"
