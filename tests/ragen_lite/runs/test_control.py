"""The control of a model's folder: kept where it played the same instances, shown beside the run's own rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.envs.registry import find
from ragen_lite.runs.control import CONTROL, keep_control, read_controls, write_control
from ragen_lite.runs.evaluation import play_scripted
from ragen_lite.runs.folder import Run
from ragen_lite.runs.report import result_lines
from ragen_lite.runs.summaries import as_measurement

HANOI = find("hanoi")
COMMAND = "python -m benchmarks.generalise hanoi"


def measured(policy: str, instances: int = 6) -> dict[str, Any]:
    """What a scripted policy does, in place of a model's sampled and greedy play."""
    played = play_scripted(EnvSpec(HANOI), policy, "test", instances)
    return as_measurement({"sampled": played, "greedy": played}, {"hanoi": 3.0})


def test_a_control_on_the_same_instances_is_kept_and_shown(tmp_path: Path) -> None:
    control = measured("random")
    write_control(str(tmp_path), "another", {"rows": {}}, "another command")
    write_control(str(tmp_path), HANOI, control, COMMAND)
    assert set(read_controls(str(tmp_path))) == {"another", HANOI}

    run = Run(tmp_path / "run")
    run.folder.mkdir()
    after = measured("solver")
    run.write_json("after.json", after)
    keep_control(run, str(tmp_path), HANOI, after)
    assert run.read_json(CONTROL) == {"command": COMMAND, **control}
    lines = "\n".join(result_lines(run))
    assert "after, sampled: success 100.0%" in lines
    wins = control["rows"]["sampled"]["success"]
    assert 0 <= wins < 1 and f"control, sampled: success {wins:.1%}" in lines
    assert f"control: more supervision in place of this run, by {COMMAND}" in lines
    assert f"sampled gain over the control: {1 - wins:+.1%}" in lines
    hard = control["tasks"]["hard"]["sampled"]
    assert f"hard: {hard['n']} instances, after 100.0%" in lines
    assert f"control {hard['success']:.1%}" in lines


@pytest.mark.parametrize("file", [None, "no JSON", "[]", '{"another": {}}', json.dumps({HANOI: 3})])
def test_without_a_control_of_the_task_there_is_none(file: str | None, tmp_path: Path) -> None:
    if file is not None:
        (tmp_path / CONTROL).write_text(file)
    keep_control(Run(tmp_path), str(tmp_path), HANOI, {"instances": {}})
    assert read_controls(str(tmp_path)) == {} or (tmp_path / CONTROL).read_text() == file


def test_a_control_on_other_instances_is_none_of_the_run(tmp_path: Path) -> None:
    write_control(str(tmp_path), HANOI, measured("random"), COMMAND)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    keep_control(run, str(tmp_path), HANOI, measured("solver", 5))
    assert run.read_json(CONTROL) is None
    keep_control(run, str(tmp_path), "another", measured("solver"))
    keep_control(run, "", HANOI, measured("solver"))  # random weights have no folder
    assert run.read_json(CONTROL) is None
