"""Published puzzles of knights and knaves: rows of Logic-RL's files, and of K-and-K."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ragen_lite.envs.answers.knights_knaves.english import ROLES, SAYINGS, BadPuzzle, parse_puzzle
from ragen_lite.envs.answers.knights_knaves.puzzles import Puzzle, solutions
from ragen_lite.envs.answers.rows import load_rows
from ragen_lite.envs.files import BadRow


def read_row(record: Any) -> Puzzle:
    """A row with ``quiz``, the puzzle in English, as a Puzzle; its statements are read from that.

    Where the row has a ``solution``, true for a knight, it must be the one that there is. Raises
    BadRow.
    """
    quiz = record.get("quiz") if isinstance(record, dict) else None
    if not isinstance(quiz, str):
        raise BadRow("quiz, a puzzle as text, is needed")
    try:
        names, statements = parse_puzzle(quiz)
    except BadPuzzle as error:
        raise BadRow(str(error)) from error
    if not 2 <= len(names) <= 8:
        raise BadRow(f"{len(names)} people: a puzzle has 2 to 8")
    found = solutions(statements)
    if len(found) != 1:
        raise BadRow(f"it has {len(found)} solutions")
    told = record.get("solution")
    if told is not None and (not isinstance(told, list) or tuple(told) != found[0]):
        raise BadRow(f"the solution is {list(found[0])}, not {str(told)[:80]}")
    # Another order of speaking is told in our own words.
    sayings = tuple(i % len(SAYINGS) for i in range(len(names)))
    return Puzzle(statements, found[0], names, sayings, ROLES[0], wording=quiz)


@lru_cache(maxsize=8)
def load_puzzles(data: str) -> dict[str, tuple[Puzzle, ...]]:
    """The puzzles of a file or a hub data set by split. Raises what ``load_rows`` raises."""
    return load_rows(data, None, ("train", "test"), read_row, lambda puzzle: puzzle.logic)


def size_of(puzzle: Puzzle) -> int:
    """How many people a puzzle has."""
    return len(puzzle.names)
