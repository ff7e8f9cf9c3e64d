"""The control that a model's folder may bring along: what more supervision made of the model.

It is made by ``python -m benchmarks.generalise TASK --model FOLDER --control FOLDER``, and holds
for the weights of that folder and for a task as it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragen_lite.learning.checkpoint_files import digest
from ragen_lite.runs.evaluation import Evaluator
from ragen_lite.runs.folder import Run

CONTROL = "control.json"
WEIGHTS = "model.safetensors"


def read_controls(folder: str) -> dict[str, Any]:
    """A folder's controls by the tasks' ids; without any, or where the file is none, empty."""
    try:
        # Random weights have no folder.
        told = json.loads((Path(folder) / CONTROL).read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _measured_on(folder: str, evaluator: Evaluator) -> dict[str, Any]:
    """What a control and a run must have in common, beside the instances."""
    # With lists for tuples, as the file has them.
    task = json.loads(json.dumps(asdict(evaluator.player.spec)))
    weights = digest(Path(folder) / WEIGHTS)
    return {"weights": weights, "task": task, "sampling": asdict(evaluator.sampling)}


def write_control(
    folder: str, evaluator: Evaluator, measured: Mapping[str, Any], command: str
) -> Path:
    """Put a task's control into a folder, beside those of other tasks; returns the file.

    Args:
        folder: a model's.
        evaluator: that measured the control.
        measured: the control, see ``as_measurement``.
        command: that made it.
    """
    entry = {"command": command, "for": _measured_on(folder, evaluator), **measured}
    controls = read_controls(folder) | {evaluator.player.spec.id: entry}
    path = Path(folder) / CONTROL
    path.write_text(json.dumps(controls, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def keep_control(run: Run, folder: str, evaluator: Evaluator, after: Mapping[str, Any]) -> None:
    """Write a folder's control into a run, if it began from the same weights and was measured on
    the same task, instances and sampling as ``after``; else the run has none."""
    (run.folder / CONTROL).unlink(missing_ok=True)
    found = read_controls(folder).get(evaluator.player.spec.id)
    if not isinstance(found, dict) or found.get("instances") != after["instances"]:
        return
    weights = (Path(folder) / WEIGHTS).is_file()
    if weights and found.get("for") == _measured_on(folder, evaluator):
        run.write_json(CONTROL, found)
