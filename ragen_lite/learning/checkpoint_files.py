"""The checkpoints of a run's folder: which there are, and which are whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def steps(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder, the newest first."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name[5:]
        if number.isdigit():
            found.append((int(number), path))
    return sorted(found, reverse=True)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = json.loads((path / "trainer" / "manifest.json").read_text())
    except (OSError, ValueError):
        return "its manifest is missing or unreadable"
    for name, written in sums.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if digest(path / name) != written:
            return f"{name} is not what was written"
    return None


def last_good(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint of a folder, and a sentence about each damaged one passed
    over."""
    notes: list[str] = []
    for _, path in steps(folder):
        why = damage(path)
        if why is None:
            return path, notes
        notes.append(f"checkpoint {path} is damaged ({why}); the one before it is used")
    return None, notes
