"""Puzzles of knights and knaves after Xie et al. 2024 (arXiv:2410.23123): logic, English and back, changed ones.

A statement is a leaf, or an operator over statements; puzzles have exactly one solution, found by brute force over all
2^n assignments, which are the bits of a whole number: the truth table of a statement is one such number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

# ("telling-truth", person), ("lying", person), ("not", s), ("and", s, ...), ("or", s, ...), ("->", s, s), ("<=>", s, s)
Statement = tuple[Any, ...]

NAMES = (
    *("Emma", "Liam", "Olivia", "Noah", "Ava", "Ethan", "Sophia", "Mason", "Isabella", "William", "Mia", "James"),
    *("Charlotte", "Benjamin", "Amelia", "Lucas", "Harper", "Henry", "Evelyn", "Alexander", "Abigail", "Michael"),
    *("Emily", "Daniel", "Ella", "Jacob", "Zoey", "Logan", "Aria", "Jackson", "Lily", "Sebastian", "Grace", "Jack"),
)
UNCOMMON = (
    *("Zephyrine", "Quillan", "Oberon", "Isaura", "Thaddeus", "Ondine", "Casimir", "Xanthe", "Leocadia", "Evander"),
    *("Melisande", "Barnaby", "Ottoline", "Phineas", "Saskia", "Ulric"),
)
# A pair of words for who tells the truth and who lies, and for where they live.
ROLES = (
    ("knight", "knave"),
    ("pioneer", "laggard"),
    ("saint", "sinner"),
    ("hero", "villain"),
    ("angel", "devil"),
    ("altruist", "egoist"),
    ("sage", "fool"),
)
SAYINGS = (
    '{name} said, "{claim}".',
    "{name} told you that {claim}.",
    'In the words of {name}: "{claim}".',
    'As {name} put it, "{claim}".',
    '{name} asserted: "{claim}".',
    '{name} stated, "{claim}".',
    '{name} remarked, "{claim}".',
    '{name} was heard saying, "{claim}".',
    '{name} commented, "{claim}".',
    "{name} expressed that {claim}.",
)
PERTURBATIONS = ("statement", "leaf", "names", "roles", "flipped", "order")
# ---- logic ----


def columns(people: int) -> list[int]:
    """The truth table of "person i is a knight" for each i: bit a is person i's bit of assignment a."""
    return [sum(1 << a for a in range(2**people) if a >> i & 1) for i in range(people)]


_COLUMNS: list[list[int]] = [columns(people) for people in range(9)]


def truth(statement: Statement, people: int) -> int:
    """The truth table of a statement: bit a says whether it holds in assignment a.

    >>> bin(truth(("and", ("telling-truth", 0), ("lying", 1)), 2))
    '0b10'
    """
    kind, whole = statement[0], (1 << (1 << people)) - 1
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
    """Every assignment (true: a knight) under which each person's statement is true just if they are a knight."""
    people = len(statements)
    consistent = whole = (1 << (1 << people)) - 1
    for person, statement in enumerate(statements):
        consistent &= whole ^ _COLUMNS[people][person] ^ truth(statement, people)
    found = []
    while consistent:
        lowest = consistent & -consistent
        assignment = lowest.bit_length() - 1
        found.append(tuple(bool(assignment >> i & 1) for i in range(people)))
        consistent ^= lowest
    return found


class Dice:
    """Uniform whole numbers below n, drawn in bulk: a single draw of numpy's costs as much as a hundred."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._pool = rng, list[int]()

    def __call__(self, n: int) -> int:
        if not self._pool:
            self._pool = self._rng.integers(2**62, size=128).tolist()
        return self._pool.pop() % n

    def some(self, items: Sequence[str], count: int) -> tuple[str, ...]:
        """``count`` different items in random order."""
        rest = list(items)
        return tuple(rest.pop(self(len(rest))) for _ in range(count))


def draw_statement(dice: Dice, speaker: int, people: int, depth: int, width: int) -> Statement:
    """A random statement: a die of six for leaf, not, and, or, ->, <=>; at depth 1 a leaf. Nobody says they lie."""
    kind = 0 if depth <= 1 else dice(6)
    if kind == 0:
        while True:
            leaf = ("telling-truth", "lying")[dice(2)], dice(people)
            if leaf != ("lying", speaker):
                return leaf
    if kind == 1:
        return "not", draw_statement(dice, speaker, people, depth - 1, width)
    parts: list[Statement] = []
    wanted = min(2 + dice(width - 1), 2 * people - 1) if kind in (2, 3) else 2  # there are so many leaves
    while len(parts) < wanted:
        part = draw_statement(dice, speaker, people, depth - 1, width)
        if part not in parts:
            parts.append(part)
    return ("and", "or", "->", "<=>")[kind - 2], *parts


def canonical(statements: Sequence[Statement]) -> str:
    """The same text for puzzles that differ in the order of ``and``, ``or`` and ``<=>``, and, up to four people, in
    who is the first and who the second; with more people that hardly ever comes about."""
    people = len(statements)
    texts = []
    for order in permutations(range(people)) if people <= 4 else [tuple(range(people))]:
        numbers = {person: number for number, person in enumerate(order)}
        texts.append(";".join(_sorted(statements[person], numbers) for person in order))
    return min(texts)


def _sorted(statement: Statement, numbers: dict[int, int]) -> str:
    kind = statement[0]
    if kind in ("telling-truth", "lying"):
        return f"{kind[0]}{numbers[statement[1]]}"
    parts = [_sorted(part, numbers) for part in statement[1:]]
    if kind in ("and", "or", "<=>"):
        parts.sort()
    return f"{kind}({','.join(parts)})"


# ---- English ----


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A puzzle in words and in logic. ``order`` is in which the people speak; ``flipped``: the first role lies."""

    statements: tuple[Statement, ...]
    solution: tuple[bool, ...]
    names: tuple[str, ...]
    sayings: tuple[int, ...]
    roles: tuple[str, str] = ROLES[0]
    flipped: bool = False
    order: tuple[int, ...] = ()

    @property
    def identities(self) -> list[str]:
        """Each person's role in words; where roles are flipped, truth-tellers carry the second."""
        return [self.roles[bool(honest) == self.flipped] for honest in self.solution]

    def text(self) -> str:
        """The puzzle in English."""
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
            f"A very special island is inhabited only by {plural(first)} and {plural(second)}. "
            f"{plural(first).capitalize()} {rules[first]}, and {plural(second)} {rules[second]}. You meet "
            f"{len(self.names)} inhabitants: {people}. {' '.join(said)} So who is {article(first)} and who is "
            f"{article(second)}?"
        )


def plural(word: str) -> str:
    """The plural of a role."""
    return word + ("es" if word.endswith("o") else "s")


def article(word: str) -> str:
    """A role with its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def say(statement: Statement, names: Sequence[str], roles: tuple[str, str]) -> str:
    """A statement in English, ``roles`` being (truthful, lying); statements within statements stand in brackets."""

    def inner(part: Statement) -> str:
        text = say(part, names, roles)
        return text if part[0] in ("telling-truth", "lying") else f"({text})"

    kind = statement[0]
    if kind in ("telling-truth", "lying"):
        return f"{names[statement[1]]} is {article(roles[kind == 'lying'])}"
    if kind == "not":
        part = statement[1]
        if part[0] in ("telling-truth", "lying"):
            return f"{names[part[1]]} is not {article(roles[part[0] == 'lying'])}"
        return f"it is not the case that {inner(part)}"
    parts = [inner(part) for part in statement[1:]]
    if kind == "->":
        return f"if {parts[0]} then {parts[1]}"
    if kind == "<=>":
        return f"{parts[0]} if and only if {parts[1]}"
    return f" {kind} ".join(parts)


class BadPuzzle(ValueError):
    """English that is no puzzle of this kind; it says where reading stopped."""


_MEET = re.compile(r"You meet \d+ inhabitants?: ([^.]*)\. ")
_ONLY = re.compile(r"inhabited only by (\w+) and (\w+)\. \w+ always (tell the truth|lie)")
_CLAIM = re.compile(r'"(?P<quoted>[^"]+?),?"| that (?P<reported>.+)$')


def parse_puzzle(text: str) -> tuple[tuple[str, ...], tuple[Statement, ...]]:
    """The names of a puzzle and what each says, read back from the English. Raises BadPuzzle.

    Reads Logic-RL's own wording too: what is said stands in quotation marks or behind ``that``, and whoever is named
    outside of it says it.
    """
    only, meet = _ONLY.search(text), _MEET.search(text)
    end = text.rfind("So who is")
    if not only or not meet or end < 0:
        raise BadPuzzle("a puzzle says who lives on the island, whom you meet, and asks who is who")
    names = tuple(re.split(r", and |, | and ", meet[1]))
    singular = [re.sub(r"(?<=o)es$|s$", "", word) for word in only.groups()[:2]]
    roles = (singular[1], singular[0]) if only[3] == "lie" else (singular[0], singular[1])
    said: dict[str, Statement] = {}
    for sentence in re.split(r"\.\s+", text[meet.end() : end].strip().removesuffix(".") or " "):
        claim = _CLAIM.search(sentence)
        rest = sentence[: claim.start()] + sentence[claim.end() :] if claim else ""
        speakers = [name for name in names if re.search(rf"\b{re.escape(name)}\b", rest)]
        if claim is None or len(speakers) != 1 or speakers[0] in said:
            raise BadPuzzle(f"not what one of {', '.join(names)} says: {sentence!r}")
        said[speakers[0]] = parse_statement(claim["quoted"] or claim["reported"], names, roles)
    if set(said) != set(names):
        raise BadPuzzle(f"{', '.join(n for n in names if n not in said)} says nothing")
    return names, tuple(said[name] for name in names)


def parse_statement(text: str, names: Sequence[str], roles: tuple[str, str]) -> Statement:
    """A statement read back from its English, ``roles`` being (truthful, lying). Raises BadPuzzle."""
    words = re.findall(r"\w+|[()]", text)
    place = 0

    def ahead(*expected: str) -> bool:
        return [w.lower() for w in words[place : place + len(expected)]] == list(expected)

    def take(*expected: str) -> None:
        nonlocal place
        if not ahead(*expected):
            raise BadPuzzle(
                f"{' '.join(expected)!r} is missing at {' '.join(words[place:]) or 'the end'!r} of {text!r}"
            )
        place += len(expected)

    def atom(depth: int) -> Statement:
        nonlocal place
        if depth > 20:
            raise BadPuzzle("brackets nested more than 20 deep")
        if ahead("("):
            take("(")
            found = whole(depth + 1)
            take(")")
            return found
        if ahead("it", "is", "not", "the", "case", "that"):
            place += 6
            return "not", atom(depth + 1)
        if place + 2 >= len(words) or words[place] not in names:
            raise BadPuzzle(f"a name is missing at {' '.join(words[place:]) or 'the end'!r} of {text!r}")
        person = names.index(words[place])
        place += 1
        take("is")
        negated = ahead("not")
        place += negated
        if not (ahead("a") or ahead("an")) or place + 1 >= len(words) or words[place + 1].lower() not in roles:
            raise BadPuzzle(f"{' or '.join(roles)} is missing at {' '.join(words[place:])!r} of {text!r}")
        leaf = ("lying" if words[place + 1].lower() == roles[1] else "telling-truth", person)
        place += 2
        return ("not", leaf) if negated else leaf

    def whole(depth: int) -> Statement:
        if ahead("if"):
            take("if")
            first = atom(depth)
            take("then")
            return "->", first, atom(depth)
        parts = [atom(depth)]
        if ahead("if", "and", "only", "if"):
            take("if", "and", "only", "if")
            return "<=>", parts[0], atom(depth)
        for kind in ("and", "or"):
            while ahead(kind):
                take(kind)
                parts.append(atom(depth))
            if len(parts) > 1:
                return kind, *parts
        return parts[0]

    found = whole(0)
    if place < len(words):
        raise BadPuzzle(f"{' '.join(words[place:])!r} is left over of {text!r}")
    return found


def read_answer(answer: str, names: Sequence[str], roles: tuple[str, str]) -> list[str] | None:
    """Each person's role in an answer, by Logic-RL's rule: every ``NAME is a ROLE``, and no role named besides.

    None where a person is missing or more roles are named than there are people. ``roles`` in any order.
    """
    lower = answer.lower()
    if sum(lower.count(role) for role in roles) != len(names):
        return None
    found = []
    for name in names:
        said = re.search(rf"\b{re.escape(name)}\s+is\s+an?\s+({'|'.join(roles)})\b", answer, re.IGNORECASE | re.ASCII)
        if said is None:
            return None
        found.append(said[1].lower())
    return found


# ---- changed puzzles ----


def perturbed(puzzle: Puzzle, change: str, rng: np.random.Generator, depth: int, width: int) -> Iterator[Puzzle]:
    """The puzzle with one thing changed (see KnightsKnaves), its solution unique again: every way, in random order."""
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
    options: list[tuple[int, Statement]] = []
    for person, statement in enumerate(puzzle.statements):
        if change == "statement":
            dice = Dice(rng)
            options += [(person, draw_statement(dice, person, people, depth, width)) for _ in range(20)]
            continue
        others = [
            (kind, j) for kind in ("telling-truth", "lying") for j in range(people) if (kind, j) != ("lying", person)
        ]
        options += [(person, with_leaf(statement, path, leaf)) for path in leaves(statement) for leaf in others]
    for k in rng.permutation(len(options)):
        person, new = options[k]
        statements = (*puzzle.statements[:person], new, *puzzle.statements[person + 1 :])
        found = solutions(statements)
        if len(found) == 1 and found[0] != puzzle.solution:
            yield replace(puzzle, statements=statements, solution=found[0])


def leaves(statement: Statement) -> list[tuple[int, ...]]:
    """The paths to a statement's leaves, as indices into nested tuples."""
    if statement[0] in ("telling-truth", "lying"):
        return [()]
    return [(i, *path) for i, part in enumerate(statement[1:], 1) for path in leaves(part)]


def with_leaf(statement: Statement, path: tuple[int, ...], leaf: Statement) -> Statement:
    """The statement with another leaf at ``path``."""
    if not path:
        return leaf
    return tuple(with_leaf(part, path[1:], leaf) if i == path[0] else part for i, part in enumerate(statement))
