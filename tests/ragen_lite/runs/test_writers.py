"""Dashboards after a resume: one run, and each step once."""

from __future__ import annotations

import importlib.machinery
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from ragen_lite.runs.writers import TensorBoard, open_writers


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (1, 2, 3)), (1, (2, 3, 4))):
        writer = TensorBoard(tmp_path, start)
        for step in steps:
            writer.write({"step": step, "rollout/success": 0.1 * step})
        writer.close()
        # Files are read in the order of their names: the second, then a counter of this process,
        # whose 10 comes before its 9.
        time.sleep(1.1)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("rollout/success")] == [1, 2, 3, 4]


def test_a_resumed_run_is_the_same_run_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    rows: list[tuple[Any, Any]] = []
    fake: Any = types.ModuleType("wandb")
    fake.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="here")
    fake.init = lambda **options: calls.append(options)
    fake.log = lambda row, step: rows.append((row, step))
    fake.finish = lambda: None
    monkeypatch.setitem(sys.modules, "wandb", fake)
    other = tmp_path / "other"
    other.mkdir()
    for folder, start in ((tmp_path, 0), (tmp_path, 3), (other, 0)):
        writers = open_writers(folder, start, {"seed": 0})
        for writer in writers:
            writer.write({"step": start + 1, "rollout/success": 0.5})
            writer.close()
    first, again, another = calls
    assert first == again and first["resume"] == "allow" and len(first["id"]) == 16
    assert another["id"] != first["id"]
    assert [step for _, step in rows] == [1, 4, 1]
