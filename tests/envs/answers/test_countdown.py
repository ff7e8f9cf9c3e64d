"""Countdown: the parser never evaluates text, the solver is exact, the rewards are TinyZero's."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.envs.answers.countdown import Countdown
from ragen_lite.envs.answers.expression import BadExpression, combine, evaluate, solve
from ragen_lite.envs.dialogue import Dialogue


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("1 + 2", Fraction(3), [1, 2]),
        ("(1 + 2) / 3", Fraction(1), [1, 2, 3]),
        ("2 * 3 - 4 / 8", Fraction(11, 2), [2, 3, 4, 8]),
        ("1/3*3", Fraction(1), [1, 3, 3]),
        ("8-3-2", Fraction(3), [8, 3, 2]),
        ("((7))", Fraction(7), [7]),
    ],
)
def test_values_are_exact(text: str, value: Fraction, numbers: list[int]) -> None:
    assert evaluate(text) == (value, numbers)


@pytest.mark.parametrize(
    "text",
    ["07+1", "2**3", "7//2", "3.5*10", "3*5 #2", "-3+5", "1 + 2 = 3", "6 × 7", "1/0", "1/(2-2)", "", "()", "(1", "1)", "1 2", "1+",
     "1_0", "١+١", "9**9**9", "(" * 100 + "1", "(" * 10**6 + "1", "__import__('os')", "1\n+1", "²"],
)  # fmt: skip
def test_everything_else_is_wrong_at_once(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(BadExpression):
        evaluate(text)
    assert time.perf_counter() - began < 1.0


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/() .#_a²", max_size=250))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        value, _ = evaluate(text)
    except BadExpression:
        return
    assert isinstance(value, Fraction)


def brute_force(numbers: tuple[int, int, int], target: int) -> bool:
    for a, b, c in permutations([str(n) for n in numbers]):
        for p, q in product("+-*/", repeat=2):
            for text in (f"({a}{p}{b}){q}{c}", f"{a}{p}({b}{q}{c})"):
                try:
                    if evaluate(text)[0] == target:
                        return True
                except BadExpression:
                    continue
    return False


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.integers(1, 40))
def test_the_solver_is_exact(numbers: tuple[int, int, int], target: int) -> None:
    found = solve(numbers, target)
    assert (found is not None) == brute_force(numbers, target)
    if found is not None:
        value, used = evaluate(found)
        assert value == target and sorted(used) == sorted(numbers)


def values(terms: tuple[Fraction, ...], operators: str) -> set[Fraction]:
    """Everything that these numbers can come to, by trying it all."""
    if len(terms) == 1:
        return {terms[0]}
    found: set[Fraction] = set()
    for i, j in permutations(range(len(terms)), 2):
        rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
        for operator in operators:
            value = combine(terms[i], terms[j], operator)
            if value is not None:
                found |= values((*rest, value), operators)
    return found


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4), st.sampled_from(["+-*/", "+-", "*/", "-/"]))
def test_the_solver_is_exact_for_four_numbers_and_fewer_operators(
    numbers: tuple[int, ...], operators: str
) -> None:
    reachable = values(tuple(map(Fraction, numbers)), operators)
    for target in range(0, 30):
        found = solve(numbers, target, operators)
        assert (found is not None) == (Fraction(target) in reachable), (numbers, target, operators)
        if found is not None:
            assert evaluate(found, operators)[0] == target


def test_six_numbers_are_built_with_a_solution_and_searched_without() -> None:
    env = Countdown(min_numbers=6, max_numbers=6)
    for seed in range(5):
        env.reset(seed=seed)
        for answer in (env.solve()[0], env.search()):
            assert answer is not None and env.step(answer)[1] == 1.0


def at(numbers: tuple[int, ...], target: int) -> Countdown:
    env = Countdown()
    env.reset(seed=0)
    env.numbers, env.target = numbers, target
    return env


@pytest.mark.parametrize(
    ("answer", "reward", "why"),
    [
        ("6 * 7", 1.0, None),
        ("7*6", 1.0, None),
        ("6 + 7", 0.1, "equals 13"),
        ("42", 0.1, "uses [42]"),
        ("6 * 7 * 1", 0.1, "uses [1, 6, 7]"),
        ("6 * 7 #", 0.1, "'#' is not allowed"),
    ],
)
def test_rewards_are_tinyzeros(answer: str, reward: float, why: str | None) -> None:
    _, got, terminated, truncated, info = at((6, 7), 42).step(answer)
    assert (got, terminated, truncated, info["success"]) == (reward, True, False, reward == 1.0)
    assert (why is None and info["why"] is None) or why in info["why"]


def test_a_target_out_of_reach_is_given_up_in_a_sentence() -> None:
    with pytest.raises(RuntimeError, match="allow more"):
        Countdown(min_numbers=2, max_numbers=2, largest=5, min_target=50).reset(seed=0)


def test_options_that_cannot_work_are_refused() -> None:
    for options in (
        {"min_numbers": 1},
        {"max_numbers": 7},
        {"largest": 1},
        {"min_target": 200},
        {"operators": "+^"},
        {"reward": "x"},
        {"language": "de"},
    ):
        with pytest.raises(ValueError):
            Countdown(**options)


@pytest.mark.parametrize(
    ("reward", "wrong", "right"),
    [("tinyzero", 0.1, 1.0), ("mini_r1", 1.0, 2.0), ("strict", 0.0, 1.0)],
)
def test_presets(reward: str, wrong: float, right: float) -> None:
    env = Countdown(reward=reward)
    env.reset(seed=0)
    assert env.step("1")[1] == wrong
    assert env.step(env.solve()[0])[1] == right


def test_operators_that_are_not_allowed_are_wrong() -> None:
    env = Countdown(operators="+-")
    env.reset(seed=3)
    assert "* /" not in env.instructions and "+ -" in env.instructions
    assert "'*' is not allowed" in env.step("6 * 7")[4]["why"]
    assert env.step(env.solve()[0])[4]["success"]


def test_chinese() -> None:
    dialogue = Dialogue(Countdown(language="zh"))
    message, _ = dialogue.reset(seed=0)
    assert (
        message.startswith("数字：")
        and "目标：" in message
        and message in dialogue.observation_space
    )
    assert "每个给定的数字必须恰好使用一次" in dialogue.system and "Always" not in message
