"""Statements of knights and knaves: written in English, and read back from it.

Answers are read here too, by Logic-RL's rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# A tree of tuples. A leaf is ("telling-truth", person) or ("lying", person), the person a number
# from 0. Operators stand before their statements: ("not", s), ("and", s, ...), ("or", s, ...),
# ("->", s, s), ("<=>", s, s).
Statement = tuple[Any, ...]


# Pairs of words for who tells the truth and who lies. The first pair is the usual one; the others
# are for the perturbation ``roles``.
ROLES = (
    ("knight", "knave"),
    ("pioneer", "laggard"),
    ("saint", "sinner"),
    ("hero", "villain"),
    ("angel", "devil"),
    ("altruist", "egoist"),
    ("sage", "fool"),
)
# How a person's claim is put. Each must be readable by ``_CLAIM``: the claim stands in quotation
# marks, or behind "that" at the end.
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


def plural(word: str) -> str:
    """The plural of a role."""
    return word + ("es" if word.endswith("o") else "s")


def article(word: str) -> str:
    """A role with its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def say(statement: Statement, names: Sequence[str], roles: tuple[str, str]) -> str:
    """A statement in English; statements within statements stand in brackets.

    Args:
        statement: the tree.
        names: of the people, by number.
        roles: the words for (truthful, lying).
    """

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


# The people's names; the roles with what the first of them does; and a claim in its sentence.
_MEET = re.compile(r"You meet \d+ inhabitants?: ([^.]*)\. ")
_ONLY = re.compile(r"inhabited only by (\w+) and (\w+)\. \w+ always (tell the truth|lie)")
_CLAIM = re.compile(r'"(?P<quoted>[^"]+?),?"| that (?P<reported>.+)$')


def parse_puzzle(text: str) -> tuple[tuple[str, ...], tuple[Statement, ...]]:
    """The names of a puzzle and what each says, read back from the English.

    Reads Logic-RL's own wording too: what is said stands in quotation marks (a full stop within or
    behind them) or behind ``that``, and whoever is named outside of it says it.

    Raises:
        BadPuzzle: the text is no puzzle of this kind, or not everybody says exactly one thing.
    """
    text = _plain(text).replace('."', '".')
    only = _ONLY.search(text)
    meet = _MEET.search(text)
    end = text.rfind("So who is")
    if not only or not meet or end < 0:
        raise BadPuzzle("a puzzle says who lives on the island, whom you meet, and asks who is who")
    names = tuple(re.split(r", and |, | and ", meet[1]))
    # "heroes" becomes "hero", but "knaves" becomes "knave". What the first of the two roles does
    # tells which one is truthful.
    singular = [re.sub(r"(?<=o)es$|s$", "", word) for word in only.groups()[:2]]
    roles = (singular[1], singular[0]) if only[3] == "lie" else (singular[0], singular[1])
    said: dict[str, Statement] = {}
    for sentence in re.split(r"\.\s+", text[meet.end() : end].strip().removesuffix(".") or " "):
        claim = _CLAIM.search(sentence)
        rest = sentence[: claim.start()] + sentence[claim.end() :] if claim else ""
        # The claim itself names people too, so the speaker is looked for in the rest.
        speakers = [name for name in names if re.search(rf"\b{re.escape(name)}\b", rest)]
        if claim is None or len(speakers) != 1 or speakers[0] in said:
            raise BadPuzzle(f"not what one of {', '.join(names)} says: {sentence!r}")
        said[speakers[0]] = parse_statement(claim["quoted"] or claim["reported"], names, roles)
    if set(said) != set(names):
        raise BadPuzzle(f"{', '.join(n for n in names if n not in said)} says nothing")
    return names, tuple(said[name] for name in names)


def parse_statement(text: str, names: Sequence[str], roles: tuple[str, str]) -> Statement:
    """A statement, read back from its English.

    Args:
        text: what ``say`` writes.
        names: of the people; a claim holds their numbers.
        roles: the words for (truthful, lying).

    Raises:
        BadPuzzle: the text is no statement, or more than one.
    """
    reader = _Reader(text, names, roles)
    found = reader.whole(0)
    if reader.words:
        raise BadPuzzle(f"{' '.join(reader.words)!r} is left over of {text!r}")
    return found


class _Reader:
    """Recursive descent over the words of a statement; ``words`` are those not yet read.

    The grammar, with a method a rule::

        whole = "if" part "then" part | part "if and only if" part
              | part {"and" part} | part {"or" part}
        part  = "(" whole ")" | "it is not the case that" part | claim
        claim = NAME "is" ["not"] ARTICLE ROLE
    """

    DEEPEST = 20  # brackets within brackets

    def __init__(self, text: str, names: Sequence[str], roles: tuple[str, str]) -> None:
        self.text = text
        self.names = names
        self.roles = roles
        self.words: list[str] = re.findall(r"\w+|[()]", text)

    def took(self, *expected: str) -> bool:
        """Whether these words came next; then they are read."""
        if [word.lower() for word in self.words[: len(expected)]] != list(expected):
            return False
        del self.words[: len(expected)]
        return True

    def missing(self, what: str) -> BadPuzzle:
        """The error for what should come next, to be raised."""
        return BadPuzzle(
            f"{what} is missing at {' '.join(self.words) or 'the end'!r} of {self.text!r}"
        )

    def whole(self, depth: int) -> Statement:
        """A statement of one operator, or a bare one."""
        if self.took("if"):
            first = self.part(depth)
            if not self.took("then"):
                raise self.missing("then")
            return "->", first, self.part(depth)
        parts = [self.part(depth)]
        if self.took("if", "and", "only", "if"):
            return "<=>", parts[0], self.part(depth)
        # "a and b or c" leaves "or c" unread, which is an error: mixtures need brackets.
        for kind in ("and", "or"):
            while self.took(kind):
                parts.append(self.part(depth))
            if len(parts) > 1:
                return kind, *parts
        return parts[0]

    def part(self, depth: int) -> Statement:
        """A claim about a person, a statement in brackets, or its denial."""
        if depth > self.DEEPEST:
            raise BadPuzzle(f"brackets nested more than {self.DEEPEST} deep")
        if self.took("("):
            found = self.whole(depth + 1)
            if not self.took(")"):
                raise self.missing("a closing bracket")
            return found
        if self.took("it", "is", "not", "the", "case", "that"):
            return "not", self.part(depth + 1)
        return self.claim()

    def claim(self) -> Statement:
        """NAME is, or is not, a ROLE."""
        if not self.words or self.words[0] not in self.names:
            raise self.missing("a name")
        person = self.names.index(self.words.pop(0))
        if not self.took("is"):
            raise self.missing("is")
        negated = self.took("not")
        for kind, role in zip(("telling-truth", "lying"), self.roles, strict=True):
            if self.took(*article(role).split()):
                return ("not", (kind, person)) if negated else (kind, person)
        raise self.missing(" or ".join(map(article, self.roles)))


def read_answer(answer: str, names: Sequence[str], roles: tuple[str, str]) -> list[str] | None:
    """Each person's role in an answer, in lower case, by Logic-RL's rule.

    The answer says ``NAME is a ROLE`` of everybody and names no role besides. None where a person
    is missing, or where it names more or fewer roles than there are people.

    Args:
        answer: the text.
        names: of the people, in the order of the result.
        roles: the two words, in any order.
    """
    # As many roles as people: an answer that says two things of one person is not read.
    answer = _plain(answer)
    lower = answer.lower()
    if sum(lower.count(role) for role in roles) != len(names):
        return None
    found = []
    some = "|".join(map(article, roles))
    for name in names:
        line = rf"\b{re.escape(name)} is ({some})\b"
        said = re.search(line, answer, re.IGNORECASE | re.ASCII)
        if said is None:
            return None
        found.append(said[1].split()[1].lower())
    return found


def _plain(text: str) -> str:
    """A text with single blanks only, whatever spaces and line breaks it has."""
    return " ".join(text.split())
