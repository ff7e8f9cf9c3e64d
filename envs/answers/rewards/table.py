"""Reward functions for answers in text, in one table: the field's own, to be composed by weight.

A function takes an Attempt (the whole reply, the gold answers, and a grader) and returns a number.
It returns None where it cannot tell (a gold answer that cannot be read), which counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ragen_lite.envs.answers.rewards.attempt import Attempt
from ragen_lite.envs.answers.rewards.forms import (
    logic_rl_answer,
    logic_rl_format,
    mini_r1_format,
    reasoning_steps,
    tag_count,
    think_format,
)
from ragen_lite.envs.answers.rewards.gsm8k import (
    gsm8k_correctness,
    gsm8k_integer,
    gsm8k_soft_format,
    gsm8k_strict_format,
    gsm8k_xml_count,
)
from ragen_lite.envs.answers.rewards.lengths import cosine, length, overlong, repetition
from ragen_lite.envs.answers.rewards.outcomes import accuracy, simplerl, tinyzero

Reward = Callable[[Attempt], float | None]

REWARDS: dict[str, Reward] = {
    "accuracy": accuracy,
    "simplerl": simplerl,
    "tinyzero": tinyzero,
    "format": think_format,
    "mini_r1_format": mini_r1_format,
    "logic_rl_format": logic_rl_format,
    "logic_rl_answer": logic_rl_answer,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "length": length,
    "cosine": cosine,
    "repetition": repetition,
    "overlong": overlong,
    "gsm8k_correctness": gsm8k_correctness,
    "gsm8k_integer": gsm8k_integer,
    "gsm8k_strict_format": gsm8k_strict_format,
    "gsm8k_soft_format": gsm8k_soft_format,
    "gsm8k_xml_count": gsm8k_xml_count,
}
# By the names of the option ``reward``, beside the names of the functions themselves.
PRESETS: dict[str, dict[str, float]] = {
    "zero_one": {"accuracy": 1.0},
    "strict": {"accuracy": 1.0},
    "mini_r1": {"mini_r1_format": 1.0, "accuracy": 1.0},
    "logic_rl": {"logic_rl_format": 1.0, "logic_rl_answer": 1.0},
    "simplerl": {"simplerl": 1.0},
    "gsm8k": {name: 1.0 for name in REWARDS if name.startswith("gsm8k_")},
    "open_r1": {"accuracy": 1.0, "format": 1.0, "tag_count": 1.0},
}


# What these functions look for, only these templates ask for.
TEMPLATES_OF: dict[str, tuple[str, ...]] = {
    "simplerl": ("qwen_boxed",),
    "format": ("open_r1",),
    "tag_count": ("open_r1",),
    "mini_r1_format": ("mini_r1", "unlock_deepseek", "tinyzero"),
    "logic_rl_format": ("logic_rl", "r1"),
    "logic_rl_answer": ("logic_rl", "r1"),
} | dict.fromkeys(PRESETS["gsm8k"], ("gsm8k",))


def weights_of(reward: str | Mapping[str, float]) -> dict[str, float]:
    """The weights by function: a preset's, one function's, or those given.

    Raises:
        ValueError: no function, an unknown one, or a weight that is not finite.
    """
    if isinstance(reward, str):
        reward = PRESETS.get(reward, {reward: 1.0})
    for name in reward:
        if name not in REWARDS:
            known = f"the presets {', '.join(PRESETS)} or weights of {', '.join(REWARDS)}"
            raise ValueError(f"unknown reward {name!r}: choose {known}")
    if not reward or not all(math.isfinite(float(weight)) for weight in reward.values()):
        raise ValueError(f"reward={dict(reward)}: give at least one function a finite weight")
    return {name: float(weight) for name, weight in reward.items()}


def check_template(template: str, weights: Mapping[str, float]) -> None:
    """Raise ValueError for a reward of what the template does not ask for: it would always be 0."""
    for name in weights:
        needed = TEMPLATES_OF.get(name, (template,))
        if template not in needed:
            raise ValueError(
                f"reward {name} rewards what template={' or '.join(needed)} asks for, not"
                f" {template}: take that one"
            )


def scores(attempt: Attempt, weights: Mapping[str, float]) -> dict[str, float | None]:
    """What each weighted function says of an attempt, unweighted; None where it cannot tell."""
    return {name: REWARDS[name](attempt) for name in weights}


def total(found: Mapping[str, float | None], weights: Mapping[str, float]) -> float:
    """The weighted sum; what could not be told counts nothing.

    >>> total({"accuracy": 1.0, "format": None}, {"accuracy": 2.0, "format": 1.0})
    2.0
    """
    return sum(weights[name] * value for name, value in found.items() if value is not None)
