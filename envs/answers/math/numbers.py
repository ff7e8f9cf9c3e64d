r"""Answers without their clothes, and what number they are: exactly, or not at all.

What is taken off an answer: bounds of formulas (``$``, ``\(``), boxes, bold type, ``\text`` around
the whole, a letter that it equals (``x = 3``), a currency, a unit, a degree sign, a full stop. A
number is one in digits (``1,200``, ``1{,}200``, ``0.5``), a fraction (``3/4``, ``\frac34``), a
mixed number (``2 2/3``, ``2\frac23``) or in scientific notation (``1.2e-8``,
``1.2\times10^{-8}``), and ``6 million`` is one too. Two numbers are never close: they are equal or
they differ.
"""

from __future__ import annotations

import re
from fractions import Fraction

# Digits are limited, so that exact arithmetic is quick.
_DIGITS = r"[0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,19}"
_DECIMAL = re.compile(rf"([+-]?)({_DIGITS})?(?:\.([0-9]{{1,60}}))?")
_POWER = re.compile(
    r"(.+?)(?:e|E|\s*(?:\\times|\\cdot|\*|×|·)\s*10\s*(?:\^|\*\*)\s*)(\{[+-]?[0-9]{1,3}\}|[+-]?[0-9]{1,3})"
)
_FRACTION = re.compile(r"([+-]?)([0-9]{1,60}(?:,[0-9]{3}){0,19})/([0-9]{1,60})")
_MIXED = re.compile(r"([+-]?)([0-9]{1,60})[ +]([0-9]{1,60})/([0-9]{1,60})")
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "dozen": 12,
           "trillion": 10**12}  # fmt: skip
_SCALED = re.compile(rf"(.*[0-9])\s*(?:\\text|\\mathrm)?\{{?\s*({'|'.join(_SCALES)})s?\s*\}}?")

_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,|\\ )(?=\d{3}(?!\d))")  # LaTeX's thousands: 1{,}200
# \frac 1 2, \frac12, \frac1{2}: a command's arguments may go without braces.
_FRAC = re.compile(
    r"\\[dt]?frac\s*(?:\{([+-]?[0-9]{1,60})\}|([0-9]))\s*(?:\{([0-9]{1,60})\}|([0-9]))"
)
_LETTER = re.compile(r"(?:[A-Za-z](?:\([a-z]\))?|\\[a-z]+)\s*=(?!=)\s*")
# Words behind a number that are no unit: they join, deny, scale, or say a part or a power.
_NO_UNIT = (
    r"or|and|not|nor|to|in|is|of|x|by|at|no|than|but|between|maybe|possibly|either|more|less|least|most"
    r"|squared|cubed|factorial|times|plus|minus|over|cent|mod|pi|sin|cos|tan|log|ln|exp|sqrt"
    r"|hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?"
    r"|hundredths?|thousandths?|th|st|nd|rd|hundreds?|thousands?|millions?|billions?|trillions?|dozens?"
    r"|pairs?|scores?|percent|infinity|undefined|none"
)
_WORD = rf"(?!(?i:{_NO_UNIT})\b)[A-Za-z]{{2,20}}"
_WORDS = rf"{_WORD}(?:[ /-]{_WORD}){{0,3}}"
# Within \text, letters alone are units too, but 6\mathrm{k} may be 6,000.
_SHORT = rf"(?!(?i:{_NO_UNIT}|k)\b)[A-Za-z]{{1,20}}"
_SHORTS = rf"{_SHORT}(?:[ /-]{_SHORT}){{0,3}}"
_POWER_OF_UNIT = r"(?:\^\{?[23]\}?|[²³])?"
# Behind a digit, a brace or a closing sign: 12 cm, 12\text{ cm}^2, 9 (apples), 90°, 90^\circ.
_UNIT = re.compile(
    rf"(?<=[0-9}}])\s?(?:\\[,;: ]\s?)?(?:{_WORDS}{_POWER_OF_UNIT}"
    rf"|\\(?:text|mbox|mathrm|textrm)\{{\s?{_SHORTS}\.?\s?\}}{_POWER_OF_UNIT}"
    rf"|\({_WORDS}\)|°|\^\{{?\\circ\}}?)\.?$"
)
_WRAPPED = re.compile(
    r"(?:\$\$?([^$]*)\$\$?|\\\(((?:(?!\\\)).)*)\\\)|\\\[((?:(?!\\\]).)*)\\\]|\*\*([^*]*)\*\*"
    r"|\\(?:boxed|text|mbox|textbf|mathrm|textrm|mathbf)\{([^{}]*(?:\{[^{}]*\}[^{}]*){0,9})\})",
    re.DOTALL,
)
_STEPS = 6  # layers of clothes at most


def bare(text: str) -> str:
    r"""An answer without what does not change what it says.

    >>> bare(r"$\boxed{x=6}$."), bare("**73**"), bare(r"\$1{,}200"), bare("(1,2)."), bare("90°")
    ('6', '73', '1,200', '(1,2)', '90')
    """
    for _ in range(_STEPS):
        before = text
        text = text.strip()
        # Not of an ellipsis.
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        if found := _WRAPPED.fullmatch(text):
            text = next(part for part in found.groups() if part is not None)
        text = text.replace("\\%", "%").replace("\\$", "$")
        if re.match(r"\$[0-9.]", text) and "$" not in text[1:]:
            text = text[1:]
        if found := _LETTER.match(text):
            rest = text[found.end() :]
            # y = 2x + 1 is an equation; x = 3, y = 4 says two things.
            text = rest if number(rest) is not None else text
        text = _GROUPS.sub(",", text)
        text = _UNIT.sub("", text)
        if text == before:
            break
    return text


def number(text: str) -> Fraction | None:
    r"""The number that a text is, exactly; None for other text.

    >>> number("1,200.50"), number("-3/4"), number("1/0"), number(r"\frac12"), number("2 2/3")
    (Fraction(2401, 2), Fraction(-3, 4), None, Fraction(1, 2), Fraction(8, 3))
    >>> number(r"1.5\times10^{-2}") == number("1.5e-2"), number("6 million"), number("1 2")
    (True, Fraction(6000000, 1), None)
    """
    text = _FRAC.sub(_as_quotient, text.strip().removesuffix(".")).strip()
    if found := _SCALED.fullmatch(text):
        value = number(found[1])
        return None if value is None else value * _SCALES[found[2]]
    if found := _POWER.fullmatch(text):
        value = _decimal(found[1])
        return None if value is None else value * Fraction(10) ** int(found[2].strip("{}"))
    if found := _MIXED.fullmatch(text):
        sign, whole, above, below = found.groups()
        return _signed(sign, int(whole) + Fraction(int(above), int(below))) if int(below) else None
    if found := _FRACTION.fullmatch(text):
        sign, above, below = found.groups()
        value = Fraction(int(above.replace(",", "")), int(below)) if int(below) else None
        return None if value is None else _signed(sign, value)
    return _decimal(text)


def _decimal(text: str) -> Fraction | None:
    found = _DECIMAL.fullmatch(text.removeprefix("$"))
    if not found or not (found[2] or found[3]):
        return None
    value = Fraction(int((found[2] or "0").replace(",", "")))
    value += Fraction(int(found[3]), 10 ** len(found[3])) if found[3] else 0
    return _signed(found[1], value)


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _as_quotient(found: re.Match[str]) -> str:
    r"""``\frac{1}{2}`` as 1/2, behind a whole number as a mixed one."""
    above = found[1] or found[2]
    below = found[3] or found[4]
    behind = found.string[: found.start()].rstrip()[-1:]
    return f"{' ' if behind.isdigit() else ''}{above}/{below}"
