"""Policies without a model: uniform random, the solver, and the teacher of demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Conversation(Protocol):
    """What a scripted policy needs of a task; ``envs/dialogue.py`` has it."""

    @property
    def unwrapped(self) -> Any:
        """The task itself."""

    def guess(self, rng: np.random.Generator) -> list[Any]:
        """One turn of random actions."""

    def plan(self) -> list[Any] | None:
        """The solver's next turn; None where there is none."""

    def write(self, thought: str, actions: list[Any]) -> str:
        """The reply that carries out ``actions``."""


ScriptedPolicy = Callable[[Any, np.random.Generator], str]  # (a Conversation, draws) -> a reply


def random_policy(env: Conversation, rng: np.random.Generator) -> str:
    """Uniformly random actions, always well-formed, as many as a turn allows."""
    return env.write("", env.guess(rng))


def solver_policy(env: Conversation, rng: np.random.Generator) -> str:
    """The next actions of an optimal solution; random ones where nothing can be solved."""
    plan = env.plan()
    return env.write("", plan) if plan else random_policy(env, rng)


def teacher_policy(env: Conversation, rng: np.random.Generator) -> str:
    """A turn as the task demonstrates it; the solver's where it does not."""
    task: Any = env.unwrapped
    if not hasattr(task, "demonstrate"):
        return solver_policy(env, rng)
    thought, actions = task.demonstrate(rng)
    return env.write(thought, actions)


POLICIES: dict[str, ScriptedPolicy] = {
    "random": random_policy,
    "solver": solver_policy,
    "teacher": teacher_policy,
}
