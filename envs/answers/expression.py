"""Arithmetic expressions as text, parsed into exact fractions; and an exact solver for Countdown.

A model's text is never given to Python's ``eval``.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

LONGEST = 200  # characters; far above any honest answer, so that parsing is always quick
DEEPEST = 20  # brackets within brackets
OPERATORS = "+-*/"


class BadExpression(ValueError):
    """Text that is no arithmetic expression; it says what is wrong."""


def tokens(text: str, operators: str = OPERATORS) -> Iterator[str]:
    """The numbers, operators and brackets of an expression, from left to right.

    Args:
        text: the expression; spaces are passed over.
        operators: those that are allowed.

    Raises:
        BadExpression: another character, or a number that begins with 0.
    """
    position = 0
    while position < len(text):
        char = text[position]
        end = position + 1
        if char in "0123456789":
            while end < len(text) and text[end] in "0123456789":
                end += 1
            # Python refuses such numbers, and so does TinyZero, which evaluates answers by it.
            if char == "0" and end > position + 1:
                raise BadExpression(f"{text[position:end]} begins with 0")
            yield text[position:end]
        elif char in operators or char in "()":
            yield char
        elif char != " ":
            raise BadExpression(
                f"{char!r} is not allowed; use whole numbers, {' '.join(operators)} and brackets"
            )
        position = end


class _Parser:
    """Recursive descent over a list of tokens, which ends in an empty one.

    The value is worked out while reading. A method a rule of the grammar, which has no sign in
    front of a number::

        addition = product {("+" | "-") product}
        product  = atom {("*" | "/") atom}
        atom     = number | "(" addition ")"
    """

    def __init__(self, queue: list[str]) -> None:
        self.queue = queue
        self.place = 0
        self.depth = 0
        self.numbers: list[int] = []  # those read so far, in order

    @property
    def next(self) -> str:
        """The token that comes next."""
        return self.queue[self.place]

    def take(self) -> str:
        """The next token, which is then gone past."""
        self.place += 1
        return self.queue[self.place - 1]

    def atom(self) -> Fraction:
        """A number, or an expression in brackets."""
        token = self.take()
        if token == "(":
            return self.bracket()
        if not token.isdigit():
            raise BadExpression(
                f"a number is missing before {token!r}" if token else "it ends too early"
            )
        self.numbers.append(int(token))
        return Fraction(self.numbers[-1])

    def bracket(self) -> Fraction:
        """What follows an opening bracket, up to its closing one."""
        # Each bracket is a deeper call. The limit keeps a reply of brackets from using up Python's
        # stack.
        self.depth += 1
        if self.depth > DEEPEST:
            raise BadExpression(f"brackets nested more than {DEEPEST} deep")
        value = self.addition()
        self.depth -= 1
        if self.take() != ")":
            raise BadExpression("a bracket is not closed")
        return value

    def product(self) -> Fraction:
        """Factors and divisors, from left to right."""
        value = self.atom()
        while self.next in ("*", "/"):
            if self.take() == "*":
                value *= self.atom()
            elif (divisor := self.atom()) != 0:
                value /= divisor
            else:
                raise BadExpression("division by zero")
        return value

    def addition(self) -> Fraction:
        """Summands, from left to right."""
        value = self.product()
        while self.next in ("+", "-"):
            if self.take() == "+":
                value += self.product()
            else:
                value -= self.product()
        return value


def evaluate(text: str, operators: str = OPERATORS) -> tuple[Fraction, list[int]]:
    """The exact value of an expression and the numbers in it, in order of appearance.

    The text itself is never executed.

    Args:
        text: the expression.
        operators: those that are allowed.

    >>> evaluate("(1 + 2) / 3")
    (Fraction(1, 1), [1, 2, 3])

    Raises:
        BadExpression: anything but whole numbers, the operators and brackets; a division by zero;
            more than 200 characters, or 20 brackets within one another.
    """
    if len(text) > LONGEST:
        raise BadExpression(f"{len(text)} characters; at most {LONGEST} are read")
    parser = _Parser([*tokens(text, operators), ""])
    value = parser.addition()
    # Only the empty token at the end may be left.
    if parser.next:
        raise BadExpression(f"{parser.next!r} is left over")
    return value, parser.numbers


def combine(x: Fraction, y: Fraction, operator: str) -> Fraction | None:
    """``x operator y``, exactly; None for a division by zero."""
    if operator == "/":
        return x / y if y else None
    return x + y if operator == "+" else x - y if operator == "-" else x * y


@lru_cache(maxsize=4096)
def solve(numbers: tuple[int, ...], target: int, operators: str = OPERATORS) -> str | None:
    """An expression that uses every number once and equals ``target``; None where none does.

    The search is exact and exhaustive. The numbers are divided in two parts in every way. Every
    value of the smaller part, with every operator, says what the larger part has to come to. That
    is searched for in the same way, down to three numbers, whose values are looked up in a table.

    Args:
        numbers: of the instance.
        target: what the expression has to equal.
        operators: those that are allowed.
    """
    # An operation is found in brackets; a number alone is not.
    found = _Search(numbers, operators).reach(frozenset(range(len(numbers))), Fraction(target))
    return found and (found[1:-1] if found.startswith("(") else found)


class _Search:
    """The search for one set of numbers. A part of them is a set of their places, from 0.

    Places and not numbers, since a number may be given twice.
    """

    def __init__(self, numbers: tuple[int, ...], operators: str) -> None:
        self.numbers = numbers
        self.operators = operators
        # Tables: a part's values with one expression each; and the (numbers, target) that no
        # expression reaches. Parts of equal numbers share an entry of the second.
        self._values: dict[frozenset[int], dict[Fraction, str]] = {}
        self._failed: set[tuple[tuple[int, ...], Fraction]] = set()

    def values(self, of: frozenset[int]) -> dict[Fraction, str]:
        """Every value that these numbers can come to, with one expression each."""
        if of not in self._values:
            if len(of) == 1:
                (only,) = of
                found = {Fraction(self.numbers[only]): str(self.numbers[only])}
            else:
                found = {}
                for small, large in _halves(of):
                    for a, left in self.values(small).items():
                        for b, right in self.values(large).items():
                            # In both orders, since - and / depend on it.
                            for x, y, one, two in ((a, b, left, right), (b, a, right, left)):
                                for operator in self.operators:
                                    value = combine(x, y, operator)
                                    if value is not None and value not in found:
                                        found[value] = f"({one} {operator} {two})"
            self._values[of] = found
        return self._values[of]

    def reach(self, of: frozenset[int], target: Fraction) -> str | None:
        """An expression of these numbers, bracketed, that equals ``target``; None where none does.

        Args:
            of: the places of the numbers.
            target: what the expression has to equal.
        """
        # The table of three numbers is small, and a larger set comes to the same three many times.
        if len(of) <= 3:
            return self.values(of).get(target)
        key = (tuple(sorted(self.numbers[i] for i in of)), target)
        if key in self._failed:
            return None
        for small, large in _halves(of):
            for a, text in self.values(small).items():
                for operator in self.operators:
                    for other, first in _missing(a, target, operator):
                        # Any value but 0 will do.
                        if other is None:
                            rest = next(
                                (text for value, text in self.values(large).items() if value), None
                            )
                        else:
                            rest = self.reach(large, other)
                        if rest is not None:
                            return (
                                f"({text} {operator} {rest})"
                                if first
                                else f"({rest} {operator} {text})"
                            )
        # A success ends the whole search, so only failures are worth remembering.
        self._failed.add(key)
        return None


# The places are the same for all instances, so the cache serves every search. Six numbers have 64
# sets.
@lru_cache(maxsize=256)
def _halves(of: frozenset[int]) -> tuple[tuple[frozenset[int], frozenset[int]], ...]:
    """Every division in two parts, as pairs (smaller, larger); parts of equal size once."""
    members = sorted(of)
    found = {}
    # Each whole number's bits say who is in the first part; neither none nor all.
    for bits in range(1, 2 ** len(members) - 1):
        part = frozenset(m for k, m in enumerate(members) if bits >> k & 1)
        rest = of - part
        if (len(part), sorted(part)) <= (len(rest), sorted(rest)):
            found[part] = rest
    return tuple(sorted(found.items(), key=lambda pair: (len(pair[0]), sorted(pair[0]))))


def _missing(
    a: Fraction, target: Fraction, operator: str
) -> Iterator[tuple[Fraction | None, bool]]:
    """The values x for which ``a operator x`` (True) or ``x operator a`` (False) is the target.

    Each comes with the flag that says on which side ``a`` stands. ``+`` and ``*`` give one side
    only, since the other is the same. x is None where any value but 0 serves: 0 * x and 0 / x
    are 0.

    Args:
        a: the value on one side.
        target: what the operation has to equal.
        operator: one of ``+-*/``.
    """
    if operator == "+":
        yield target - a, True
    elif operator == "-":
        yield a - target, True
        yield target + a, False
    elif operator == "*":
        if a:
            yield target / a, True
        elif not target:
            yield None, True
    elif a:
        if target:
            yield a / target, True
        yield target * a, False
    elif not target:
        yield None, True
