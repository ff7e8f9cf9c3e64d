"""What a task says of itself, whatever wrappers stand around it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def attribute(env: gym.Env[Any, Any], name: str, default: Any) -> Any:
    """What a task or the outermost of its wrappers that has the attribute says."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def difficulty_of(env: gym.Env[Any, Any]) -> dict[str, float]:
    """How hard the present instance is, as an entry of ``info``; none where the task says none."""
    told = attribute(env, "difficulty", None)
    return {} if told is None else {"difficulty": told}
