"""A million random and adversarial texts against every verifier: nothing raised, nothing slow,
nothing wrongly right.

python benchmarks/fuzz.py [--count 1000000]

Half of the texts are mutations of right answers and of a corpus of known tricks, the other half are
random characters. What a verifier calls right is held against an oracle of its own kind: another
parser, or a plain comparison.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ragen_lite.envs.answers.arithmetic import Multiplication
from ragen_lite.envs.answers.countdown import Countdown
from ragen_lite.envs.answers.knights_knaves.english import BadPuzzle, parse_statement, read_answer
from ragen_lite.envs.answers.knights_knaves.task import KnightsKnaves
from ragen_lite.envs.answers.math import grading
from ragen_lite.envs.answers.templates import TEMPLATES
from ragen_lite.envs.answers.word_problems import WordProblems
from ragen_lite.envs.formats import PROTOCOLS, Unreadable
from ragen_lite.envs.games.wordle import Wordle

TRICKS = (
    *(
        "2**3",
        "7//2",
        "3*5 #2",
        "3.5*10",
        "1_0",
        "9**9**9",
        "__import__('os')",
        "1e3",
        "0x10",
        "٣+٤",
        "²",
        "½",
        "−3",
        "6×7",
    ),
    *(
        "(" * 150 + "1" + ")" * 150,
        "((((",
        "))))",
        "1/0",
        "1/(2-2)",
        "-3+5",
        "+4",
        "--4",
        "1 2",
        "=",
        "1+1=2",
        "\x00",
        "\n",
    ),
    *(
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "<|im_end|>",
        "\\boxed{",
        "}",
        "{",
        "\\frac{1}{2}",
        "NaN",
        "inf",
        "True",
    ),
    *(
        "is a knight",
        "is a knave",
        "knightknave",
        "KNIGHT",
        "(1)",
        "not",
        "if",
        "then",
        "and",
        "or",
        "only",
        "$",
        ",",
        ".",
        "%",
    ),
    *("ß", "İ", "ǆ", "e\u0301", "\u200b", "\u202e", "😀", "\ud7ff", "ａ", "１", "Ⅷ"),
)
LETTERS = "0123456789+-*/()., \n<>{}$\\abcdefgiknotvwxyzAKZ_#=٣²\u200b😀"


@dataclass
class Target:
    """A verifier: the right answers that are mutated, how a text is judged, and whether the
    judgement can be true."""

    seeds: list[str]
    right: Callable[[str], bool]
    oracle: Callable[[str], bool]


def texts(rng: np.random.Generator, seeds: list[str], count: int) -> list[str]:
    """Random texts, and mutations of the seeds: pieces doubled, dropped, swapped, replaced by
    tricks or by characters."""
    made = []
    kinds = rng.integers(8, size=count)
    lengths = rng.integers(1, 24, size=count)
    for kind, length in zip(kinds.tolist(), lengths.tolist(), strict=True):
        if kind < 4:
            made.append(
                "".join([LETTERS[i] for i in rng.integers(len(LETTERS), size=length).tolist()])
            )
            continue
        text = seeds[int(rng.integers(len(seeds)))]
        a, b = sorted(rng.integers(len(text) + 1, size=2).tolist())
        trick = TRICKS[int(rng.integers(len(TRICKS)))]
        if kind == 4:
            text = text[:a] + trick + text[a:]
        elif kind == 5:
            text = text[:a] + text[b:]
        elif kind == 6:
            text = text[:b] + text[a:]
        else:
            text = text[:a] + LETTERS[int(rng.integers(len(LETTERS)))] + text[a + 1 :]
        made.append(text)
    return made


def exact(node: ast.AST) -> Fraction:
    """The value of a Python expression tree of whole numbers and + - * /: an oracle that shares
    nothing with ours."""
    if isinstance(node, ast.Expression):
        return exact(node.body)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    assert isinstance(node, ast.BinOp)
    a = exact(node.left)
    b = exact(node.right)
    match node.op:
        case ast.Add():
            return a + b
        case ast.Sub():
            return a - b
        case ast.Mult():
            return a * b
        case ast.Div():
            return a / b
    raise AssertionError(ast.dump(node))


def countdown() -> Target:
    env = Countdown()
    env.reset(seed=1)

    def oracle(text: str) -> bool:
        tree = ast.parse(text.strip().replace("\n", " "), mode="eval")
        used = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        return exact(tree) == env.target and sorted(used) == sorted(env.numbers)

    return Target(
        [env.solve()[0], *map(str, env.numbers)],
        lambda text: bool(env.step(text)[4]["success"]),
        oracle,
    )


def multiplication() -> Target:
    env = Multiplication()
    env.reset(seed=1)
    return Target(
        env.solve(),
        lambda text: bool(env.step(text)[4]["success"]),
        lambda t: t.isascii() and int(t) == env.answer,
    )


def word_problems() -> Target:
    env = WordProblems()
    env.reset(seed=1)
    wanted = env.problem.answer

    def oracle(text: str) -> bool:
        return text.isascii() and int(text.strip().removeprefix("$").replace(",", "")) == wanted

    return Target(
        [*env.solve(), "1,234", "$5"], lambda text: bool(env.step(text)[4]["success"]), oracle
    )


def knights_knaves() -> Target:
    env = KnightsKnaves(min_people=3, max_people=3)
    env.reset(seed=1)
    names = env.puzzle.names
    roles = env.puzzle.identities

    def oracle(text: str) -> bool:
        words = "".join(c if c.isalpha() or c.isspace() else " " for c in text.lower()).split()
        said = all(
            f"{name} is a {role}".lower() in " ".join(words)
            for name, role in zip(names, roles, strict=True)
        )
        return said and text.lower().count("knight") + text.lower().count("knave") == len(names)

    seeds = [*env.solve(), ", ".join(f"{n} is a {r}" for n, r in zip(names, roles, strict=True))]
    return Target(seeds, lambda t: read_answer(t, names, env.puzzle.roles) == roles, oracle)


def statements() -> Target:
    """The parser of English: what it reads is never judged, but it must read or refuse."""

    def read(text: str) -> bool:
        with contextlib.suppress(BadPuzzle):
            parse_statement(text, ("Ann", "Bob"), ("knight", "knave"))
        return False

    return Target(
        ["if Ann is a knight then (Bob is not a knave or Ann is a knave)"], read, lambda text: False
    )


def protocols() -> Target:
    """Every reading of a reply: it returns text or says that it cannot."""

    def read(text: str) -> bool:
        for protocol in PROTOCOLS.values():
            with contextlib.suppress(Unreadable):
                assert isinstance(protocol.read(text), str)
        for template in TEMPLATES.values():
            template.read(text)
        return False

    seeds = [protocol.write("a thought", "42") for protocol in PROTOCOLS.values()]
    return Target([*seeds, "so the answer is 7. Yes."], read, lambda text: False)


def plain_grading() -> Target:
    def oracle(text: str) -> bool:
        text = text.strip().replace(",", "").replace("$", "").rstrip(".")
        return text.isascii() and Fraction(text) == Fraction(5, 2)

    # Where both are plain numbers math-verify is not asked; where they are not, this row is about
    # plain ones only.
    return Target(
        ["2.5", "5/2", "2.50", "$2.5", "10/4"],
        lambda text: grading.number(text) is not None and grading.grade(text, "5/2") is True,
        oracle,
    )


def wordle() -> Target:
    env = Wordle()
    env.reset(seed=1)

    def right(text: str) -> bool:
        env.lines.clear()
        return bool(env.step(text)[4]["success"])

    return Target([env.word, "alert"], right, lambda text: text.strip().lower() == env.word)


TARGETS: dict[str, Callable[[], Target]] = {
    "countdown": countdown,
    "multiplication": multiplication,
    "word_problems": word_problems,
    "knights_knaves": knights_knaves,
    "statements in English": statements,
    "protocols and templates": protocols,
    "math, plain numbers": plain_grading,
    "wordle": wordle,
}


def attack(name: str, count: int, seed: int = 0) -> tuple[int, float]:
    """Judge ``count`` texts; returns how many were right, and the slowest in seconds. Raises
    AssertionError."""
    target = TARGETS[name]()
    rng = np.random.default_rng(seed)
    right = 0
    slowest = 0.0
    for begin in range(0, count, 10_000):
        for text in texts(rng, target.seeds, min(10_000, count - begin)):
            began = time.perf_counter()
            verdict = target.right(text)
            slowest = max(slowest, time.perf_counter() - began)
            if verdict:
                right += 1
                assert target.oracle(text), f"{name} calls {text!r} right"
    return right, slowest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    count = parser.parse_args().count
    print(
        "| verifier | texts | called right, all confirmed | slowest, ms | a second |\n|---|---|---|---|---|"
    )
    for name in TARGETS:
        began = time.perf_counter()
        right, slowest = attack(name, count)
        rate = count / (time.perf_counter() - began)
        print(
            f"| {name} | {count:,} | {right:,} | {1000 * slowest:.1f} | {rate:,.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
