"""The control that a model's folder may bring along: what more supervision made of the model.

It is made by ``python -m benchmarks.generalise TASK --model FOLDER --control FOLDER``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragen_lite.runs.folder import Run

CONTROL = "control.json"


def read_controls(folder: str) -> dict[str, Any]:
    """A folder's controls by the tasks' ids; without any, or where the file is none, empty."""
    try:
        told = json.loads((Path(folder) / CONTROL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def write_control(folder: str, env_id: str, measured: Mapping[str, Any], command: str) -> Path:
    """Put a task's control into a folder, beside those of other tasks; returns the file."""
    path = Path(folder) / CONTROL
    controls = read_controls(folder) | {env_id: {"command": command, **measured}}
    path.write_text(json.dumps(controls, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def keep_control(run: Run, folder: str, env_id: str, after: Mapping[str, Any]) -> None:
    """Write a folder's control of a task into a run, if it played the instances of ``after``.

    Both are measurements, see ``as_measurement``.
    """
    found = read_controls(folder).get(env_id)
    if isinstance(found, dict) and found.get("instances") == after["instances"]:
        run.write_json(CONTROL, found)
