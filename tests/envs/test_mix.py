"""Mixtures: weights, curricula, each task's own prompt and budgets, success counted for each; and names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.scripted import random_policy, solver_policy, teacher_policy
from ragen_lite.agents.trajectory import Start
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.envs.mix import Mix
from ragen_lite.envs.registry import UnknownEnv, find, own_tasks, short_name
from ragen_lite.runs.summaries import by_task, summarise


def labels(env: Dialogue, n: int, **options: Any) -> Counter[str]:
    return Counter(env.reset(seed=s, options=options)[1]["task"] for s in range(n))


def test_tasks_come_by_weight() -> None:
    env = Dialogue(Mix({"bandit": 3, "countdown": {"weight": 1, "max_numbers": 3}, "hanoi": 0}))
    found = labels(env, 400)
    assert set(found) == {"bandit", "countdown"} and 260 < found["bandit"] < 340
    assert env.unwrapped.dialogues["countdown"].unwrapped.max_numbers == 3


def test_a_curriculum_follows_the_progress_and_evaluation_mixes() -> None:
    people = {
        f"{n}": {"env": "knights_knaves", "min_people": n, "max_people": n} for n in (2, 3, 4, 5)
    }
    env = Dialogue(Mix(people, curriculum=True))
    for progress, label in (
        (0.0, "2"),
        (0.24, "2"),
        (0.25, "3"),
        (0.6, "4"),
        (0.99, "5"),
        (1.0, "5"),
    ):
        assert set(labels(env, 5, progress=progress)) == {label}
    assert set(labels(env, 60)) == set(people)


def test_each_task_keeps_its_prompt_and_its_budgets() -> None:
    handle = EnvSpec("ragen_lite/Mix-v0", {"tasks": {"hanoi": 1, "bandit": 1}}).open()
    played = [play_episode(handle, "mix", random_policy, Start(seed)) for seed in range(30)]
    parts = by_task(played)
    assert set(parts) == {"hanoi", "bandit"}
    assert all("Tower of Hanoi" in t.system and len(t.turns) <= 5 for t in parts["hanoi"])
    assert all("two arms" in t.system and len(t.turns) == 1 for t in parts["bandit"])
    assert parts["hanoi"][0].system.startswith("You play the Tower")
    assert summarise(played).regret is None and summarise(parts["hanoi"]).turns > 1


def test_the_same_seed_is_the_same_game_for_all_members_who_then_slip_apart() -> None:
    tasks = {"lake": {"env": "frozen_lake", "slippery": True, "size": 6}, "hanoi": 1}
    env = Dialogue(Mix(tasks))
    ends = set()
    seed = next(s for s in range(20) if env.reset(seed=s)[1]["task"] == "lake")
    for member in range(6):
        first, _ = env.reset(seed=seed, options={"member": member})
        over = False
        for _ in range(6):
            if not over:
                last, _, terminated, truncated, _ = env.step(
                    "<think></think><answer>Right</answer>"
                )
                over = terminated or truncated
        ends.add(last)
        assert first == env.reset(seed=seed)[0]
    assert len(ends) > 2


def test_scripted_policies_play_through_it() -> None:
    handle = EnvSpec(
        "ragen_lite/Mix-v0", {"tasks": {"sokoban": 1, "countdown": 1, "sudoku": 1}}
    ).open()
    assert all(play_episode(handle, "mix", solver_policy, Start(s)).success for s in range(20))
    assert all(play_episode(handle, "mix", teacher_policy, Start(s)).success for s in range(20))


def test_habits_make_a_teacher_worse() -> None:
    def success(habits: dict[str, float]) -> float:
        handle = EnvSpec("ragen_lite/Mix-v0", {"tasks": {"hanoi": {"habits": habits}}}).open()
        return float(
            np.mean(
                [play_episode(handle, "mix", teacher_policy, Start(s)).success for s in range(40)]
            )
        )

    assert success({}) == 1.0 and success({"slip": 0.4}) < 0.7 and success({"timid": 1.0}) < 0.5


def test_a_spread_teacher_wins_in_any_number_of_turns() -> None:
    tasks = {"sokoban": {"max_cost": 6, "habits": {"spread": 1.0}}}
    handle = EnvSpec("ragen_lite/Mix-v0", {"tasks": tasks}).open()
    played = [play_episode(handle, "mix", teacher_policy, Start(s)) for s in range(60)]
    assert all(episode.success for episode in played)
    assert {len(episode.turns) for episode in played} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"bandit": 0}, "weights"),
        ({"bandit": -1, "hanoi": 1}, "weights"),
        ({"bandid": 1}, "did you mean bandit"),
        ({"bandit": {"habits": {"lazy": 1}}}, "spread, timid, aimless, slip"),
    ],
)
def test_mixtures_that_cannot_work_are_refused(tasks: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mix(tasks)


def test_names() -> None:
    assert (
        short_name("ragen_lite/KnightsKnaves-v0") == "knights_knaves"
        and short_name("CartPole-v1") == "cart_pole"
    )
    assert find("game_2048") == "ragen_lite/Game2048-v0" and find("CartPole-v1") == "CartPole-v1"
    assert find("my:thing/X-v0") == "my:thing/X-v0" and len(own_tasks()) >= 22
    with pytest.raises(UnknownEnv, match="did you mean sokoban"):
        find("sokobann")
