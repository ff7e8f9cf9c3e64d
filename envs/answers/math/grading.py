"""Whether two answers are the same in mathematics.

Plain numbers are compared at once, all else by math-verify in a process of its own. What
math-verify finds in a text may be one of many guesses, so texts that say more than the gold does
are wrong.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ragen_lite.envs.process import worker

LONGEST = 1_000  # characters of an answer; a longer one is wrong
SECONDS = 5.0  # that math-verify may take for one answer
# Sign, digits with or without commas between thousands, then decimals or a divisor. Digits are
# limited, so that exact arithmetic is quick.
_NUMBER = re.compile(
    r"([+-]?)\$?([0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,19})(?:\.([0-9]{1,60}))?(?:/([0-9]{1,60}))?\.?"
)

# "x =", "f(x) =" or "\alpha =": x = 3 names one number.
_LETTER_IS = re.compile(r"(?:(?<![^\s,;$])|\A)(?:[A-Za-z](?:\([a-z]\))?|\\[a-z]+)\s*=(?!=)")
_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,|\\ )(?=\d{3}(?!\d))")  # LaTeX's thousands: 1{,}200
# A unit at the end, such as \text{ cm}^2. Words that join or deny answers are no unit.
_UNIT = re.compile(
    r"(?:\s|\\[,;: ])*\\(?:text|mbox|mathrm|textrm)"
    r"\{(?![^{}]*\b(?:or|and|not)\b)[^{}0-9\\]*\}(?:\^\{?[23]\}?)?\s*$"
)
# Signs by which a text says more than one thing: an answer with one that its gold lacks hedges.
_RELATIONS = re.compile(
    r"\\(?:lor|land|vee|wedge|mid|vert|to|iff|neg|lnot|not|implies|gets|mapsto|[A-Za-z]*arrow)(?![A-Za-z])"
    r"|\\\\|[=&|→⇒⇔¬∨∧]"
)
# Where the gold is one number, these do too: sets, bounds, lists, words between numbers, numbers
# side by side.
_LISTS = re.compile(
    r"\\(?:cup|cap|pm|mp|in|ni|approx|neq?|leq?|geq?|lt|gt|sim|equiv|text|mbox)(?![A-Za-z])|[<>≤≥≠≈∪∩±,;:]"
    r"|\b(?:or|and|not)\b|\d\s*[A-Za-z]{2,}.*\d|\d\s+\d",
    re.DOTALL,
)


def number(text: str) -> Fraction | None:
    r"""A whole number, a decimal or a fraction of whole numbers, exactly; None for other text.

    >>> number("1,200.50"), number("-3/4"), number("1/0"), number(r"\frac12")
    (Fraction(2401, 2), Fraction(-3, 4), None, None)
    """
    found = _NUMBER.fullmatch(text.strip())
    if not found:
        return None
    sign, whole, decimals, divisor = found.groups()
    if divisor is not None and (decimals is not None or int(divisor) == 0):
        return None
    value = Fraction(int(whole.replace(",", "")), int(divisor or 1))
    value += Fraction(int(decimals), 10 ** len(decimals)) if decimals else 0
    return -value if sign == "-" else value


def grade(answer: str, gold: str, seconds: float = SECONDS) -> bool | None:
    """Whether ``answer`` equals ``gold``; None where the gold cannot be read.

    Without math-verify, what is not a plain number on both sides is compared as text.

    Args:
        answer: as read from a reply. More than 1,000 characters are wrong.
        gold: the right answer.
        seconds: how long math-verify may take; what takes longer is wrong.
    """
    answer = answer.strip()
    gold = gold.strip()
    if not gold:
        return None
    if not answer or len(answer) > LONGEST:
        return False
    if answer == gold:
        return True
    # From the cheapest test to the most expensive: text, numbers, signs of hedging, and only then
    # math-verify.
    if (wanted := number(gold)) is not None:
        answer = _UNIT.sub("", _GROUPS.sub(",", answer))
        if (mine := number(answer)) is not None:
            return mine == wanted
        if _LISTS.search(answer) or len(_LETTER_IS.findall(answer)) > 1:
            return False
    if {*_RELATIONS.findall(_LETTER_IS.sub(" ", answer))} - {*_RELATIONS.findall(gold)}:
        return False
    # Equal texts and plain numbers are decided above.
    if not available():
        return False
    try:
        verdict: bool | None = worker("ragen_lite.envs.answers.math.grading:judge", ["1", "1"]).ask(
            [answer, gold], seconds
        )
    except TimeoutError:
        return False
    return verdict


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


def judge(questions: Iterator[list[str]]) -> Iterator[bool | None]:
    """``verify`` of one pair (answer, gold) after the other, for the worker."""
    for answer, gold in questions:
        yield verify(answer, gold)


def verify(answer: str, gold: str) -> bool | None:
    """math-verify's judgement, in this process and without a time limit.

    None where the gold cannot be read. math-verify's own time limits are off, since the caller
    limits the whole process.
    """
    import math_verify

    def read(text: str) -> list[Any]:
        # As a box, as a formula, and as it stands: the first form in which anything is found.
        for form in (f"\\boxed{{{text}}}", f"${text}$", text):
            if parsed := math_verify.parse(form, parsing_timeout=None):
                return list(parsed)
        return []

    try:
        wanted = read(gold)
    except Exception:  # whatever sympy raises about a text is the text's fault
        wanted = []
    if not wanted:
        return None
    try:
        return bool(math_verify.verify(wanted, read(answer), timeout_seconds=None))
    except Exception:  # as above
        return False
