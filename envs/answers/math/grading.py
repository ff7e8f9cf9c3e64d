"""Whether two answers are the same in mathematics.

Plain numbers are compared at once, all else by math-verify in a process of its own. What
math-verify finds in a text may be one of many guesses, so texts that say more than the gold does
are wrong.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ragen_lite.envs.answers.math.numbers import bare, number
from ragen_lite.envs.process import worker

LONGEST = 1_000  # characters of an answer; a longer one is wrong
SECONDS = 5.0  # that math-verify may take for one answer
# "x =", "f(x) =" or "\alpha =": x = 3 names one number.
_LETTER_IS = re.compile(r"(?:(?<![^\s,;$])|\A)(?:[A-Za-z](?:\([a-z]\))?|\\[a-z]+)\s*=(?!=)")
_SUBSCRIPT = re.compile(r"_\s*([0-9A-Za-z])\s+(?=[0-9])")  # \log_2 8
_ELLIPSIS = re.compile(r"\\(?:[lc]?dots|ldots)(?![A-Za-z])|\.\.\.|…")
# A text of letters alone is a word, though math-verify takes it for a product; but ab is a times b.
_FUNCTIONS = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|exp|sqrt|pi"
_WORD = re.compile(rf"(?!(?:{_FUNCTIONS})\b|[a-dk-np-z]{{2}}\Z)[A-Za-z]{{2,}}(?:[ '-][A-Za-z]+)*")
# Signs by which a text says more than one thing: an answer with one that its gold lacks hedges.
_RELATIONS = re.compile(
    r"\\(?:lor|land|vee|wedge|mid|vert|to|iff|neg|lnot|not|implies|gets|mapsto|[A-Za-z]*arrow)(?![A-Za-z])"
    r"|\\\\|[=&|→⇒⇔¬∨∧]"
)
# Where the gold is one number, these do too: sets, bounds, lists, words between numbers, numbers
# side by side, ordinals.
_LISTS = re.compile(
    r"\\(?:cup|cap|pm|mp|in|ni|approx|neq?|leq?|geq?|lt|gt|sim|equiv|text|mbox|mathrm|textrm)(?![A-Za-z])|[<>≤≥≠≈∪∩±,;:]"
    r"|\b(?:or|and|not|per)\b|\d\s*[A-Za-z]{2,}.*\d|\d\s+\d"
    r"|\d\s*(?:st|nd|rd|th)\b",
    re.DOTALL | re.IGNORECASE,
)


def grade(answer: str, gold: str, seconds: float = SECONDS) -> bool | None:
    """Whether ``answer`` equals ``gold``; None where the gold cannot be read.

    Both are taken without their clothes, as ``numbers.bare`` says. Numbers are equal exactly; words
    (of three letters and more, or of two that hardly are a product) in any case; a series with an
    ellipsis as it is written. Without math-verify, all else is compared as text.

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
    # From the cheapest test to the most expensive: text, numbers, words, signs of hedging, and only
    # then math-verify.
    mine = bare(answer)
    wanted = bare(gold)
    if answer == gold or (mine and mine == wanted):
        return True
    if (exact := number(wanted)) is not None:
        if (value := number(mine)) is not None:
            return value == exact
        mine = _SUBSCRIPT.sub(r"_{\1}", mine)
        if _LISTS.search(mine) or len(_LETTER_IS.findall(answer)) > 1:
            return False
    if _WORD.fullmatch(wanted):
        return mine.casefold() == wanted.casefold()
    # A series is the very series that is written.
    if _ELLIPSIS.search(wanted) or _ELLIPSIS.search(mine):
        return "".join(mine.split()) == "".join(wanted.split())
    answer = mine
    gold = wanted
    if {*_RELATIONS.findall(_LETTER_IS.sub(" ", answer))} - {*_RELATIONS.findall(gold)}:
        return False
    # Equal texts, numbers and words are decided above.
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
        mine = read(answer)
        # It compares to six places, in which all small numbers are alike.
        return bool(math_verify.verify(wanted, mine, timeout_seconds=None)) and near(mine, wanted)
    except Exception:  # as above
        return False


def near(mine: list[Any], wanted: list[Any]) -> bool:
    """Whether two numbers of sympy are the same to five digits; true of what is none.

    Numbers without a decimal point must be equal.
    """
    import sympy

    a, b = mine[0], wanted[0]
    if not all(isinstance(value, sympy.Expr) and value.is_number for value in (a, b)):
        return True
    if a.is_Rational and b.is_Rational:
        return bool(a == b)
    gap = sympy.N(sympy.Abs(a - b), 30)
    return bool(gap <= sympy.N(sympy.Abs(b), 30) * sympy.Rational(1, 10**5))
