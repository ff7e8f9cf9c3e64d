"""Whether two answers are the same in mathematics: plain numbers at once, all else by math-verify.

math-verify works on text that a model wrote, and a text can keep it busy for ever; so it runs in a process of its own,
which is ended and made anew where an answer takes longer than its time limit. The process gets and gives lines of JSON.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import re
import selectors
import subprocess
import sys
import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any

LONGEST = 1_000  # characters of an answer; a longer one is wrong
SECONDS = 5.0
_NUMBER = re.compile(r"([+-]?)\$?([0-9]{1,60}|[0-9]{1,3}(?:,[0-9]{3}){1,19})(?:\.([0-9]{1,60}))?(?:/([0-9]{1,60}))?\.?")


_LETTER_IS = re.compile(r"^\s*\$?\s*[A-Za-z]\s*=")  # x = 3 names one number
# A gold that is one number is not met by two, whichever of them math-verify would look at.
_HEDGE = re.compile(r"\\(cup|cap|lor|land|vee|wedge|text|mbox|pm|mp|in|approx|neq?|le|ge)\b|[=,;:∪∩∨∧±]|\b(or|and)\b")


def number(text: str) -> Fraction | None:
    r"""A whole number, a decimal or a fraction of whole numbers, exactly; None where the text is no such number.

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
    """Whether ``answer`` equals ``gold``; None where the gold cannot be read. False where it takes too long.

    Without math-verify, what is not a plain number on both sides is compared as text.
    """
    answer, gold = answer.strip(), gold.strip()
    if not gold:
        return None
    if not answer or len(answer) > LONGEST:
        return False
    if answer == gold:
        return True
    mine, wanted = number(answer), number(gold)
    if mine is not None and wanted is not None:
        return mine == wanted
    if wanted is not None and _HEDGE.search(_LETTER_IS.sub("", answer)):
        return False
    if not available():
        return False
    return _grader().ask(answer, gold, seconds)


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


@lru_cache(maxsize=1)
def _grader_of(process: int) -> Grader:
    return Grader()


def _grader() -> Grader:
    return _grader_of(os.getpid())  # a forked process must not share its parent's pipes


class Grader:
    """math-verify in a process of its own."""

    START = 60.0  # seconds for the process itself to start

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, answer: str, gold: str, seconds: float) -> bool | None:
        """As ``grade``, by math-verify alone. Raises OSError where its process cannot be started."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                try:
                    self._start()
                except OSError as error:  # TimeoutError is one
                    self.close()
                    raise OSError(f"the process that grades answers cannot be started: {error!r}") from error
            try:
                return self._answer({"answer": answer, "gold": gold}, seconds)
            except OSError:  # it took too long, or took the process with it
                self.close()
                return False

    def _start(self) -> None:
        code = "from ragen_lite.envs.grading import serve; serve()"
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._answer({"answer": "1", "gold": "1"}, self.START)

    def _answer(self, question: dict[str, str], seconds: float) -> bool | None:
        process = self._process
        assert process and process.stdin and process.stdout
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError
        line = process.stdout.readline()
        if not line:
            raise OSError("the grader's process ended")
        result: bool | None = json.loads(line)
        return result

    def close(self) -> None:
        """End the process; the next question makes a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve() -> None:
    """What the grader's process does: a line of JSON in, a line out, until there are no more."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints must not be taken for an answer
    for line in sys.stdin:
        question = json.loads(line)
        out.write(json.dumps(verify(question["answer"], question["gold"])) + "\n")
        out.flush()


def verify(answer: str, gold: str) -> bool | None:
    """math-verify's judgement, in this process and without a time limit; None where the gold cannot be read."""
    import math_verify

    def read(text: str) -> list[Any]:
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
