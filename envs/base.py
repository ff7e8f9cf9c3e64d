"""What the tasks share: the split by content, the text spaces, and the attributes Dialogue reads."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np

SPLITS = ("train", "val", "test")
CHARSET = frozenset(string.printable + "√")
ActT = TypeVar("ActT")
InstanceT = TypeVar("InstanceT")


def text_space(max_length: int) -> gym.spaces.Text:
    """A Text space over printable ASCII and the symbols our tasks draw with."""
    return gym.spaces.Text(max_length, min_length=0, charset=CHARSET)


def split_of(content: str) -> str:
    """The split an instance belongs to: 80% train, 10% val, 10% test, by a stable hash of its content.

    >>> split_of("1 2 3 -> 6") == split_of("1 2 3 -> 6")
    True
    """
    bucket = int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") % 10
    return {8: "val", 9: "test"}.get(bucket, "train")


def wanted_split(options: dict[str, Any] | None) -> str:
    """The split that ``reset(options=...)`` asks for; ``train`` where it asks for none.

    Raises ValueError for a name that is no split.
    """
    split = (options or {}).get("split", "train")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    return str(split)


class TextTask(gym.Env[str, ActT], Generic[ActT]):
    """A task as a plain Gymnasium environment with text observations.

    Dialogue reads these attributes; every one has a default, so other people's environments work without them.
    """

    max_turns: int = 1
    max_actions_per_turn: int = 1
    max_actions: int = 1
    action_names: tuple[str, ...] = ()
    protocol: str = "think_answer"
    turn_penalty: float = 0.0
    """What an unreadable reply costs: at least the cost of the cheapest readable one."""

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        raise NotImplementedError

    def solve(self) -> list[ActT] | None:
        """The actions of a best solution from the present state; None where there is none."""
        raise NotImplementedError

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[ActT]]:
        """One turn of a teacher: a thought and the actions that follow it. The solver's, unless a task knows better."""
        return "", (self.solve() or [])[: self.max_actions_per_turn]

    def guess(self, rng: np.random.Generator) -> list[ActT]:
        """One turn of the uniform random policy: as many random actions as the turn allows."""
        space: gym.spaces.Space[Any] = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            drawn: list[ActT] = (int(space.start) + rng.integers(int(space.n), size=self.max_actions_per_turn)).tolist()
            return drawn
        space.seed(int(rng.integers(2**31)))
        return [space.sample()]

    def draw(self, split: str, make: Callable[[], InstanceT], content: Callable[[InstanceT], str]) -> InstanceT:
        """Draw instances until one belongs to ``split``. Raises RuntimeError where none of 10,000 does."""
        for _ in range(10_000):
            instance = make()
            if split_of(content(instance)) == split:
                return instance
        raise RuntimeError(
            f"no instance of the {split} split in 10,000 draws: allow more variety in the task's options"
        )
