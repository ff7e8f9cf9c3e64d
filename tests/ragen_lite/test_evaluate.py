"""Statistics against known values, and the summaries of trajectories."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.trajectory import Episode, Exchange, Outcome
from ragen_lite.config.schema import ConfigError, EnvConfig
from ragen_lite.runs.evaluation import (
    baselines,
    check_splits,
    held_out_starts,
    how_many,
    make_spec,
    play_scripted,
)
from ragen_lite.runs.folder import Run
from ragen_lite.runs.report import task_lines
from ragen_lite.runs.statistics import bootstrap, effective_size, mcnemar, proportion, wilson
from ragen_lite.runs.summaries import summarise
from ragen_lite.runs.tables import compare_pairs


def test_wilson_against_published_values() -> None:
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_bootstrap_covers_the_mean_and_is_seeded() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400).tolist()
    low, high = bootstrap(values)
    assert low < np.mean(values) < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert bootstrap(values) == (low, high)


def test_mcnemar_by_hand() -> None:
    assert mcnemar([True] * 3 + [False], [False] * 4) == (3, 0, 0.25)
    assert mcnemar([True, False], [False, True]) == (1, 1, 1.0)
    assert mcnemar([True], [True]) == (0, 0, 1.0)


def test_values_of_one_key_count_as_what_they_tell() -> None:
    # Four questions, each asked twice with the same answer: as good as four values, not eight.
    wins = [1, 1, 1, 1, 1, 1, 0, 0]
    keys = [k // 2 for k in range(8)]
    # Spread 3 (0.5)^2 + 1.5^2 = 3 over 64, times 4 / 3: p (1 - p) / it is 3.
    assert effective_size(wins, keys) == pytest.approx(3.0)
    assert proportion(wins, keys) == wilson(0.75 * 3, 3)
    # Unlike answers to one question: they tell as much as eight would.
    assert effective_size([1, 0] * 4, keys) == 8
    assert effective_size([1] * 8, keys) == 4 and effective_size([0, 1, 1], "aaa") == 1
    assert proportion([1, 0, 0, 0]) == wilson(1, 4)
    # Keys are drawn whole, so the interval is the wider one of four values.
    assert bootstrap(wins, keys) == bootstrap([1, 1, 1, 0])
    assert bootstrap(wins, keys)[0] < bootstrap(wins)[0]


def test_a_paired_test_goes_by_instances() -> None:
    first = [True, True, True, False, False, True]
    second = [False, False, True, False, True, False]
    # Instance 0: 2 wins; 1: none; 2: one each way.
    assert mcnemar(first, second, [0, 0, 1, 1, 2, 2]) == (1, 0, 1.0)
    assert mcnemar(first, second) == (3, 1, pytest.approx(0.625))


def rows(path: Path, count: int) -> EnvConfig:
    """A file of questions with their numbers as answers."""
    path.write_text(
        "\n".join(f'{{"question": "number {i}?", "answer": {i}}}' for i in range(count))
    )
    return EnvConfig("ragen_lite/Math-v0", {"data": str(path)})


@pytest.mark.parametrize("split", ["test", "val", "all"])
def test_a_data_set_is_gone_through_once(split: str, tmp_path: Path) -> None:
    spec = make_spec(rows(tmp_path / "a.jsonl", 90))
    size = how_many(spec, split, 256)
    assert size == 90 if split == "all" else 1 < size < 30
    assert how_many(spec, split, 2) == 2
    played = play_scripted(spec, "solver", split, 256)
    asked = [episode.turns[0].observation for episode in played]
    assert len(asked) == len(set(asked)) == size
    assert len({episode.instance for episode in played}) == size
    three = held_out_starts(spec, split, 2, samples=3)
    assert [(s.group, s.member) for s in three] == [(g, m) for g in (0, 1) for m in (0, 1, 2)]


@pytest.mark.parametrize("env_id", ["ragen_lite/Wordle-v0", "ragen_lite/Sokoban-v0"])
def test_a_listed_task_is_gone_through_once(env_id: str, tmp_path: Path) -> None:
    walls = ["    ", "#   ", " #  ", "  # ", "   #"]
    rooms = [
        f"; \n#######\n#{a}@$ .#\n#{b} #\n#{c} #\n#######\n"
        for a in " #"
        for b in walls
        for c in walls
    ]
    (tmp_path / "rooms.txt").write_text("\n".join(rooms))
    kwargs = {"levels": str(tmp_path / "rooms.txt")} if "Sokoban" in env_id else {}
    spec = EnvSpec(env_id, kwargs)
    size = how_many(spec, "test", 1_000)
    assert 1 < size < 100
    played = play_scripted(spec, "random", "test", 1_000)
    assert len(played) == len({episode.instance for episode in played}) == size


def test_the_train_split_is_drawn_from(tmp_path: Path) -> None:
    spec = make_spec(rows(tmp_path / "a.jsonl", 40))
    played = play_scripted(spec, "solver", "train", 60)
    assert len(played) == 60 and summarise(played).instances < 40


def test_generated_tasks_have_as_many_instances_as_are_wanted() -> None:
    assert how_many(EnvSpec("ragen_lite/Sokoban-v0"), "test", 1_000) == 1_000
    assert how_many(EnvSpec("ragen_lite/Math-v0"), "all", 1_000) == 1_000


def episode(
    rewards: list[float], regrets: list[float | None], outcome: Outcome, seed: int = 0
) -> Episode:
    turns = tuple(
        Exchange(
            observation="",
            reply="",
            reward=reward,
            reply_tokens=1,
            regret=regret,
            unreadable=None if regret is not None else "x",
        )
        for reward, regret in zip(rewards, regrets, strict=True)
    )
    return Episode(env_id="e", seed=seed, turns=turns, outcome=outcome)


def test_a_summary_by_hand() -> None:
    played = [
        episode([1.0, 10.0], [0.0, 2.0], Outcome.SUCCESS, 1),
        episode([-1.0], [math.inf], Outcome.FAILURE, 2),
        episode([-0.5], [None], Outcome.OUT_OF_TURNS, 3),
        episode([0.0], [1.0], Outcome.ERROR, 4),
    ]
    s = summarise(played)
    assert (s.n, s.instances, s.success, s.errors) == (4, 4, 0.25, 1)
    assert s.returns == pytest.approx((11 - 1 - 0.5) / 4)
    assert (s.regret, s.deadlocked) == (1.5, pytest.approx(1 / 3))  # of those whose regret is known
    assert (s.turns, s.reply_tokens, s.format_errors) == (1.25, 1.0, 0.2)
    assert (s.success_low, s.success_high) == wilson(1, 4)


@pytest.mark.parametrize("env_id", ["ragen_lite/Sokoban-v0", "ragen_lite/Countdown-v0"])
def test_the_solver_is_perfect_and_the_random_policy_is_not(env_id: str) -> None:
    spec = EnvSpec(env_id)
    solver, rand = (play_scripted(spec, name, "test", 60) for name in ("solver", "random"))
    assert summarise(solver).success == 1.0 and summarise(rand).success < 0.3
    assert summarise(rand).format_errors == 0.0
    sentence = compare_pairs("solver", solver, "random", rand)
    # Sokoban draws one small room twice.
    instances = len({episode.instance for episode in rand})
    assert 58 < instances <= 60
    assert f"the same {instances} instances" in sentence and "McNemar p = " in sentence


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("ragen_lite/Sokoban-v0", {"boxes": "two"}, "boxes=two: a whole number is needed"),
        (
            "ragen_lite/FrozenLake-v0",
            {"slippery": "maybe"},
            "slippery=maybe: true or false is needed",
        ),
        ("ragen_lite/Arithmetic-v0", {"digits": 2.5}, "digits=2.5: a whole number"),
        ("ragen_lite/Hanoi-v0", {"max_disk": 3}, "no option max_disk.*did you mean max_disks"),
        ("ragen_lite/Mix-v0", {"tasks": {}}, "give names and weights"),
        ("ragen_lite/Mix-v0", {"tasks": {"hanio": 1}}, "did you mean hanoi"),
    ],
)
def test_options_are_refused_in_a_sentence(
    env_id: str, kwargs: dict[str, Any], message: str
) -> None:
    config = EnvConfig(env_id, kwargs)
    with pytest.raises(ConfigError, match=message):
        make_spec(config)


def test_a_split_without_an_instance_is_told_before_anything_is_played(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"question": "1 + 1?", "answer": 2}')
    config = EnvConfig("ragen_lite/Math-v0", {"data": str(tmp_path / "one.jsonl")})
    with pytest.raises(ConfigError, match="no row in the"):
        check_splits(make_spec(config), "train", "val", "test")


def test_who_has_a_solver() -> None:
    assert baselines(EnvSpec("ragen_lite/Mix-v0", {"tasks": {"hanoi": 1}})) == ("random", "solver")
    pytest.importorskip("textarena")
    assert baselines(EnvSpec("ragen_lite/Mix-v0", {"tasks": {"hanoi": 1, "textarena": 1}})) == (
        "random",
    )


def test_a_mixtures_run_ends_with_the_success_on_each_task(tmp_path: Path) -> None:
    run = Run(tmp_path)
    row = {"n": 4, "success": 0.25, "success_low": 0.1, "success_high": 0.7}
    run.write_json("before.json", {"tasks": {"hanoi": {"sampled": row, "greedy": row}}})
    run.write_json("random.json", {"tasks": {"hanoi": {"random": row}}})
    told = "25.0% (10.0% to 70.0%)"
    assert task_lines(run) == [f"  hanoi: 4 instances, before {told}, random {told}"]
