"""Countdown: reach the target with every number, each used once.

The rewards are those of TinyZero, mini-deepseek-r1 and unlock-deepseek. Answers are parsed, never
evaluated: whole numbers, the operators and brackets, in exact fractions (expression.py).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.answers.asking import AnswerTask
from ragen_lite.envs.answers.countdown_puzzles import Puzzle, load_puzzles, size_of
from ragen_lite.envs.answers.expression import (
    LONGEST,
    OPERATORS,
    BadExpression,
    combine,
    evaluate,
    solve,
)
from ragen_lite.envs.answers.rewards.outcomes import MINI_R1, STRICT, TINYZERO_TEXT
from ragen_lite.envs.answers.rows import rows_of_size
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import one_of, requested_split

EARNED = {"tinyzero": TINYZERO_TEXT, "mini_r1": MINI_R1, "strict": STRICT}
NO_TEXT = " "  # no answer is this: answers are stripped
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


class Countdown(AnswerTask):
    """One turn: an expression that equals the target and uses every number exactly once.

    Args:
        min_numbers, max_numbers: how many numbers an instance has, 2 to 6.
        smallest, largest: numbers are drawn evenly from this range.
        min_target, max_target: the range of the target, which is a whole number.
        operators: which of ``+-*/`` may be used.
        reward: ``tinyzero`` (0 unreadable, 0.1 wrong, 1 right), ``mini_r1`` (0, 1, 2) or ``strict``
            (0, 0, 1). What is readable is Dialogue's rule, not theirs: a thought and an answer that
            is not empty, with or without a line break between (TinyZero itself reads an answer
            without a thought too: ``env.protocol=answer``). With a template, weights of whole
            replies (see AnswerTask).
        language: of the rules and the instance, ``en`` or ``zh``.
        template: null, or a name of envs/answers/templates.py, such as ``tinyzero``.
        data: null (puzzles are made up), or a file or hub id of published ones, of which those with
            ``min_numbers`` to ``max_numbers`` are taken; ranges of numbers and target are theirs.

    Raises:
        ValueError: an option out of its range.

    Every made up instance is built from a solution. ``info``: success; value (the answer's, as
    text, or None); why (what is wrong with the answer, or None).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    example = "(1 + 2) / 3"

    def __init__(
        self,
        min_numbers: int = 3,
        max_numbers: int = 4,
        smallest: int = 1,
        largest: int = 99,
        min_target: int = 10,
        max_target: int = 100,
        operators: str = OPERATORS,
        reward: str | dict[str, float] = "tinyzero",
        language: str = "en",
        template: str | None = None,
        data: str | None = None,
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
        self.language = language
        self.data = data
        # Read at once, so that what is wrong with the data is said here and not in a reset.
        if data is not None:
            load_puzzles(data)
        self.observation_space = text_space(200, frozenset("".join(STATES.values())))
        self.action_space = gym.spaces.Text(
            LONGEST, min_length=0, charset="0123456789() " + self.operators
        )
        self.earned = self.use(template, reward, EARNED)
        if self.template and self.template.language != language:
            told = self.template.language
            raise ValueError(f"template={template} is written in {told}: take language={told}")

    @property
    def instructions(self) -> str:
        """The system prompt, in the task's language."""
        return self.template.system if self.template else self._rules()

    def _rules(self) -> str:
        return RULES[self.language].format(operators=" ".join(self.operators))

    def instance_count(self, split: str) -> int | None:
        """The puzzles of a split; None where they are made up."""
        return None if self.data is None else len(self._published(split))

    def _published(self, split: str) -> tuple[Puzzle, ...]:
        """The data's puzzles with as many numbers as are asked for."""
        assert self.data is not None
        sizes = range(self.min_numbers, self.max_numbers + 1)
        return rows_of_size(load_puzzles, size_of, self.data, split, sizes)

    def _instance(self) -> Puzzle:
        """An instance with a solution.

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
                    return Puzzle(numbers, int(value), text[1:-1], tuple(steps))
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
        split = requested_split(options)
        if self.data is None:
            puzzle = self.draw(split, self._instance, lambda made: made.text)
        else:
            puzzle = self.pick_row(self._published(split), split, seed, self.data)
            self.instance = puzzle.text
        self.numbers = puzzle.numbers
        self.target = puzzle.target
        self.known = puzzle.known
        self.steps = puzzle.steps
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
        if self.template:
            return self.judge(action)
        info: dict[str, Any] = {"success": False, "value": None, "why": None}
        try:
            value, used = evaluate(action, self.operators)
        except BadExpression as error:
            return self.render(), self.earned.unsaid, True, False, info | {"why": str(error)}
        # Compared as sorted lists, since a number may be given twice.
        if sorted(used) != sorted(self.numbers):
            info["why"] = f"it uses {sorted(used)}, not {sorted(self.numbers)}"
        elif value != self.target:
            info["why"] = f"it equals {value}, not {self.target}"
        info |= {"success": info["why"] is None, "value": str(value)}
        reward = self.earned.right if info["success"] else self.earned.wrong
        return self.render(), reward, True, False, info

    def _state(self) -> str:
        numbers = " ".join(map(str, self.numbers))
        return STATES[self.language].format(numbers=numbers, target=self.target)

    def question(self) -> str:
        """See AnswerTask."""
        return f"{self._rules()} {self._state()}"

    def golds(self) -> tuple[str, ...]:
        """See AnswerTask; of all expressions that reach the target, one that is known."""
        return (self.known or NO_TEXT,)

    def grade(self, answer: str, gold: str) -> bool:
        """See AnswerTask."""
        try:
            value, used = evaluate(answer, self.operators)
        except BadExpression:
            return False
        return sorted(used) == sorted(self.numbers) and value == self.target

    def render(self) -> str:  # type: ignore[override]
        """The numbers and the target, in the task's language."""
        return self.message() if self.template else self._state()

    def solve(self) -> list[str] | None:
        """The expression that the instance was built from; of published ones, one that is found."""
        known = self.known or self.search()
        return None if known is None else [self.reply_with(known)]

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
        return [self.reply_with(terms[0].removeprefix("(").removesuffix(")"))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The solution; the thought is its operations one by one.

        Raises RuntimeError for a published puzzle that has none.
        """
        known = self.known or self.search()
        if known is None:
            raise RuntimeError("nothing reaches the target, so there is nothing to demonstrate")
        return self.teach(", ".join(self.steps), known)
