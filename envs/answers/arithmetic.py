"""Arithmetic and multiplication, TinyZero's other tasks: one question, one whole number."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.answers.asking import AnswerTask
from ragen_lite.envs.answers.rewards.outcomes import STRICT, TINYZERO_NUMBER
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

RULES = "Work out the result. The answer is one whole number, in digits."
EARNED = {"tinyzero": TINYZERO_NUMBER, "strict": STRICT}
# The longest product of two operands has 24 digits. 40 is far above, and quick to read.
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
# Groups of three must be whole: 1,200, but not 12,00.
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3}){1,13}")


def whole_number(text: str, grouped: bool = False) -> int | None:
    """The whole number that a text is, white space around it aside; None where it is none.

    Args:
        text: ASCII digits only, 40 at most, with or without a sign.
        grouped: take commas between thousands, and a dollar sign in front, too.

    >>> whole_number(" -12 "), whole_number("1_0"), whole_number("$1,200", grouped=True)
    (-12, None, 1200)
    """
    text = text.strip()
    if grouped:
        text = text.removeprefix("$")
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
    return int(text) if _WHOLE.fullmatch(text) else None


def columns(a: int, b: int, operator: str) -> list[str]:
    """A sum or difference worked out in writing: one step a column, ones first.

    A difference is the larger number less the smaller. The last column of a sum keeps its carry.

    Args:
        a: from 0.
        b: from 0.
        operator: ``+`` or ``-``.

    >>> columns(37, 48, "+"), columns(52, 17, "-")
    (['7 + 8 = 15', '3 + 4 + 1 = 8'], ['12 - 7 = 5', '5 - 1 - 1 = 3'])
    """
    a, b = (max(a, b), min(a, b)) if operator == "-" else (a, b)
    steps = []
    carry = 0
    for place in range(len(str(max(a, b)))):
        x = a // 10**place % 10
        y = b // 10**place % 10
        if operator == "+":
            value = x + y + carry
            after = value // 10
        else:
            # ``carry`` is the 1 that the column before has borrowed; ``after`` is what this one
            # borrows from the next.
            after = int(x < y + carry)
            x += 10 * after
            value = x - y - carry
        steps.append(f"{x} {operator} {y}{f' {operator} 1' if carry else ''} = {value}")
        carry = after
    return steps


class Arithmetic(AnswerTask):
    """What is a + b, or a - b? One turn.

    Args:
        digits: the longest operand. Each operand is drawn by itself as TinyZero draws it: one time
            in three with a digit less, else up to ``digits`` digits.
        operators: some of ``+-*``.
        reward: ``tinyzero`` (0 for no whole number, 0.1 wrong, 1 right) or ``strict`` (0, 0, 1);
            with a template, weights of whole replies (see AnswerTask).
        template: null, or a name of envs/answers/templates.py, such as ``tinyzero``.

    Raises:
        ValueError: an option out of its range.

    ``info``: success; value (the number answered, or None).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    default = "+-"  # the operators where none are given

    def __init__(
        self,
        digits: int = 2,
        operators: str | None = None,
        reward: str | dict[str, float] = "tinyzero",
        template: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        operators = self.default if operators is None else operators
        if not 1 <= digits <= 12:
            raise ValueError(f"digits={digits}: operands have 1 to 12 digits")
        if (
            not operators
            or len(set(operators)) != len(operators)
            or not set(operators) <= set("+-*")
        ):
            raise ValueError(f"operators={operators!r}: give some of +-*, each once")
        self.digits = digits
        self.operators = operators
        self.render_mode = render_mode
        self.observation_space = text_space(60)
        self.action_space = gym.spaces.Text(40, min_length=0, charset="0123456789+-")
        self.earned = self.use(template, reward, EARNED)

    @property
    def instructions(self) -> str:
        """The system prompt."""
        return self.template.system if self.template else RULES

    def _operand(self) -> int:
        # Uniform below 10**digits, so small numbers with fewer digits come up too.
        digits = self.digits - int(self.np_random.integers(3) == 0)
        return int(self.np_random.integers(10**digits))

    def _instance(self) -> tuple[int, str, int]:
        operator = self.operators[self.np_random.integers(len(self.operators))]
        return self._operand(), operator, self._operand()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw an instance of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self.a, self.operator, self.b = self.draw(
            requested_split(options), self._instance, self._content
        )
        self.answer = {"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[
            self.operator
        ]
        return self.render(), {"success": False, "value": None}

    @staticmethod
    def _content(made: tuple[int, str, int]) -> str:
        a, operator, b = made
        # a + b is the same instance as b + a, and a * b as b * a.
        return f"{a} - {b}" if operator == "-" else f"{min(a, b)} {operator} {max(a, b)}"

    @property
    def difficulty(self) -> float:
        """The digits of the longer operand."""
        return len(str(max(self.a, self.b)))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an answer; every answer ends the episode."""
        if self.template:
            return self.judge(action)
        value = whole_number(action)
        success = value == self.answer
        earned = self.earned
        reward = earned.unsaid if value is None else earned.right if success else earned.wrong
        return self.render(), reward, True, False, {"success": success, "value": value}

    def _asked(self) -> str:
        return f"What is {self.a} {self.operator} {self.b}?"

    def question(self) -> str:
        """See AnswerTask."""
        return f"{self._asked()} {RULES}"

    def golds(self) -> tuple[str, ...]:
        """See AnswerTask."""
        return (str(self.answer),)

    def grade(self, answer: str, gold: str) -> bool:
        """See AnswerTask."""
        return whole_number(answer) == int(gold)

    def parses(self, answer: str) -> bool:
        """Whether an answer is a whole number."""
        return whole_number(answer) is not None

    def render(self) -> str:  # type: ignore[override]
        """The question."""
        return self.message() if self.template else self._asked()

    def solve(self) -> list[str]:
        """The answer."""
        return [self.reply_with(str(self.answer))]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random number of at most as many digits as an answer may have."""
        # A product has up to twice as many digits as its factors.
        digits = rng.integers(10, size=self.digits * (1 + ("*" in self.operators)))
        return [self.reply_with(str(int("".join(map(str, digits)))))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The answer; the thought works it out in writing.

        Sums and differences go column by column. Products go by the distributive law, one digit of
        the second operand at a time, the highest first.
        """
        if self.operator != "*":
            # A difference below 0 is worked out the other way round, so its sign is said first.
            sign = "minus, " if self.answer < 0 else ""
            steps = ", ".join(columns(self.a, self.b, self.operator))
            return self.teach(sign + steps, str(self.answer))
        # 305 is taken apart into 5 and 300; zeros add nothing.
        parts = [
            int(digit) * 10**place
            for place, digit in enumerate(reversed(str(self.b)))
            if digit != "0"
        ]
        thought = " + ".join(f"{self.a} * {part} = {self.a * part}" for part in reversed(parts))
        return self.teach(thought, str(self.answer))


class Multiplication(Arithmetic):
    """What is a * b? See Arithmetic; TinyZero's own has ``digits=3``."""

    default = "*"
