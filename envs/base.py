"""What the tasks share: splits by content, text spaces, the attributes Dialogue reads, and the bookkeeping of games."""

from __future__ import annotations

import hashlib
import math
import string
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np

SPLITS = ("train", "val", "test")
CHARSET = frozenset(string.printable + "√")
ActT = TypeVar("ActT")
InstanceT = TypeVar("InstanceT")


def text_space(max_length: int, more: frozenset[str] = frozenset()) -> gym.spaces.Text:
    """A Text space over printable ASCII, the symbols our tasks draw with, and ``more``."""
    return gym.spaces.Text(max_length, min_length=0, charset=CHARSET | more)


class AnyText(gym.spaces.Text):
    """A Text space over every character, for texts of the world; its samples are printable ASCII."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=CHARSET)

    def contains(self, x: Any) -> bool:
        """Any text that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length


def split_of(content: str) -> str:
    """The split an instance belongs to: 80% train, 10% val, 10% test, by a stable hash of its content.

    >>> split_of("1 2 3 -> 6") == split_of("1 2 3 -> 6")
    True
    """
    bucket = int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") % 10
    return {8: "val", 9: "test"}.get(bucket, "train")


def either(given: int | None, default: int) -> int:
    """An option that was given, 0 included, or its default."""
    return default if given is None else given


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError for a value of the option ``name`` that is none of those allowed."""
    if value not in list(allowed):  # a list, since a dict of the command line has no hash
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")


def wanted_split(options: dict[str, Any] | None) -> str:
    """The split that ``reset(options=...)`` asks for; ``train`` where it asks for none.

    Raises ValueError for a name that is no split.
    """
    split = (options or {}).get("split", "train")
    one_of("split", split, SPLITS)
    return str(split)


class TextTask(gym.Env[str, ActT], Generic[ActT]):
    """A task as a plain Gymnasium environment with text observations.

    Dialogue reads these attributes; every one has a default, so other people's environments work without them.
    """

    action_space: gym.spaces.Space[Any]
    max_turns: int = 1
    max_actions_per_turn: int = 1
    max_actions: int = 1
    action_names: tuple[str, ...] = ()
    action_help: str = ""
    """How actions are written, for the system prompt, where their names are too many to list."""
    protocol: str = "think_answer"
    language: str = "en"
    """Of the format reminder: en or zh."""
    stochastic: bool = False
    """Whether chance goes on after the reset, so that no policy can promise success."""
    instance: str = ""
    """The present instance, written so that two that are the same are written alike; its hash decides its split."""
    conversation: bool = False
    """Whether observations are whole messages and actions whole replies, which Dialogue passes on as they are."""
    turn_penalty: float = 0.0
    """What an unreadable reply costs: at least the cost of the cheapest readable one."""

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        raise NotImplementedError

    def solve(self) -> list[ActT] | None:
        """The actions of a best solution from the present state; None where there is none, or no solver."""
        return None

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[ActT]]:
        """One turn of a teacher: a thought and the actions that follow it. The solver's, unless a task knows better."""
        return "", (self.solve() or self.guess(rng))[: self.max_actions_per_turn]

    def wander(self, rng: np.random.Generator) -> tuple[str, list[ActT]]:
        """One turn without aim, of which supervised learning makes bad habits: a random one, unless told otherwise."""
        return "", self.guess(rng)

    def guess(self, rng: np.random.Generator) -> list[ActT]:
        """One turn of the uniform random policy: as many random actions as the turn allows."""
        space: gym.spaces.Space[Any] = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            drawn: list[ActT] = (int(space.start) + rng.integers(int(space.n), size=self.max_actions_per_turn)).tolist()
            return drawn
        space.seed(int(rng.integers(2**31)))
        return [space.sample()]

    def draw(self, split: str, make: Callable[[], InstanceT], content: Callable[[InstanceT], str]) -> InstanceT:
        """Draw instances until one belongs to ``split``; ``self.instance`` is then its content.

        Raises RuntimeError where none of 10,000 does.
        """
        for _ in range(10_000):
            instance = make()
            self.instance = content(instance)
            if split_of(self.instance) == split:
                return instance
        raise RuntimeError(
            f"no instance of the {split} split in 10,000 draws: allow more variety in the task's options"
        )


class Game(TextTask[int]):
    """A game with named actions: its rewards, its count of actions, and, where the cost to go is known, its regret.

    Rewards are Sokoban's: -0.1 an action, +10 solved, and what a game adds. ``info``: success; and where
    ``cost_to_go`` tells it, optimal_cost (actions to go at the start), cost_to_go, regret (how much the last action
    worsened the best reachable end, in actions; inf where it lost the game) and deadlock. They are None where the cost
    is unknown.
    """

    STEP, SOLVED = -0.1, 10.0
    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}
    render_mode: str | None = None
    regret: bool = True
    over: bool = True

    def cost_to_go(self) -> float | None:
        """Actions of a shortest solution from here; inf where there is none, None where it is not known."""
        return None

    def text(self) -> str:
        """What the player sees."""
        raise NotImplementedError

    def render(self) -> Any:
        """The present state as text."""
        return self.text() if self.render_mode == "ansi" else None

    def budget(self, max_turns: int, max_actions_per_turn: int, max_actions: int | None) -> None:
        """Set the three budgets (None: the product of the others) and the cost of an unreadable turn.

        Raises ValueError.
        """
        for given in (max_turns, max_actions_per_turn, max_actions):
            if given is not None and type(given) is not int:
                raise ValueError(f"a budget of {given!r} turns or actions: a whole number is needed")
        if max_actions is None:
            max_actions = max_turns * max_actions_per_turn
        if min(max_turns, max_actions_per_turn, max_actions) < 1 or max_turns * max_actions_per_turn < max_actions:
            raise ValueError(
                f"budgets that contradict each other: max_turns {max_turns} x max_actions_per_turn "
                f"{max_actions_per_turn} must reach max_actions {max_actions}, and each must be above 0"
            )
        self.max_turns, self.max_actions_per_turn, self.max_actions = max_turns, max_actions_per_turn, max_actions
        self.turn_penalty = -self.STEP * max_actions_per_turn

    def begin(self, **info: Any) -> tuple[str, dict[str, Any]]:
        """What ``reset`` returns, once the instance is in place."""
        self.actions_taken, self.over = 0, False
        self.optimal_cost = self._cost = self.cost_to_go() if self.regret else None
        return self.text(), {"success": False, **info, **self._costs(None)}

    def after(
        self, success: bool, gained: float = 0.0, over: bool = False, **info: Any
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """What ``step`` returns, once the action is carried out; ``gained`` comes on top of step and success."""
        self.actions_taken += 1
        regret = None
        if self.regret:
            before, self._cost = self._cost, self.cost_to_go()
            if before is not None and self._cost is not None:
                # From a lost state nothing is left to lose.
                regret = 0.0 if math.isinf(before) else 1 + self._cost - before
        reward = self.STEP + gained + (self.SOLVED if success else 0.0)
        terminated = success or over
        truncated = self.actions_taken >= self.max_actions and not terminated
        self.over = terminated or truncated
        return self.text(), reward, terminated, truncated, {"success": success, **info, **self._costs(regret)}

    def _costs(self, regret: float | None) -> dict[str, Any]:
        if not self.regret:
            return {}
        deadlock = None if self._cost is None else math.isinf(self._cost)
        known = {"optimal_cost": self.optimal_cost, "cost_to_go": self._cost}
        return {**known, "regret": regret, "deadlock": deadlock}

    def chosen(self, action: int) -> int:
        """The action as a plain int. Raises ValueError for one that does not exist, ResetNeeded after the end."""
        if self.over:
            raise gym.error.ResetNeeded("the episode is over: call reset")
        if not 0 <= action < (n := int(self.action_space.n)):  # type: ignore[attr-defined]
            raise ValueError(f"action {action!r} is not one of 0 to {n - 1}")
        return int(action)
