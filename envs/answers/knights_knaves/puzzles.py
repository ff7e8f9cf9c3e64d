"""Puzzles of knights and knaves after Xie et al. 2024 (arXiv:2410.23123): logic, text, changes.

A statement is a leaf, or an operator over statements. Puzzles have exactly one solution. It is
found by brute force over all 2^n assignments of n people. An assignment is a whole number whose bit
i is 1 where person i tells the truth. The truth table of a statement is a whole number too, of 2^n
bits: bit a is 1 where the statement holds in assignment a. So one operation on whole numbers
combines the tables of two statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from ragen_lite.envs.answers.knights_knaves.english import (
    ROLES,
    SAYINGS,
    Statement,
    article,
    plural,
    say,
)

NAMES = tuple(
    (
        "Emma Liam Olivia Noah Ava Ethan Sophia Mason Isabella William Mia James Charlotte "
        "Benjamin Amelia Lucas Harper Henry Evelyn Alexander Abigail Michael Emily Daniel "
        "Ella Jacob Zoey Logan Aria Jackson Lily Sebastian Grace Jack"
    ).split()
)
# For the perturbation ``names``.
UNCOMMON = tuple(
    (
        "Zephyrine Quillan Oberon Isaura Thaddeus Ondine Casimir Xanthe Leocadia Evander "
        "Melisande Barnaby Ottoline Phineas Saskia Ulric"
    ).split()
)
PERTURBATIONS = ("statement", "leaf", "names", "roles", "flipped", "order")
# ---- logic ----


def columns(people: int) -> list[int]:
    """The truth table of "person i is a knight" for each i: bit a is bit i of assignment a."""
    return [sum(1 << a for a in range(2**people) if a >> i & 1) for i in range(people)]


# By the number of people, 0 to 8: a puzzle has at most 8, whose tables have 256 bits.
_COLUMNS: list[list[int]] = [columns(people) for people in range(9)]


def truth(statement: Statement, people: int) -> int:
    """The truth table of a statement: bit a says whether it holds in assignment a.

    Args:
        statement: the tree.
        people: how many there are; the table has 2^people bits.

    >>> bin(truth(("and", ("telling-truth", 0), ("lying", 1)), 2))
    '0b10'
    """
    kind = statement[0]
    whole = (1 << (1 << people)) - 1  # true in every assignment; ``whole ^ table`` is "not"
    if kind == "telling-truth":
        return _COLUMNS[people][statement[1]]
    if kind == "lying":
        return whole ^ _COLUMNS[people][statement[1]]
    parts = [truth(part, people) for part in statement[1:]]
    if kind == "not":
        return whole ^ parts[0]
    if kind == "->":
        return (whole ^ parts[0]) | parts[1]
    if kind == "<=>":
        return whole ^ parts[0] ^ parts[1]
    value = parts[0]
    for part in parts[1:]:
        value = value & part if kind == "and" else value | part
    return value


def solutions(statements: Sequence[Statement]) -> list[tuple[bool, ...]]:
    """Every assignment (true: a knight) in which exactly the knights' statements hold."""
    people = len(statements)
    consistent = whole = (1 << (1 << people)) - 1
    for person, statement in enumerate(statements):
        # The assignments where "person is a knight" and what they say are both true or both false.
        consistent &= whole ^ _COLUMNS[people][person] ^ truth(statement, people)
    found = []
    # The bits that are left are the solutions, taken from the lowest up.
    while consistent:
        lowest = consistent & -consistent
        assignment = lowest.bit_length() - 1
        found.append(tuple(bool(assignment >> i & 1) for i in range(people)))
        consistent ^= lowest
    return found


class Dice:
    """Uniform whole numbers below n, drawn in bulk.

    A single draw of numpy's costs as much as a hundred.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._pool = list[int]()

    def __call__(self, n: int) -> int:
        if not self._pool:
            self._pool = self._rng.integers(2**62, size=128).tolist()
        # 2**62 is far above any n here, so the remainder is as good as uniform.
        return self._pool.pop() % n

    def some(self, items: Sequence[str], count: int) -> tuple[str, ...]:
        """``count`` different ones of ``items``, in random order."""
        rest = list(items)
        return tuple(rest.pop(self(len(rest))) for _ in range(count))


def draw_statement(dice: Dice, speaker: int, people: int, depth: int, width: int) -> Statement:
    """A random statement; its kind is a throw of a die of six.

    The kinds are leaf, ``not``, ``and``, ``or``, ``->`` and ``<=>``. At depth 1 it is a leaf.

    Args:
        dice: what it is drawn from.
        speaker: who says it.
        people: how many there are.
        depth: the deepest nesting, leaves included.
        width: the most parts of an ``and`` or ``or``.
    """
    kind = 0 if depth <= 1 else dice(6)
    if kind == 0:
        # Nobody says "I lie": neither a knight nor a knave could.
        while True:
            leaf = ("telling-truth", "lying")[dice(2)], dice(people)
            if leaf != ("lying", speaker):
                return leaf
    if kind == 1:
        return "not", draw_statement(dice, speaker, people, depth - 1, width)
    parts: list[Statement] = []
    # The parts differ from each other. There are 2 * people - 1 leaves, so more parts than that
    # could never be found at depth 2.
    wanted = min(2 + dice(width - 1), 2 * people - 1) if kind in (2, 3) else 2
    while len(parts) < wanted:
        part = draw_statement(dice, speaker, people, depth - 1, width)
        if part not in parts:
            parts.append(part)
    return ("and", "or", "->", "<=>")[kind - 2], *parts


def canonical(statements: Sequence[Statement]) -> str:
    """A puzzle's logic as text, which decides its split.

    It is the same for puzzles that differ in the order of the parts of ``and``, ``or`` and ``<=>``.
    Up to four people, it is the same for every numbering of the people too; with more people two
    such puzzles hardly ever come about.
    """
    people = len(statements)
    texts = []
    # Of all numberings (24 for four people) the first in the alphabet stands for the puzzle.
    for order in permutations(range(people)) if people <= 4 else [tuple(range(people))]:
        numbers = {person: number for number, person in enumerate(order)}
        texts.append(";".join(_sorted(statements[person], numbers) for person in order))
    return min(texts)


def _sorted(statement: Statement, numbers: dict[int, int]) -> str:
    kind = statement[0]
    if kind in ("telling-truth", "lying"):
        return f"{kind[0]}{numbers[statement[1]]}"
    parts = [_sorted(part, numbers) for part in statement[1:]]
    if kind in ("and", "or", "<=>"):  # "->" depends on the order
        parts.sort()
    return f"{kind}({','.join(parts)})"


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A puzzle in words and in logic.

    Attributes:
        statements: what each person says.
        solution: who tells the truth, by person.
        names: of the people.
        sayings: how each claim is put, as places in SAYINGS.
        roles: the words for (truthful, lying), or the other way round where ``flipped``.
        flipped: whether the first role is the one that lies.
        order: in which the people speak; empty is their own order.
        wording: the puzzle in somebody else's English; empty where ``text`` writes it.
    """

    statements: tuple[Statement, ...]
    solution: tuple[bool, ...]
    names: tuple[str, ...]
    sayings: tuple[int, ...]
    roles: tuple[str, str] = ROLES[0]
    flipped: bool = False
    order: tuple[int, ...] = ()
    wording: str = ""

    @property
    def logic(self) -> str:
        """See ``canonical``."""
        return canonical(self.statements)

    @property
    def identities(self) -> list[str]:
        """Each person's role in words; where roles are flipped, truth-tellers carry the second."""
        return [self.roles[bool(honest) == self.flipped] for honest in self.solution]

    def text(self) -> str:
        """The puzzle in English."""
        if self.wording:
            return self.wording
        truthful, liar = self.roles[::-1] if self.flipped else self.roles
        rules = {truthful: "always tell the truth", liar: "always lie"}
        first, second = self.roles
        said = [
            SAYINGS[self.sayings[i]].format(
                name=self.names[i], claim=say(self.statements[i], self.names, (truthful, liar))
            )
            for i in self.order or range(len(self.names))
        ]
        people = ", ".join(self.names[:-1]) + f" and {self.names[-1]}"
        return (
            f"A very special island is inhabited only by {plural(first)} and {plural(second)}."
            f" {plural(first).capitalize()} {rules[first]}, and {plural(second)} {rules[second]}."
            f" You meet {len(self.names)} inhabitants: {people}. {' '.join(said)} So who is"
            f" {article(first)} and who is {article(second)}?"
        )


def perturbed(
    puzzle: Puzzle, change: str, rng: np.random.Generator, depth: int, width: int
) -> Iterator[Puzzle]:
    """The puzzle with one thing changed, its solution unique again: every way, in random order.

    Args:
        puzzle: the one to change.
        change: one of PERTURBATIONS (see KnightsKnaves).
        rng: what changes are drawn from.
        depth: of a new statement, as for ``draw_statement``.
        width: of a new statement.
    """
    puzzle = replace(puzzle, wording="")
    people = len(puzzle.names)
    if change == "names":
        yield replace(puzzle, names=Dice(rng).some(UNCOMMON, people))
    if change == "roles":
        yield replace(puzzle, roles=ROLES[1 + rng.integers(len(ROLES) - 1)])
    if change == "flipped":
        yield replace(puzzle, flipped=True)
    if change == "order":
        while (order := tuple(rng.permutation(people).tolist())) == tuple(range(people)):
            pass
        yield replace(puzzle, order=order)
    if change not in ("statement", "leaf"):
        return
    # (person, new statement): 20 random statements a person, or every other leaf at every place.
    options: list[tuple[int, Statement]] = []
    for person, statement in enumerate(puzzle.statements):
        if change == "statement":
            dice = Dice(rng)
            drawn = [draw_statement(dice, person, people, depth, width) for _ in range(20)]
            options += [(person, new) for new in drawn]
            continue
        claims = [(kind, j) for kind in ("telling-truth", "lying") for j in range(people)]
        others = [claim for claim in claims if claim != ("lying", person)]
        places = leaves(statement)
        new_ones = [with_leaf(statement, path, leaf) for path in places for leaf in others]
        options += [(person, new) for new in new_ones]
    for k in rng.permutation(len(options)):
        person, new = options[k]
        statements = (*puzzle.statements[:person], new, *puzzle.statements[person + 1 :])
        # Another solution, so that remembering the first puzzle's answer does not help.
        found = solutions(statements)
        if len(found) == 1 and found[0] != puzzle.solution:
            yield replace(puzzle, statements=statements, solution=found[0])


def leaves(statement: Statement) -> list[tuple[int, ...]]:
    """The paths to a statement's leaves, as indices into nested tuples."""
    if statement[0] in ("telling-truth", "lying"):
        return [()]
    return [(i, *path) for i, part in enumerate(statement[1:], 1) for path in leaves(part)]


def with_leaf(statement: Statement, path: tuple[int, ...], leaf: Statement) -> Statement:
    """The statement with another leaf at ``path``, as ``leaves`` gives it."""
    if not path:
        return leaf
    return tuple(
        with_leaf(part, path[1:], leaf) if i == path[0] else part
        for i, part in enumerate(statement)
    )
