"""Success told apart by difficulty: what a model was shown, and what is harder than any of it."""

from __future__ import annotations

import json
from pathlib import Path

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.scripted import random_policy, solver_policy
from ragen_lite.agents.trajectory import Start
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import ModelConfig
from ragen_lite.envs.registry import find
from ragen_lite.models.loading import demonstrated_in, load_policy
from ragen_lite.runs.summaries import as_measurement, by_difficulty, success_by_part
from ragen_lite.sft import open_trainer
from tests.fixtures.commands import run
from tests.fixtures.runs import SMALL, folder, rows


def test_tasks_say_how_hard_an_instance_is() -> None:
    for name, options, expected in (
        ("sokoban", {"min_cost": 5, "max_cost": 5}, {5}),
        ("rubik", {"min_scramble": 2, "max_scramble": 3}, {2, 3}),
        ("countdown", {"min_numbers": 3, "max_numbers": 4}, {3, 4}),
        ("knights_knaves", {"min_people": 2, "max_people": 3}, {2, 3}),
        ("arithmetic", {"digits": 2}, {1, 2}),
    ):
        env = EnvSpec(find(name), options).make()
        assert {env.reset(seed=seed)[1]["difficulty"] for seed in range(40)} == expected
    # An unreadable reply tells it too.
    env.reset(seed=0)
    assert env.step("nothing")[4]["difficulty"] in (1, 2)


def test_episodes_are_told_apart_by_what_was_shown() -> None:
    spec = EnvSpec("ragen_lite/Sokoban-v0")
    played = []
    for policy, cost in ((solver_policy, 9), (random_policy, 4)):
        env = EnvSpec(spec.id, {"min_cost": cost, "max_cost": cost}).open()
        played += [play_episode(env, spec.id, policy, Start(seed)) for seed in range(6)]
    parts = by_difficulty(played, {"sokoban": 6})
    assert parts == {"easy": played[6:], "hard": played[:6]}
    assert by_difficulty(played, {"hanoi": 6}) == {} and by_difficulty(played, {"sokoban": 9}) == {}
    assert success_by_part("eval", played, {"sokoban": 6})["eval/success_hard"] == 1.0
    measured = as_measurement({"mixed": played}, {"sokoban": 6})
    assert measured["tasks"]["hard"]["mixed"]["n"] == 6


def test_a_model_knows_what_it_was_shown(tmp_path: Path) -> None:
    line = (
        "env=mix", "tasks={sokoban:{max_cost:4}}", "model.path=scratch:32x1x2",
        "train.groups=3", "train.steps=3", "eval.every=0", "eval.instances=4",
    )  # fmt: skip
    shown = run("sft", *line, cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    model = folder(tmp_path) / "checkpoints" / "step-3"
    assert json.loads((model / "config.json").read_text())["demonstrated_difficulty"] == {
        "sokoban": 4
    }
    assert demonstrated_in(model) == {"sokoban": 4.0} and demonstrated_in(tmp_path) == {}
    # What was shown before a stop is known before anything is shown again.
    with open_trainer(compose([*line, f"run.resume={folder(tmp_path)}"])) as trainer:
        assert trainer.session.policy.demonstrated == {"sokoban": 4.0}
    # It is handed on by whoever trains the model further.
    learnt = run(
        "train", "env=sokoban", f"model.path={model}", *SMALL, "train.steps=1", "eval.every=1",
        "eval.instances=8", "run.name=further", cwd=tmp_path,
    )  # fmt: skip
    assert learnt.returncode == 0, learnt.stdout + learnt.stderr
    made = folder(tmp_path, "further")
    assert "easy: " in learnt.words and "hard: " in learnt.words
    assert {"eval/success_easy", "eval/success_hard"} <= set(rows(made)[0])
    trained = load_policy(ModelConfig(str(made / "checkpoints" / "step-1")))
    assert trained.demonstrated == {"sokoban": 4.0}
    measured = run(
        "evaluate", "env=sokoban", f"model.path={model}", "eval.instances=24", cwd=tmp_path
    )
    assert measured.returncode == 0, measured.stderr
    assert "harder than any (hard)" in measured.words and "| hard" in measured.words.replace(
        "│", "|"
    )
