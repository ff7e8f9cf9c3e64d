"""Policies without a model: uniform random, the solver, and the teacher whose turns become demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ragen_lite.envs.dialogue import Dialogue

Policy = Callable[[Dialogue, np.random.Generator], str]


def random_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """Uniformly random actions, always well-formed, as many as a turn allows."""
    task: Any = env.unwrapped
    if hasattr(task, "guess"):
        return env.write("", task.guess(rng))
    space = env.env.action_space
    space.seed(int(rng.integers(2**31)))
    return env.write("", [space.sample() for _ in range(env.max_actions_per_turn)])


def solver_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """The next actions of an optimal solution; random ones where the task has no solver or nothing can be solved."""
    task: Any = env.unwrapped
    solution = task.solve() if hasattr(task, "solve") else None
    return env.write("", solution[: env.max_actions_per_turn]) if solution else random_policy(env, rng)


def teacher_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """A turn as the task demonstrates it; the solver's where it does not."""
    task: Any = env.unwrapped
    return env.write(*task.demonstrate(rng)) if hasattr(task, "demonstrate") else solver_policy(env, rng)


POLICIES: dict[str, Policy] = {"random": random_policy, "solver": solver_policy, "teacher": teacher_policy}
