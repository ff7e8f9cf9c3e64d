"""Questions with answers, from the hub by ``datasets`` or from a file.

Malformed rows are counted and named.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ragen_lite.envs.answers.math.numbers import bare, number
from ragen_lite.envs.files import BadRow, datasets_package, file_records, form_of
from ragen_lite.envs.formats import last_boxed
from ragen_lite.envs.splits import ALL, SPLITS, shuffled, split_of

# The usual names of the two columns; the first one that a record has counts.
QUESTIONS = ("question", "problem", "prompt", "input", "query")
ANSWERS = ("answer", "final_answer", "target", "solution", "gold", "expected_answer", "response")
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


def read_rows(
    records: Iterable[tuple[str, Any]],
    bad_rows: str,
    question: str | None = None,
    answer: str | None = None,
) -> tuple[Row, ...]:
    """The rows of records; malformed ones are skipped with one warning, or refused.

    Args:
        records: pairs of a name, such as ``line 3``, and a record; a BadRow stands for a record
            that could not be read.
        bad_rows: ``skip`` or ``refuse``.
        question: as for ``read_row``.
        answer: as for ``read_row``.

    Raises:
        ValueError: malformed rows are refused, or no row is left.
    """
    rows = []
    bad = []
    for name, record in records:
        try:
            if isinstance(record, BadRow):
                raise record
            rows.append(read_row(record, question, answer))
        except BadRow as error:
            bad.append(f"{name}: {error}")
    if bad:
        # Five are named, and all are counted.
        more = " ..." if len(bad) > 5 else ""
        told = (
            f"{len(bad)} of {len(bad) + len(rows)} rows are malformed: {'; '.join(bad[:5])}{more}"
        )
        if bad_rows == "refuse" or not rows:
            raise ValueError(told)
        warnings.warn(f"{told}; they are skipped (bad_rows=refuse refuses them)", stacklevel=2)
    if not rows:
        raise ValueError("there is no row")
    return tuple(rows)


# Cached, so that the many environments of a run read their data once.
@lru_cache(maxsize=8)
def load(
    data: str, config: str | None, bad_rows: str, question: str | None, answer: str | None
) -> dict[str, tuple[Row, ...]]:
    """The rows of a source by split.

    A source's own test split is the test split; else content decides, as everywhere. ``all`` are
    all of its rows.

    Args:
        data: a name of HUB, a hub id, or a file that ``file_records`` reads.
        config: the configuration of a hub data set.
        bad_rows: as for ``read_rows``.
        question: as for ``read_row``.
        answer: as for ``read_row``.

    Raises:
        ValueError: no such file, malformed rows that are refused, or no row.
        ImportError: ``datasets`` is not installed.
    """
    read = partial(read_rows, bad_rows=bad_rows, question=question, answer=answer)
    path = Path(data).expanduser()
    if path.is_file() or form_of(path):
        if not path.is_file():
            raise ValueError(f"data={data}: there is no such file")
        return _held_out(_divided(read(file_records(path))))
    name, known_config, training, testing = HUB.get(data, (data, None, "train", "test"))
    parts = datasets_package().load_dataset(name, config or known_config)

    def part(split: str) -> tuple[Row, ...]:
        return read((f"{split} row {i}", record) for i, record in enumerate(parts[split], 1))

    # Three cases: a test split only, which is for evaluation; no test split; both.
    if training not in parts and testing in parts:
        return _held_out({"train": (), "val": (), "test": part(testing)})
    if testing not in parts:
        return _held_out(_divided(part(training if training in parts else next(iter(parts)))))
    # The tenth that content would test on is trained on, since the source has its own test split.
    # A question of that split is taken out of the others, wherever it stands a second time.
    divided = _divided(part(training))
    tested = part(str(testing))
    questions = {row.question for row in tested}
    rest = [row for row in (*divided["train"], *divided["test"]) if row.question not in questions]
    val = tuple(row for row in divided["val"] if row.question not in questions)
    return _held_out({"train": tuple(rest), "val": val, "test": tested})


def _held_out(parts: dict[str, tuple[Row, ...]]) -> dict[str, tuple[Row, ...]]:
    """The parts, those to measure on in an order of their own, and ``all``."""
    found = {"train": parts["train"]}
    for split in ("val", "test"):
        found[split] = shuffled(parts[split], lambda row: row.question)
    whole = (*parts["train"], *parts["val"], *parts["test"])
    found[ALL] = shuffled(whole, lambda row: row.question)
    return found


def _divided(rows: tuple[Row, ...]) -> dict[str, tuple[Row, ...]]:
    """The rows by the split that their question's text decides."""
    return {
        split: tuple(row for row in rows if split_of(row.question) == split) for split in SPLITS
    }
