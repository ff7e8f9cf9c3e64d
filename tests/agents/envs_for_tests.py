"""Environments that misbehave in one way each, at a chosen turn; imported by child processes too."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym


class Guess(gym.Env[str, int]):
    """Four turns; action 1 at the last is a success. ``fault`` strikes at turn ``at`` of seeds divisible by 3."""

    observation_space = gym.spaces.Text(200)
    action_space = gym.spaces.Discrete(2)
    action_names = ("No", "Yes")
    max_turns, max_actions_per_turn, max_actions = 4, 1, 4
    turn_penalty = 0.5

    def __init__(self, fault: str = "none", at: int = 1, time_limit: float | None = None) -> None:
        self.fault, self.at, self.time_limit = fault, at, time_limit

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn, self.struck = 0, (seed or 0) % 3 == 0
        if self.fault == "reset" and self.struck:
            raise RuntimeError("no level today")
        return f"room {seed}", {}

    def step(self, action: int) -> Any:
        self.turn += 1
        if self.struck and self.turn == self.at:
            if self.fault == "raise":
                raise KeyError("the door is gone")
            if self.fault == "hang":
                time.sleep(60)
            if self.fault == "exit":
                import os

                os._exit(3)
            if self.fault == "reward":
                return "x", float("nan"), False, False, {}
            if self.fault == "observation":
                return 7, 0.0, False, False, {}
            if self.fault == "tuple":
                return "x", 0.0, False, {}
            if self.fault == "info":
                return "x", 0.0, False, False, None
        over = self.turn == 4
        return f"turn {self.turn} gave {action}", float(action), over and action == 1, False, {"success": over and action == 1}


gym.register("ragen_lite_tests/Guess-v0", entry_point=Guess)
