"""What is saved when a run fails, and what is said where nothing can be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragen_lite.runs.session import Session


def session(folder: Path, updates: int) -> tuple[Session, list[str], list[int]]:
    """Three steps are finished and one is on disk; ``updates`` were made since."""
    notes: list[str] = []
    written: list[int] = []

    def write(where: Path, step: int, ahead: str | None) -> Path:
        assert ahead == "[]"
        written.append(step)
        return where

    parts: Any = SimpleNamespace(updates=0, folder=folder, close=lambda: None)
    made = Session(
        run=parts,
        policy=parts,
        learner=parts,
        player=parts,
        evaluator=parts,
        instances=1,
        note=notes.append,
        write=write,
        release=lambda: notes.append("released"),
        saved=1,
    )
    made.finish(3, lambda: "[]")
    parts.updates = updates
    return made, notes, written


def test_whole_steps_are_saved_with_what_was_sampled_ahead(tmp_path: Path) -> None:
    made, _, written = session(tmp_path, updates=0)
    made.rescue()
    assert written == [3] and made.saved == 3


def test_amid_an_update_nothing_is_saved_and_that_is_said(tmp_path: Path) -> None:
    made, notes, written = session(tmp_path, updates=1)
    made.rescue()
    assert written == [] and notes[0] == "amid an update, so steps 2 to 3 are not saved"


def test_learners_are_let_go_where_the_player_cannot_be_closed(tmp_path: Path) -> None:
    made, notes, _ = session(tmp_path, updates=0)

    def broken() -> None:
        raise OSError("it is gone")

    made.player = SimpleNamespace(close=broken)  # type: ignore[assignment]
    with pytest.raises(OSError, match="it is gone"):
        made.close()
    assert notes == ["released"]
