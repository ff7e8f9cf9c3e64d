"""Policies without a model: uniform random, the solver, and the teacher whose turns become demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ragen_lite.envs.dialogue import Dialogue

Policy = Callable[[Dialogue, np.random.Generator], str]


def random_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """Uniformly random actions, always well-formed, as many as a turn allows."""
    return env.write("", env.guess(rng))


def solver_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """The next actions of an optimal solution; random ones where the task has no solver or nothing can be solved."""
    plan = env.plan()
    return env.write("", plan) if plan else random_policy(env, rng)


def teacher_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """A turn as the task demonstrates it; the solver's where it does not."""
    task: Any = env.unwrapped
    return env.write(*task.demonstrate(rng)) if hasattr(task, "demonstrate") else solver_policy(env, rng)


POLICIES: dict[str, Policy] = {"random": random_policy, "solver": solver_policy, "teacher": teacher_policy}
