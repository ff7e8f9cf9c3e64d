"""What teachers say while they demonstrate is true, step by step: a model learns to work by it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ragen_lite.envs.answers.arithmetic import Arithmetic, columns
from ragen_lite.envs.answers.countdown import Countdown
from ragen_lite.envs.answers.expression import combine
from ragen_lite.envs.answers.knights_knaves.task import KnightsKnaves
from ragen_lite.envs.games.game_2048 import Game2048
from ragen_lite.envs.games.sudoku import Sudoku
from ragen_lite.envs.games.wordle import Wordle

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("a", "b", "operator", "steps"),
    [
        (37, 48, "+", ["7 + 8 = 15", "3 + 4 + 1 = 8"]),
        (99, 1, "+", ["9 + 1 = 10", "9 + 0 + 1 = 10"]),
        (52, 17, "-", ["12 - 7 = 5", "5 - 1 - 1 = 3"]),
        (17, 52, "-", ["12 - 7 = 5", "5 - 1 - 1 = 3"]),
        (100, 1, "-", ["10 - 1 = 9", "10 - 0 - 1 = 9", "1 - 0 - 1 = 0"]),
        (5, 5, "-", ["5 - 5 = 0"]),
    ],
)
def test_columns(a: int, b: int, operator: str, steps: list[str]) -> None:
    assert columns(a, b, operator) == steps


def test_columns_lead_to_the_answer() -> None:
    env = Arithmetic()
    for seed in range(200):
        env.reset(seed=seed)
        steps = columns(env.a, env.b, env.operator)
        values = [int(step.partition(" = ")[2]) for step in steps]
        # Sums carry, so only the last column keeps both of its digits.
        digits = [value % 10 for value in values[:-1]] + values[-1:]
        assert sum(digit * 10**place for place, digit in enumerate(digits)) == abs(env.answer)
        assert env.demonstrate(RNG)[0].startswith("minus, ") == (env.answer < 0)


def test_countdowns_steps_are_true_and_end_at_the_target() -> None:
    env = Countdown()
    for seed in range(100):
        env.reset(seed=seed)
        steps = env.demonstrate(RNG)[0].split(", ")
        assert len(steps) == len(env.numbers) - 1
        for step in steps:
            x, operator, y, _, value = step.split(" ")
            assert combine(Fraction(x), Fraction(y), operator) == Fraction(value)
        assert steps[-1].endswith(f" = {env.target}")


def test_knights_and_knaves_rules_out_every_assignment_before_the_right_one() -> None:
    env = KnightsKnaves()
    for seed in range(50):
        env.reset(seed=seed)
        lines = env.demonstrate(RNG)[0].split(", ")
        roles, fits = zip(*(line.split(": ") for line in lines), strict=True)
        assert roles[-1].split() == [
            "truth" if role == "knight" else "lie" for role in env.puzzle.identities
        ]
        assert set(fits[-1].split()) == {"yes"} and all(
            line.endswith("no") and line.count("no") == 1 for line in fits[:-1]
        )


def test_sudoku_names_what_each_cell_sees() -> None:
    env = Sudoku()
    for seed in range(50):
        env.reset(seed=seed)
        thought, actions = env.demonstrate(RNG)
        grid = list(env.grid)
        for part, action in zip(thought.split(", "), actions, strict=True):
            cell, digit = divmod(action, 4)
            row, column = divmod(cell, 4)
            seen = {grid[c] for c in range(16) if c // 4 == row or c % 4 == column}
            seen |= {grid[c] for c in range(16) if c // 8 == row // 2 and c % 4 // 2 == column // 2}
            assert part == f"({row},{column}) {' '.join(map(str, sorted(seen - {0})))}"
            assert digit + 1 == env.solution[cell]
            grid[cell] = digit + 1


def test_wordle_says_what_is_known() -> None:
    env = Wordle()
    env.reset(seed=0)
    env.word = "eject"
    thought, (word,) = env.demonstrate(RNG)
    assert thought == " ".join(word)
    env.step("speed")
    env.step("geese")
    shown = [env.demonstrate(RNG) for _ in range(30)]
    # Any word that the answers leave open, and not always the same.
    assert {word for _, (word,) in shown} <= set(env.candidates) and len({t for t, _ in shown}) > 3
    assert all(thought == f"_ _ e _ _, e: {' '.join(word)}" for thought, (word,) in shown)
    env.step("expel")
    thought, (word,) = env.demonstrate(RNG)
    assert thought == f"e _ e _ _, e: {' '.join(word)}"


def test_2048s_habit_slides_into_a_corner() -> None:
    env = Game2048()
    env.reset(seed=0)
    up, right, _, left = range(4)
    env.board = (
        1,
        1,
        2,
        2,
        *(0,) * 12,
    )  # Right merges both pairs, Up moves nothing; then neither moves, and so on
    assert env.wander(RNG) == ("corner", [right, left, right, left, right])
    env.board = (0, 0, 0, 2, 0, 0, 0, 2, *(0,) * 8)  # Up merges
    assert env.wander(RNG)[1][:2] == [up, left]
    env.board = (1, 2, 1, 2, 2, 1, 2, 1, 1, 2, 1, 2, 2, 1, 2, 1)  # nothing moves
    assert env.wander(RNG) == ("corner", [up])
