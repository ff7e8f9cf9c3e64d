"""Countdown: reach the target with every number, each used once.

The rewards are those of TinyZero, mini-deepseek-r1 and unlock-deepseek. Answers are parsed, never
evaluated: whole numbers, the operators and brackets, in exact fractions (expression.py).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.answers.expression import (
    LONGEST,
    OPERATORS,
    BadExpression,
    combine,
    evaluate,
    solve,
)
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import one_of, requested_split

# What an answer earns: (readable but wrong, right). An unreadable reply earns 0.
REWARDS = {
    "tinyzero": (0.1, 1.0),  # TinyZero, verl/utils/reward_score/countdown.py
    # mini-deepseek-r1 and unlock-deepseek: 1 for the format, 1 for the equation
    "mini_r1": (1.0, 2.0),
    "strict": (0.0, 1.0),
}
# The system prompt and the message, by language.
RULES = {
    "en": (
        "Write an arithmetic expression that equals the target. Use {operators} and brackets, and"
        " use each of the given numbers exactly once, for example (1 + 2) / 3."
    ),
    "zh": (
        "写出一个等于目标数的算式。可以使用 {operators} 和括号，每个给定的数字必须恰好使用一次，"
        "例如 (1 + 2) / 3。"
    ),
}
STATES = {"en": "Numbers: {numbers}. Target: {target}.", "zh": "数字：{numbers}。目标：{target}。"}


class Countdown(TextTask[str]):
    """One turn: an expression that equals the target and uses every number exactly once.

    Args:
        min_numbers, max_numbers: how many numbers an instance has, 2 to 6.
        smallest, largest: numbers are drawn evenly from this range.
        min_target, max_target: the range of the target, which is a whole number.
        operators: which of ``+-*/`` may be used.
        reward: ``tinyzero`` (0 unreadable, 0.1 wrong, 1 right), ``mini_r1`` (0, 1, 2) or ``strict``
            (0, 0, 1). What is readable is Dialogue's rule, not theirs: a thought and an answer that
            is not empty, with or without a line break between (TinyZero itself reads an answer
            without a thought too: ``env.protocol=answer``).
        language: of the rules and the instance, ``en`` or ``zh``.

    Raises:
        ValueError: an option out of its range.

    Every instance is built from a solution. ``info``: success; value (the answer's, as text, or
    None); why (what is wrong with the answer, or None).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_turns = max_actions_per_turn = max_actions = 1
    turn_penalty = 0.0

    def __init__(
        self,
        min_numbers: int = 3,
        max_numbers: int = 4,
        smallest: int = 1,
        largest: int = 99,
        min_target: int = 10,
        max_target: int = 100,
        operators: str = OPERATORS,
        reward: str = "tinyzero",
        language: str = "en",
        render_mode: str | None = None,
    ) -> None:
        if not 2 <= min_numbers <= max_numbers <= 6:
            raise ValueError(f"Countdown takes 2 to 6 numbers, not {min_numbers} to {max_numbers}")
        if not 1 <= smallest < largest <= 10**6 or not 1 <= min_target <= max_target <= 10**9:
            raise ValueError(
                f"no instance has numbers from {smallest} to {largest} and a target in"
                f" {min_target}..{max_target}: numbers go from 1 up to a million, targets from 1 up"
                " to a billion"
            )
        if (
            not operators
            or len(set(operators)) != len(operators)
            or not set(operators) <= set(OPERATORS)
        ):
            raise ValueError(f"operators={operators!r}: give some of {OPERATORS}, each once")
        one_of("reward", reward, REWARDS)
        one_of("language", language, RULES)
        self.min_numbers = min_numbers
        self.max_numbers = max_numbers
        self.smallest = smallest
        self.largest = largest
        self.min_target = min_target
        self.max_target = max_target
        self.render_mode = render_mode
        # In one fixed order, so that the same operators in another order are the same task.
        self.operators = "".join(o for o in OPERATORS if o in operators)
        self.tried, self.solved, self.language = *REWARDS[reward], language
        self.observation_space = text_space(200, frozenset("".join(STATES.values())))
        self.action_space = gym.spaces.Text(
            LONGEST, min_length=0, charset="0123456789() " + self.operators
        )

    @property
    def instructions(self) -> str:
        """The system prompt, in the task's language."""
        return RULES[self.language].format(operators=" ".join(self.operators))

    def _instance(self) -> tuple[tuple[int, ...], int, str, list[str]]:
        """An instance: numbers, target, an expression that reaches it, and its steps.

        Two random terms are combined by a random operator until one term is left. Its value is the
        target, so every instance has a solution. Targets are not uniform: they are what random
        operations come to.

        Raises:
            RuntimeError: no target in range in 100,000 draws.
        """
        rng = self.np_random
        for _ in range(100_000):
            count = int(rng.integers(self.min_numbers, self.max_numbers + 1))
            numbers = tuple(rng.integers(self.smallest, self.largest + 1, count).tolist())
            terms: list[tuple[Fraction, str]] = [(Fraction(n), str(n)) for n in numbers]
            steps = []
            # Values on the way may be fractions or below 0; only the target must be whole. Terms
            # are taken from random places, so brackets of every shape come up.
            while len(terms) > 1:
                x, left = terms.pop(int(rng.integers(len(terms))))
                y, right = terms.pop(int(rng.integers(len(terms))))
                operator = self.operators[rng.integers(len(self.operators))]
                value = combine(x, y, operator)
                if value is None:  # a division by zero
                    break
                terms.append((value, f"({left} {operator} {right})"))
                steps.append(f"{x} {operator} {y} = {value}")
            # The else of a loop runs where no break has ended it.
            else:
                ((value, text),) = terms
                if value.denominator == 1 and self.min_target <= value <= self.max_target:
                    # Every operation is written in brackets; the outermost pair goes.
                    return numbers, int(value), text[1:-1], steps
        raise RuntimeError(
            f"no target from {self.min_target} to {self.max_target} comes out of {self.min_numbers}"
            f" to {self.max_numbers} numbers from {self.smallest} to {self.largest} by"
            f" {self.operators} in 100,000 draws: allow more"
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw an instance of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        # Sorted, so that the same puzzle in another order is the same instance.
        self.numbers, self.target, self.known, self.steps = self.draw(
            requested_split(options), self._instance, lambda made: f"{sorted(made[0])} -> {made[1]}"
        )
        return self.render(), {"success": False, "value": None, "why": None}

    @property
    def difficulty(self) -> float:
        """How many numbers there are."""
        return len(self.numbers)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an expression; every answer ends the episode.

        ``info["value"]`` is the expression's exact value, such as ``7/2``; None where it cannot be
        read.
        """
        info: dict[str, Any] = {"success": False, "value": None, "why": None}
        try:
            value, used = evaluate(action, self.operators)
        except BadExpression as error:
            return self.render(), self.tried, True, False, info | {"why": str(error)}
        # Compared as sorted lists, since a number may be given twice.
        if sorted(used) != sorted(self.numbers):
            info["why"] = f"it uses {sorted(used)}, not {sorted(self.numbers)}"
        elif value != self.target:
            info["why"] = f"it equals {value}, not {self.target}"
        info |= {"success": info["why"] is None, "value": str(value)}
        return self.render(), self.solved if info["success"] else self.tried, True, False, info

    def render(self) -> str:  # type: ignore[override]
        """The numbers and the target, in the task's language."""
        return STATES[self.language].format(
            numbers=" ".join(map(str, self.numbers)), target=self.target
        )

    def solve(self) -> list[str]:
        """The expression that the instance was built from."""
        return [self.known]

    def search(self) -> str | None:
        """An expression found by exhaustive search; None where there is none.

        It does not know how the instance was built.
        """
        return solve(self.numbers, self.target, self.operators)

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random expression over the given numbers, each used once.

        Their order, the operators and the brackets are random; the value is anything.
        """
        terms = [str(n) for n in rng.permutation(self.numbers)]
        while len(terms) > 1:
            # Two neighbours become one term in brackets.
            i = int(rng.integers(len(terms) - 1))
            operator = self.operators[rng.integers(len(self.operators))]
            terms[i : i + 2] = [f"({terms[i]} {operator} {terms[i + 1]})"]
        return [terms[0].removeprefix("(").removesuffix(")")]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The solution; the thought is its operations one by one."""
        return ", ".join(self.steps), self.solve()
