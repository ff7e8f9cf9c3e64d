"""Word problems in the manner of GSM8K: several steps, a whole number for an answer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.answers.arithmetic import whole_number
from ragen_lite.envs.answers.stories import write_problem
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split


class WordProblems(TextTask[str]):
    """A word problem; the answer is a whole number. One turn.

    Args:
        min_steps, max_steps: how many operations the solution takes, between 1 and 6.

    Raises:
        ValueError: a number of steps out of its range.

    Reward: 1 right, 0 else. Thousands may be set off by commas. ``info``: success; value (the
    number answered, or None).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_turns = max_actions_per_turn = max_actions = 1
    turn_penalty = 0.0

    def __init__(
        self, min_steps: int = 1, max_steps: int = 4, render_mode: str | None = None
    ) -> None:
        # Solutions of five and six steps come from one kind of story only, so ``min_steps`` ends
        # at four.
        if not 1 <= min_steps <= max_steps or min_steps > 4:
            raise ValueError(
                f"min_steps={min_steps}, max_steps={max_steps}: 1 to 4 and no more than max_steps"
            )
        self.min_steps = min_steps
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.observation_space = text_space(600)
        self.action_space = gym.spaces.Text(50, min_length=0, charset="0123456789,$+-")

    @property
    def instructions(self) -> str:
        """The system prompt."""
        return "Solve the problem. The answer is one whole number, in digits."

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Write a problem of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        # The split is decided by the kind of story and its sums. Other names and things do not
        # make another problem.
        self.problem = self.draw(
            requested_split(options),
            lambda: write_problem(self.np_random, self.min_steps, self.max_steps),
            lambda problem: problem.content,
        )
        return self.render(), {"success": False, "value": None}

    @property
    def difficulty(self) -> float:
        """The steps of its solution."""
        return len(self.problem.steps)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an answer; every answer ends the episode."""
        value = whole_number(action, grouped=True)
        success = value == self.problem.answer
        return self.render(), float(success), True, False, {"success": success, "value": value}

    def render(self) -> str:  # type: ignore[override]
        """The problem."""
        return self.problem.question

    def solve(self) -> list[str]:
        """The answer."""
        return [str(self.problem.answer)]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random number below 100."""
        return [str(int(rng.integers(100)))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The answer, with the steps of the solution as its thought."""
        return ", ".join(self.problem.steps), self.solve()
