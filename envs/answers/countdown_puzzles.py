"""Puzzles of Countdown, made up or published."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ragen_lite.envs.answers.rows import load_rows
from ragen_lite.envs.files import BadRow


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Numbers and a target; ``known`` reaches it by ``steps``, None where nothing is known to."""

    numbers: tuple[int, ...]
    target: int
    known: str | None = None
    steps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What makes it the instance that it is: the order of the numbers does not."""
        return f"{sorted(self.numbers)} -> {self.target}"


def read_puzzle(record: Any) -> Puzzle:
    """A row of ``Jiayi-Pan/Countdown-Tasks-3to4`` (nums, target), or of TinyZero's own files.

    Those have numbers and target in ``reward_model.ground_truth``. Raises BadRow.
    """
    if not isinstance(record, dict):
        raise BadRow(f"a JSON object is needed, not {type(record).__name__}")
    marked = record.get("reward_model")
    truth = marked.get("ground_truth") if isinstance(marked, dict) else None
    found = truth if isinstance(truth, dict) else record
    numbers = found.get("nums", found.get("numbers"))
    target = found.get("target")
    # Parquet gives arrays, whose numbers are numpy's.
    listed = list(numbers) if isinstance(numbers, (list, tuple, np.ndarray)) else []
    if not 2 <= len(listed) <= 6 or not all(map(_natural, [*listed, target])):
        raise BadRow("nums must be 2 to 6 whole numbers above 0, and target one")
    *given, wanted = map(int, [*listed, target])
    return Puzzle(tuple(given), wanted)


def _natural(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and 1 <= value <= 10**9


@lru_cache(maxsize=8)
def load_puzzles(data: str) -> dict[str, tuple[Puzzle, ...]]:
    """The puzzles of a file or a hub data set by split. Raises what ``load_rows`` raises."""
    return load_rows(data, None, ("train", "test"), read_puzzle, lambda puzzle: puzzle.text)


def size_of(puzzle: Puzzle) -> int:
    """How many numbers a puzzle has."""
    return len(puzzle.numbers)
