"""Guess a number: a plain Gymnasium environment; nothing of ragen-lite is imported."""

from __future__ import annotations

import hashlib
import string
from typing import Any

import gymnasium as gym

SPLITS = ("train", "val", "test")


def split_of(content: str) -> str:
    """The split of an instance, by what it is: no test game is ever trained on."""
    bucket = hashlib.blake2b(content.encode(), digest_size=1).digest()[0] % 10
    return {8: "val", 9: "test"}.get(bucket, "train")


class GuessNumber(gym.Env[str, int]):
    """Find a number from 0 to 9 by Higher and Lower. Success is finding it within the turns."""

    metadata = {"render_modes": []}
    action_names = tuple(str(n) for n in range(10))
    max_turns = 4
    max_actions_per_turn = 1
    max_actions = 4
    turn_penalty = 0.1
    instructions = (
        "Find the number from 0 to 9. After each guess you are told whether it is higher or lower."
    )

    def __init__(self, highest: int = 9) -> None:
        if not 1 <= highest <= 9:
            raise ValueError(f"highest={highest}: it must be 1 to 9")
        self.highest = highest
        self.observation_space = gym.spaces.Text(200, charset=string.printable)
        self.action_space = gym.spaces.Discrete(10)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        split = (options or {}).get("split", "train")
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        while True:
            self.number = int(self.np_random.integers(self.highest + 1))
            first = int(self.np_random.integers(10))
            self.instance = f"{self.number} {first}"
            if split_of(self.instance) == split:
                break
        self.text = f"Is it {first}? {self._compare(first)}."
        return self.text, {"success": False}

    def _compare(self, guess: int) -> str:
        if guess == self.number:
            return "Yes"
        return "Higher" if guess < self.number else "Lower"

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        found = action == self.number
        self.text = f"Is it {action}? {self._compare(int(action))}."
        return self.text, 1.0 if found else -0.1, found, False, {"success": found}


gym.register("my_env/GuessNumber-v0", entry_point="my_env:GuessNumber")
