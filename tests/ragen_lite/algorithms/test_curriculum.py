"""Which kinds of instance are drawn, by hand; and which instances a run is played on."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.trajectory import Group, Outcome, Trajectory
from ragen_lite.algorithms.curriculum import SEC, AsDrawn, absolute_advantage
from ragen_lite.algorithms.options import BadOption
from ragen_lite.envs.splits import task_seed
from ragen_lite.runs.instances import LOOKED_AT, Instances, kind_of
from tests.fixtures.commands import run
from tests.fixtures.making import trajectory, turn
from tests.fixtures.runs import SMALL, contents, folder, records

ROOMS = EnvSpec("ragen_lite/Sokoban-v0", {"min_cost": 3, "max_cost": 9})


def group(wins: int, losses: int) -> Group:
    outcomes = [Outcome.SUCCESS] * wins + [Outcome.FAILURE] * losses
    return Group(tuple(trajectory([turn(1, 3, 0.0)], 3, outcome) for outcome in outcomes))


def test_what_a_group_teaches() -> None:
    assert absolute_advantage(group(4, 4)) == 1.0
    # p = 1/4: 2 x 3/16 / sqrt(3/16) = sqrt(3)/2
    assert absolute_advantage(group(2, 6)) == pytest.approx(math.sqrt(3) / 2)
    assert absolute_advantage(group(8, 0)) == absolute_advantage(group(0, 8)) == 0.0


def test_kinds_that_teach_more_are_drawn_more() -> None:
    rule = SEC(rate=0.5, temperature=0.5)
    values = rule.learnt({"a": 1.0, "b": 1.0}, {"a": [group(4, 4), group(8, 0)]})
    assert values == {"a": 0.75, "b": 1.0}  # half of 1 and half of the mean of 1 and 0
    shares = rule.shares({"a": 0.5, "b": 0.0})
    assert shares["a"] == pytest.approx(math.e / (1 + math.e)) and sum(shares.values()) == 1
    assert SEC(temperature=1e-3).shares({"a": 1.0, "b": 0.0}) == {"a": 1.0, "b": 0.0}
    with pytest.raises(BadOption, match="temperature"):
        SEC(temperature=0)
    with pytest.raises(BadOption, match="rate"):
        SEC(rate=1.5)


def costs(spec: EnvSpec, seeds: list[int]) -> list[float]:
    env = spec.make()
    return [env.reset(seed=seed, options={"split": "train"})[1]["difficulty"] for seed in seeds]


def test_instances_are_those_of_the_wanted_kinds() -> None:
    instances = Instances(ROOMS, SEC(temperature=0.05), 3, pytest.fail)
    assert set(instances.values) == {f"sokoban {cost}" for cost in range(3, 10)}
    assert set(instances.values.values()) == {1.0}
    # As drawn, half of the rooms cost 5 at most; every kind alike, 3 in 7 do.
    drawn = costs(ROOMS, [s for step in range(1, 11) for s in instances.seeds(step, 0, 20, 0.0)])
    assert all(10 < count < 55 for count in Counter(drawn).values()) and len(set(drawn)) == 7
    instances.values = {kind: float(kind == "sokoban 8") for kind in instances.values}
    seeds = instances.seeds(11, 0, 6, 0.5)
    assert costs(ROOMS, seeds) == [8] * 6 and len(set(seeds)) == 6
    assert seeds == instances.seeds(11, 0, 6, 0.5) and not set(seeds) & set(
        instances.seeds(11, 6, 6, 0.5)
    )


def test_a_kind_that_is_never_met_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    instances = Instances(ROOMS, SEC(temperature=0.01), 3, pytest.fail)
    instances.values = {kind: float(kind == "sokoban 9") for kind in instances.values}
    monkeypatch.setattr("ragen_lite.runs.instances.MOST", 8)
    assert len(set(instances.seeds(1, 0, 20, 0.0))) == 20


def test_of_a_mixture_each_task_keeps_its_share() -> None:
    tasks = {"sokoban": {"weight": 1}, "bandit": {"weight": 3}}
    instances = Instances(EnvSpec("ragen_lite/Mix-v0", {"tasks": tasks}), SEC(), 0, pytest.fail)
    wanted = [instances._wanted(step, 0, 40) for step in range(1, 11)]
    bandits = sum(len(places.get("bandit", [])) for places in wanted)
    assert 0.65 < bandits / 400 < 0.85


def test_values_are_learnt_by_kind() -> None:
    instances = Instances(ROOMS, SEC(rate=0.5), 3, pytest.fail)

    def member(number: int, outcome: Outcome) -> Trajectory:
        told = replace(turn(1, 3, 0.0), info={"difficulty": 8})
        made = trajectory([told], 3, outcome)
        return replace(made, env_id=ROOMS.id, group=number // 2, member=number % 2)

    outcomes = [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.SUCCESS]
    instances.learn([member(i, outcome) for i, outcome in enumerate(outcomes)])
    assert instances.values["sokoban 8"] == 0.75 and instances.values["sokoban 3"] == 1.0
    other = Instances(ROOMS, SEC(rate=0.5), 3, pytest.fail)
    other.restore(instances.values)
    assert other.values == instances.values
    assert kind_of("sokoban", 8.0) == "sokoban 8" and kind_of("bandit", None) == "bandit"


def test_without_a_choice_instances_come_as_they_are_drawn() -> None:
    plain = [task_seed(5, 2, place) for place in range(4, 7)]
    assert Instances(ROOMS, AsDrawn(), 5, pytest.fail).seeds(2, 4, 3, 0.0) == plain
    notes: list[str] = []
    bandit = Instances(EnvSpec("ragen_lite/Bandit-v0"), SEC(), 5, notes.append)
    assert bandit.seeds(2, 4, 3, 0.0) == plain and "as it draws them" in notes[0]
    assert LOOKED_AT > 100


def test_a_curriculum_goes_on_where_a_checkpoint_left_it(tmp_path: Path) -> None:
    line = ("train", "env=sokoban", *SMALL, "train.steps=3", "eval.every=0")
    (tmp_path / "whole").mkdir()
    whole = run(*line, cwd=tmp_path / "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    made = folder(tmp_path / "whole")
    again = tmp_path / "again" / "runs" / made.name
    shutil.copytree(made, again)
    shutil.rmtree(again / "checkpoints" / "step-3")
    resumed = run(*line, "run.resume=auto", cwd=tmp_path / "again")
    assert resumed.returncode == 0 and "after step 2" in resumed.words, resumed.stderr
    assert contents(again, 3) == contents(made, 3)
    # Other values may draw the same three rooms, so what was learnt is held against too.
    ends = [at / "checkpoints" / "step-3" / "trainer" / "ahead.json" for at in (again, made)]
    assert ends[0].read_text() == ends[1].read_text()
    plain = run(*line, "instances=as_drawn", "train.steps=1", cwd=tmp_path)
    assert plain.returncode == 0
    drawn, chosen = ({r["seed"] for r in records(at, 1)} for at in (folder(tmp_path), made))
    assert len(drawn) == len(chosen) == 3 and drawn != chosen
