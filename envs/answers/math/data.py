"""Questions with answers, of the data sets that there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ragen_lite.envs.answers.math.numbers import bare, number
from ragen_lite.envs.answers.rows import load_rows
from ragen_lite.envs.files import BadRow
from ragen_lite.envs.formats import last_boxed

# The usual names of the two columns; the first one that a record has counts.
QUESTIONS = ("question", "problem", "prompt", "input", "query")
ANSWERS = (
    "answer",
    "final_answer",
    "gt_answer",
    "ground_truth_answer",
    "target",
    "solution",
    "gold",
    "expected_answer",
    "response",
)
# Some data sets' questions come in the chat template of a model; theirs is the user's message.
_CHAT = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)
# name: (hub id, configuration, split to train on, split to test on). An empty split to train on
# is for evaluation only.
HUB = {
    "gsm8k": ("openai/gsm8k", "main", "train", "test"),
    "math": ("DigitalLearningGmbH/MATH-lighteval", None, "train", "test"),
    "aime": ("HuggingFaceH4/aime_2024", None, "", "train"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A question.

    Attributes:
        question: its text.
        golds: the answers, any of which is right.
        solution: in words; empty where there is none.
    """

    question: str
    golds: tuple[str, ...]
    solution: str = ""


# MetaMathQA ends its solutions so. Not the first letter, which may be a capital.
_SAID = re.compile(r"he (?:final )?answer is:?\s*(.+?)\.?\s*\Z")
# A text without a mark that is longer than this, or a solution, is a proof and no answer.
LONGEST = 300
_CLOTHES = " ${}*\\."  # an answer of these alone, such as an empty box, says nothing


def read_row(record: Any, question: str | None = None, answer: str | None = None) -> Row:
    """A record as a Row.

    The answer is behind GSM8K's ``####``, or in the last box of a solution, or behind its last "The
    answer is", or as it stands. A list holds several golds. The solution, for demonstrations, is
    the text that the answer was taken from, or the column ``solution`` beside it.

    Args:
        record: a row of a data set, or a value of JSON.
        question: the column of the question, where its name is not usual.
        answer: the column of the answer, where its name is not usual.

    Raises:
        BadRow: a column is missing or empty, the question is no text, an answer is neither text
            nor a number or cannot be read, or a solution has no answer in it.
    """
    if not isinstance(record, dict):
        raise BadRow(f"a JSON object is needed, not {type(record).__name__}")

    asked = record[_column(record, question, QUESTIONS)]
    name = _column(record, answer, ANSWERS)
    given = record[name]
    if not isinstance(asked, str) or not asked.strip() or not _encodable(asked):
        raise BadRow("the question is not text")
    values = given if isinstance(given, (list, tuple)) else [given]
    golds = []
    solution = ""
    for value in values:
        # True and False are numbers to Python.
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise BadRow(f"the answer is {type(value).__name__}, not text or a number")
        text = str(value).strip()
        # NaN is the one value that differs from itself.
        if value != value or text in ("inf", "-inf") or not _encodable(text):
            raise BadRow(f"the answer is {text!a}")
        text, worked = _answer_of(text, name)
        if text and not bare(text).strip(_CLOTHES):
            raise BadRow(f"the answer {text!r} has nothing in it that could be compared")
        solution = worked or solution
        golds.append(text)
    if not golds or not all(golds):
        raise BadRow("the answer is empty")
    beside = record.get("solution")
    if not solution and isinstance(beside, str) and name != "solution" and _encodable(beside):
        solution = beside
    if chat := _CHAT.search(asked):
        asked = chat[1]
    return Row(asked.strip(), tuple(golds), solution.strip())


def _column(record: dict[Any, Any], given: str | None, usual: tuple[str, ...]) -> str:
    """The name of a column that is there. Raises BadRow."""
    name = given or next((name for name in usual if record.get(name) is not None), None)
    if name is None or record.get(name) is None:
        among = ", ".join(map(str, record)) or "none"
        raise BadRow(f"no column {given or ', '.join(usual)} among {among}")
    return name


def _answer_of(text: str, column: str) -> tuple[str, str]:
    """The answer in a text, and the solution that it ends; "" where the text is the answer alone.

    Raises BadRow for a solution that ends in no answer.
    """
    if "####" in text:
        solution, _, answer = text.rpartition("####")
        answer = answer.strip()
        # GSM8K writes 1,200 and $5; the commas of a point or an interval are its own.
        plain = answer.replace(",", "").replace("$", "")
        return (plain if number(answer.replace("$", "")) is not None else answer), solution
    if (boxed := last_boxed(text)) is not None:
        return boxed, text
    if said := _SAID.search(text[-LONGEST:]):
        return said[1], text
    if column == "solution" or len(text) > LONGEST:
        raise BadRow(f"{column} has no answer in it: no ####, no box, no 'The answer is'")
    return text, ""


def _encodable(text: str) -> bool:
    # A surrogate is half a character, which broken JSON escapes leave. UTF-8 cannot hold it.
    return not any("\ud800" <= char <= "\udfff" for char in text)


# Cached, so that the many environments of a run read their data once.
@lru_cache(maxsize=8)
def load(
    data: str, config: str | None, bad_rows: str, question: str | None, answer: str | None
) -> dict[str, tuple[Row, ...]]:
    """The rows of a source by split.

    Args:
        data: a name of HUB, or as for ``load_rows``.
        config: as for ``load_rows``.
        bad_rows: as for ``load_rows``.
        question: as for ``read_row``.
        answer: as for ``read_row``.

    Raises what ``load_rows`` raises.
    """
    read = partial(read_row, question=question, answer=answer)
    name, usual, *parts = HUB.get(data, (data, None, "train", "test"))
    training, testing = map(str, parts)
    wanted = config or usual
    return load_rows(str(name), wanted, (training, testing), read, text_of, bad_rows)


def text_of(row: Row) -> str:
    """The question's text, which decides its split."""
    return row.question
