"""What the games share: rewards, budgets, and the costs that follow from an exact solver."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym

from ragen_lite.envs.base import TextTask

# What ``step`` returns: observation, reward, terminated, truncated, info.
Step = tuple[str, float, bool, bool, dict[str, Any]]


def or_default(given: int | None, default: int) -> int:
    """An option that was given, 0 included, or its default."""
    return default if given is None else given


class Game(TextTask[int]):
    """A game with named actions.

    Rewards are Sokoban's: -0.1 an action, +10 solved, and what a game adds.

    ``info`` always has success. Where ``cost_to_go`` knows the cost, it also has these, which are
    None where the cost is unknown:

    - optimal_cost: actions to go at the start.
    - cost_to_go: actions to go from the present state.
    - regret: how many actions the last action gave away against the best one; inf where it lost
      the game.
    - deadlock: whether the game is lost.
    """

    STEP = -0.1
    SOLVED = 10.0
    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}
    render_mode: str | None = None
    regret: bool = True  # whether ``info`` has the costs
    over: bool = True  # so that ``step`` before the first ``reset`` raises ResetNeeded

    def cost_to_go(self) -> float | None:
        """Actions of a shortest solution from here; inf where there is none, None where unknown."""
        return None

    @property
    def difficulty(self) -> float | None:
        """The actions of a shortest solution."""
        return self.optimal_cost if self.regret else None

    def text(self) -> str:
        """What the player sees."""
        raise NotImplementedError

    def render(self) -> Any:
        """The present state as text."""
        return self.text() if self.render_mode == "ansi" else None

    def budget(self, max_turns: int, max_actions_per_turn: int, max_actions: int | None) -> None:
        """Set the three budgets and the cost of an unreadable reply.

        Args:
            max_turns: replies of an episode.
            max_actions_per_turn: actions of one reply.
            max_actions: actions of an episode; None takes the product of the other two.

        Raises:
            ValueError: a budget is no whole number, or they contradict each other.
        """
        for given in (max_turns, max_actions_per_turn, max_actions):
            # Not isinstance: True and False are ints as well.
            if given is not None and type(given) is not int:
                raise ValueError(
                    f"a budget of {given!r} turns or actions: a whole number is needed"
                )
        reachable = max_turns * max_actions_per_turn
        if max_actions is None:
            max_actions = reachable
        if min(max_turns, max_actions_per_turn, max_actions) < 1 or reachable < max_actions:
            raise ValueError(
                f"budgets that contradict each other: max_turns {max_turns} x max_actions_per_turn "
                f"{max_actions_per_turn} must reach max_actions {max_actions}, and each must be "
                "above 0"
            )
        self.max_turns = max_turns
        self.max_actions_per_turn = max_actions_per_turn
        self.max_actions = max_actions
        # As much as the steps of a full turn cost, so that no one saves them by writing nonsense.
        self.turn_penalty = -self.STEP * max_actions_per_turn

    def begin(self, **info: Any) -> tuple[str, dict[str, Any]]:
        """What ``reset`` returns, once the instance is in place: observation and ``info``."""
        self.actions_taken = 0
        self.over = False
        self._cost = self.cost_to_go() if self.regret else None
        self.optimal_cost = self._cost
        return self.text(), {"success": False, **info, **self._costs(None)}

    def end_step(self, success: bool, gained: float = 0.0, over: bool = False, **info: Any) -> Step:
        """What ``step`` returns, once the action is carried out.

        Args:
            success: whether the goal is reached.
            gained: reward on top of the step's and the solution's.
            over: whether the game has ended unsolved.
            info: what the game adds to ``info``.
        """
        self.actions_taken += 1
        regret = self._regret_of_step() if self.regret else None
        reward = self.STEP + gained + (self.SOLVED if success else 0.0)
        terminated = success or over
        # An end on the very last action is the game's end, not the budget's.
        truncated = self.actions_taken >= self.max_actions and not terminated
        self.over = terminated or truncated
        told = {"success": success, **info, **self._costs(regret)}
        return self.text(), reward, terminated, truncated, told

    def _regret_of_step(self) -> float | None:
        before = self._cost
        self._cost = self.cost_to_go()
        if before is None or self._cost is None:
            return None
        if math.isinf(before):
            return 0.0  # from a lost state nothing is left to lose
        # A best action lowers the cost by the 1 that it takes, and has regret 0. From a state that
        # can be solved to one that cannot, the regret is inf.
        return 1 + self._cost - before

    def _costs(self, regret: float | None) -> dict[str, Any]:
        if not self.regret:
            return {}
        return {
            "optimal_cost": self.optimal_cost,
            "cost_to_go": self._cost,
            "regret": regret,
            "deadlock": None if self._cost is None else math.isinf(self._cost),
        }

    def check_action(self, action: int) -> int:
        """The action as a plain int.

        Raises:
            ValueError: there is no such action.
            gymnasium.error.ResetNeeded: the episode is over, or has not begun.
        """
        if self.over:
            raise gym.error.ResetNeeded("the episode is over: call reset")
        count = int(self.action_space.n)  # type: ignore[attr-defined]
        if not 0 <= action < count:
            raise ValueError(f"action {action!r} is not one of 0 to {count - 1}")
        return int(action)
