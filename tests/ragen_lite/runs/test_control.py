"""The control of a model's folder: kept where it played the same instances, shown beside the run's own rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.envs.registry import find
from ragen_lite.runs.control import CONTROL, WEIGHTS, keep_control, read_controls, write_control
from ragen_lite.runs.evaluation import Evaluator, play_scripted
from ragen_lite.runs.folder import Run
from ragen_lite.runs.report import result_lines
from ragen_lite.runs.summaries import as_measurement

SPEC = EnvSpec(find("hanoi"))
COMMAND = "python -m benchmarks.generalise hanoi"


class Player:
    """As much of a player as an evaluator's task needs."""

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec


def evaluator(spec: EnvSpec = SPEC, temperature: float = 1.0) -> Evaluator:
    return Evaluator(cast(Any, Player(spec)), Sampling(temperature, 48))


def measured(policy: str, instances: int = 6) -> dict[str, Any]:
    """What a scripted policy does, in place of a model's sampled and greedy play."""
    played = play_scripted(SPEC, policy, "test", instances)
    return as_measurement({"sampled": played, "greedy": played}, {"hanoi": 3.0})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run")


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    return str(tmp_path)


def test_a_control_on_the_same_instances_is_kept_and_shown(model: str, run: Run) -> None:
    control = measured("random")
    other = evaluator(EnvSpec("another"))
    write_control(model, other, {"rows": {}}, "another command")
    write_control(model, evaluator(), control, COMMAND)
    assert set(read_controls(model)) == {"another", SPEC.id}

    after = measured("solver")
    run.write_json("after.json", after)
    keep_control(run, model, evaluator(), after)
    kept = run.read_json(CONTROL)
    assert kept["command"] == COMMAND and kept["rows"] == control["rows"]
    lines = "\n".join(result_lines(run))
    assert "after, sampled: success 100.0%" in lines
    wins = control["rows"]["sampled"]["success"]
    assert 0 <= wins < 1 and f"control, sampled: success {wins:.1%}" in lines
    assert f"more supervision on as many tokens in place of RL, by {COMMAND}" in lines
    assert f"sampled gain over the control: {1 - wins:+.1%}" in lines
    hard = control["tasks"]["hard"]["sampled"]
    assert f"hard: {hard['n']} instances, after 100.0%" in lines
    run.log({"step": 0, "time/eval_s": 3.0})
    run.log({"step": 1, "time/rollout_s": 40.2, "time/update_s": 20.0, "time/sync_s": 1.0})
    told = "time: sampling 40 s, learning 20 s, handing over weights 1 s, evaluation 10 s"
    assert result_lines(run, evaluating=7.0)[-1] == told
    assert f"control {hard['success']:.1%}" in lines


@pytest.mark.parametrize(
    "file", [None, "no JSON", "[]", '{"another": {}}', json.dumps({SPEC.id: 3})]
)
def test_without_a_control_of_the_task_there_is_none(
    file: str | None, model: str, run: Run
) -> None:
    if file is not None:
        (Path(model) / CONTROL).write_text(file)
    keep_control(run, model, evaluator(), {"instances": {}})
    assert run.read_json(CONTROL) is None


def test_a_control_of_something_else_is_none_of_the_run(
    model: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_control(model, evaluator(), measured("random"), COMMAND)
    after = measured("solver")
    keep_control(run, model, evaluator(), after)
    assert run.read_json(CONTROL) is not None
    for which, figures in (
        (evaluator(), measured("solver", 5)),  # other instances; what was kept goes
        (evaluator(EnvSpec(SPEC.id, {"max_turns": 90})), after),  # the same ones in another game
        (evaluator(EnvSpec(SPEC.id, protocol="answer")), after),
        (evaluator(temperature=0.7), after),
        (evaluator(EnvSpec("another")), after),
    ):
        keep_control(run, model, which, figures)
        assert run.read_json(CONTROL) is None
    # Random weights have no folder, so not the one that one stands in.
    monkeypatch.chdir(model)
    keep_control(run, "", evaluator(), after)
    assert run.read_json(CONTROL) is None
    (Path(model) / WEIGHTS).write_bytes(b"other weights")
    keep_control(run, model, evaluator(), after)
    assert run.read_json(CONTROL) is None
