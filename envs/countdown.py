"""Countdown in its plain form, by TinyZero's rules: reach the target with every number used exactly once.

Reward (TinyZero, verl/utils/reward_score/countdown.py): 1 solved, 0.1 for any other readable answer, 0 unreadable.
Answers are parsed, never evaluated: ``+ - * /`` over whole numbers and brackets, in exact fractions.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import TextTask, text_space, wanted_split

SOLVED, TRIED = 1.0, 0.1
LONGEST = 200  # characters; far above any honest answer, so that parsing is always quick


class BadExpression(ValueError):
    """Text that is no arithmetic expression; it says what is wrong."""


def tokens(text: str) -> Iterator[str]:
    """The numbers, operators and brackets of an expression. Raises BadExpression."""
    position = 0
    while position < len(text):
        char = text[position]
        end = position + 1
        if char in "0123456789":
            while end < len(text) and text[end] in "0123456789":
                end += 1
            yield text[position:end]
        elif char in "+-*/()":
            yield char
        elif char != " ":
            raise BadExpression(f"{char!r} is not allowed; use whole numbers, + - * / and brackets")
        position = end


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """The exact value of an expression and the numbers in it, in order of appearance.

    >>> evaluate("(1 + 2) / 3")
    (Fraction(1, 1), [1, 2, 3])

    Raises BadExpression for anything but whole numbers, ``+ - * /`` and brackets, for a division by zero and for
    more than 200 characters. Precedence climbing over a list of tokens; the text itself is never executed.
    """
    if len(text) > LONGEST:
        raise BadExpression(f"{len(text)} characters; at most {LONGEST} are read")
    queue = [*tokens(text), ""]
    numbers: list[int] = []
    place = 0

    def take() -> str:
        nonlocal place
        place += 1
        return queue[place - 1]

    def atom() -> Fraction:
        token = take()
        if token == "(":
            value = addition()
            if take() != ")":
                raise BadExpression("a bracket is not closed")
            return value
        if not token.isdigit():
            raise BadExpression(f"a number is missing before {token!r}" if token else "it ends too early")
        numbers.append(int(token))
        return Fraction(numbers[-1])

    def product() -> Fraction:
        value = atom()
        while queue[place] in ("*", "/"):
            if take() == "*":
                value *= atom()
            elif (divisor := atom()) != 0:
                value /= divisor
            else:
                raise BadExpression("division by zero")
        return value

    def addition() -> Fraction:
        value = product()
        while queue[place] in ("+", "-"):
            value = value + product() if take() == "+" else value - product()
        return value

    value = addition()
    if queue[place]:
        raise BadExpression(f"{queue[place]!r} is left over")
    return value, numbers


@lru_cache(maxsize=4096)
def solve(numbers: tuple[int, ...], target: int) -> str | None:
    """An expression that uses every number once and equals ``target``; None where none does. Exact and exhaustive."""
    return _reach(tuple((Fraction(n), str(n)) for n in numbers), Fraction(target))


def _reach(terms: tuple[tuple[Fraction, str], ...], target: Fraction) -> str | None:
    if len(terms) == 1:
        return terms[0][1] if terms[0][0] == target else None
    for i in range(len(terms)):
        for j in range(i):
            rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
            for value, text in _combine(terms[j], terms[i]):
                found = _reach((*rest, (value, text)), target)
                if found:
                    return found if rest else text.removeprefix("(").removesuffix(")")
    return None


def _combine(a: tuple[Fraction, str], b: tuple[Fraction, str]) -> Iterator[tuple[Fraction, str]]:
    (x, left), (y, right) = a, b
    yield x + y, f"({left} + {right})"
    yield x * y, f"({left} * {right})"
    yield x - y, f"({left} - {right})"
    yield y - x, f"({right} - {left})"
    if y:
        yield x / y, f"({left} / {right})"
    if x:
        yield y / x, f"({right} / {left})"


class Countdown(TextTask[str]):
    """One turn: an expression that equals the target and uses every number exactly once.

    Args:
        min_numbers, max_numbers: how many numbers an instance has.
        largest: numbers are drawn evenly from 1 to this.
        min_target, max_target: the range of the target, which is a whole number.

    ``info``: success; value (the answer's, as text, or None); why (what is wrong with the answer, or None).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_turns = max_actions_per_turn = max_actions = 1
    turn_penalty = 0.0

    def __init__(
        self,
        min_numbers: int = 3,
        max_numbers: int = 4,
        largest: int = 99,
        min_target: int = 10,
        max_target: int = 100,
        render_mode: str | None = None,
    ) -> None:
        if not 2 <= min_numbers <= max_numbers <= 6:
            raise ValueError(f"Countdown takes 2 to 6 numbers, not {min_numbers} to {max_numbers}")
        if largest < 2 or not 1 <= min_target <= max_target:
            raise ValueError(f"no instance has numbers up to {largest} and a target in {min_target}..{max_target}")
        self.min_numbers, self.max_numbers, self.largest = min_numbers, max_numbers, largest
        self.min_target, self.max_target, self.render_mode = min_target, max_target, render_mode
        self.observation_space = text_space(200)
        self.action_space = gym.spaces.Text(LONGEST, min_length=0, charset="0123456789+-*/() ")

    @property
    def instructions(self) -> str:
        return (
            "Write an arithmetic expression that equals the target. Use + - * / and brackets, and use each of the "
            "given numbers exactly once, for example (1 + 2) / 3."
        )

    def _instance(self) -> tuple[tuple[int, ...], int]:
        """Numbers and a target reached from them: random operations until a whole target in range comes out."""
        rng = self.np_random
        for _ in range(100_000):
            count = int(rng.integers(self.min_numbers, self.max_numbers + 1))
            numbers = tuple(int(n) for n in rng.integers(1, self.largest + 1, count))
            values = [Fraction(n) for n in numbers]
            while len(values) > 1:
                x = values.pop(int(rng.integers(len(values))))
                y = values.pop(int(rng.integers(len(values))))
                results = [x + y, x - y, x * y, *([x / y] if y else [])]
                values.append(results[int(rng.integers(len(results)))])
            if values[0].denominator == 1 and self.min_target <= values[0] <= self.max_target:
                return numbers, int(values[0])
        raise RuntimeError(
            f"no target from {self.min_target} to {self.max_target} comes out of {self.min_numbers} to "
            f"{self.max_numbers} numbers up to {self.largest}: allow more"
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw an instance of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        # Sorted, so that the same puzzle in another order is the same instance.
        self.numbers, self.target = self.draw(
            wanted_split(options), self._instance, lambda made: f"{sorted(made[0])} -> {made[1]}"
        )
        return self.render(), {"success": False, "value": None, "why": None}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an expression; every answer ends the episode."""
        info: dict[str, Any] = {"success": False, "value": None, "why": None}
        try:
            value, used = evaluate(action)
        except BadExpression as error:
            return self.render(), TRIED, True, False, info | {"why": str(error)}
        if sorted(used) != sorted(self.numbers):
            info["why"] = f"it uses {sorted(used)}, not {sorted(self.numbers)}"
        elif value != self.target:
            info["why"] = f"it equals {value}, not {self.target}"
        info |= {"success": info["why"] is None, "value": str(value)}
        return self.render(), SOLVED if info["success"] else TRIED, True, False, info

    def render(self) -> str:  # type: ignore[override]
        """The instance as text."""
        return f"Numbers: {' '.join(map(str, self.numbers))}. Target: {self.target}."

    def solve(self) -> list[str] | None:
        """One expression that is right."""
        expression = solve(self.numbers, self.target)
        return None if expression is None else [expression]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random expression over the given numbers, each used once: in random order, by random operators."""
        terms = [str(n) for n in rng.permutation(self.numbers)]
        while len(terms) > 1:
            i = int(rng.integers(len(terms) - 1))
            terms[i : i + 2] = [f"({terms[i]} {'+-*/'[rng.integers(4)]} {terms[i + 1]})"]
        return [terms[0].removeprefix("(").removesuffix(")")]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The solution; its value is the thought."""
        return f"reach {self.target}", self.solve() or []
