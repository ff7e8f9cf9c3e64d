"""The contract of an environment, over everything that ragen_lite registers. A new task needs no line here."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import ragen_lite
from ragen_lite.agents.isolation import Handle
from ragen_lite.agents.rollout import Start
from ragen_lite.agents.rollout import play_out as play_start
from ragen_lite.agents.scripted import Policy, random_policy, solver_policy, teacher_policy
from ragen_lite.agents.trajectory import Trajectory
from ragen_lite.envs.base import CHARSET, SPLITS, AnyText
from ragen_lite.envs.dialogue import PROTOCOLS, Dialogue
from ragen_lite.evaluate import has_solver

TASKS = sorted(ragen_lite.TASKS)
DOORS = {
    "ragen_lite/ReasoningGym-v0": "reasoning_gym",
    "ragen_lite/Textarena-v0": "textarena",
    "ragen_lite/Gem-v0": "gem",
}
pytestmark = pytest.mark.parametrize("env_id", TASKS)


@pytest.fixture(autouse=True)
def its_package_is_there(env_id: str) -> None:
    if env_id in DOORS:
        pytest.importorskip(DOORS[env_id])


def dialogue(env_id: str, **kwargs: Any) -> Dialogue:
    return Dialogue(gym.make(env_id, disable_env_checker=True, **kwargs))


def play_out(env: Dialogue, policy: Policy, seed: int, split: str) -> Trajectory:
    return play_start(Handle(env), "task", policy, Start(seed, split))


def instances(env_id: str, split: str, seeds: range) -> list[str]:
    """What each seed is: the first message, and the instance where the message does not show it."""
    env, found = dialogue(env_id), []
    for seed in seeds:
        message, _ = env.reset(seed=seed, options={"split": split})
        found.append(f"{message}\n{getattr(env.unwrapped, 'instance', '')}")
    return found


def test_gymnasium_accepts_the_task_and_its_dialogue(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(gym.make(env_id).unwrapped, skip_render_check=True)
        check_env(dialogue(env_id), skip_render_check=True)


def test_observations_lie_in_their_space(env_id: str) -> None:
    env = dialogue(env_id)
    rng = np.random.default_rng(0)
    for seed in range(20):
        message, _ = env.reset(seed=seed)
        assert message in env.observation_space
        assert set(message) <= CHARSET or isinstance(env.unwrapped.observation_space, AnyText)
        message, *_ = env.step(random_policy(env, rng))
        assert message in env.observation_space
        message, *_ = env.step("nonsense")
        assert message in env.observation_space


def test_the_same_seed_is_the_same_instance_in_any_process_and_for_every_member(env_id: str) -> None:
    env = dialogue(env_id)
    here = [env.reset(seed=s, options={"split": "train"})[0] for s in range(30)]
    assert [env.reset(seed=s, options={"split": "train", "member": 7})[0] for s in range(30)] == here
    code = (
        "import sys, json, hashlib, gymnasium as gym, ragen_lite\n"
        "from ragen_lite.envs.dialogue import Dialogue\n"
        f"env = Dialogue(gym.make({env_id!r}, disable_env_checker=True))\n"
        "texts = [env.reset(seed=s, options={'split': 'train'})[0] for s in range(30)]\n"
        "print(hashlib.sha256(json.dumps(texts).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "123", "PATH": ""},
    ).stdout.strip()  # fmt: skip
    assert there == hashlib.sha256(json.dumps(here).encode()).hexdigest()


def test_seeds_differ(env_id: str) -> None:
    # CliffWalking has 37 starts in all, TextArena's default game 20 numbers.
    assert len(set(instances(env_id, "train", range(50)))) > 10


def test_no_instance_is_in_two_splits(env_id: str) -> None:
    seen = {split: set(instances(env_id, split, range(300))) for split in SPLITS}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["val"] and not seen["val"] & seen["test"]


def test_an_unknown_split_is_refused(env_id: str) -> None:
    with pytest.raises(ValueError, match="train, val, test"):
        dialogue(env_id).reset(seed=0, options={"split": "tset"})


def test_the_solver_solves_every_instance_within_the_budgets(env_id: str) -> None:
    env = dialogue(env_id)
    task: Any = env.unwrapped
    if not has_solver(env.unwrapped):
        pytest.skip("another suite's game, which has no solver")
    for seed in range(150):
        trajectory = play_out(env, solver_policy, seed=seed, split="test")
        if task.stochastic:
            continue
        assert trajectory.success, (seed, trajectory)
        if "regret" in trajectory.turns[0].info and trajectory.turns[0].info["regret"] is not None:
            assert [turn.info["regret"] for turn in trajectory.turns] == [0.0] * len(trajectory.turns)


def test_where_chance_decides_the_solver_beats_the_random_policy(env_id: str) -> None:
    env = dialogue(env_id)
    task: Any = env.unwrapped
    if not has_solver(env.unwrapped):
        pytest.skip("another suite's game, which has no solver")
    solver = [play_out(env, solver_policy, seed=s, split="test").success for s in range(100)]
    guesses = [play_out(env, random_policy, seed=s, split="test").success for s in range(100)]
    assert sum(solver) > sum(guesses) + 5 and (task.stochastic or all(solver))


def test_noise_is_never_better_than_an_honest_try(env_id: str) -> None:
    env = dialogue(env_id)
    honest, noise = {}, {}  # by task, of a mixture
    for seed in range(60):
        trajectory = play_out(env, random_policy, seed=seed, split="train")
        label = trajectory.turns[-1].info.get("task")
        if not trajectory.success:
            honest[label] = min(honest.get(label, math.inf), trajectory.reward)
        nothing = play_out(env, lambda e, r: "blah <think>", seed=seed, split="train").reward
        noise[label] = max(noise.get(label, -math.inf), nothing)
    for label, worst in honest.items():
        assert noise[label] <= worst + 1e-9, (label, noise[label], worst)


def test_an_unreadable_turn_costs_at_least_a_readable_one(env_id: str) -> None:
    env = dialogue(env_id)
    cheapest = []
    for seed in range(30):
        env.reset(seed=seed)
        cheapest.append(env.step(random_policy(env, np.random.default_rng(seed)))[1])
    env.reset(seed=0)
    assert env.step("blah")[1] <= max(r for r in cheapest if r <= np.median(cheapest))


def test_what_is_written_is_read_back(env_id: str) -> None:
    for protocol in PROTOCOLS:
        env = Dialogue(gym.make(env_id, disable_env_checker=True), protocol)
        env.reset(seed=1)
        task: Any = env.unwrapped
        _, actions = task.demonstrate(np.random.default_rng(0))
        assert env.read(env.write("a thought", actions)) == actions


def test_the_teacher_is_readable(env_id: str) -> None:
    env = dialogue(env_id)
    for seed in range(40):
        trajectory = play_out(env, teacher_policy, seed=seed, split="train")
        assert all(turn.info["unreadable"] is None for turn in trajectory.turns)


def test_instructions_name_the_budgets(env_id: str) -> None:
    env = dialogue(env_id)
    assert len(env.system) > 20
    if env.max_actions_per_turn > 1:
        for number in (env.max_turns, env.max_actions_per_turn, env.max_actions):
            assert str(number) in env.system


def test_it_pickles_with_its_state(env_id: str) -> None:
    env = dialogue(env_id)
    env.reset(seed=3)
    twin = pickle.loads(pickle.dumps(env))  # noqa: S301  (our own bytes)
    reply = solver_policy(env, np.random.default_rng(0))
    assert twin.step(reply) == env.step(reply)


def test_it_runs_in_an_async_vector_env(env_id: str) -> None:
    vector = gym.vector.AsyncVectorEnv([lambda: dialogue(env_id)] * 2, shared_memory=False, context="spawn")
    try:
        messages, _ = vector.reset(seed=[1, 2])
        assert list(messages) == [dialogue(env_id).reset(seed=s)[0] for s in (1, 2)]
        vector.step(("blah", "blah"))
    finally:
        vector.close()


def test_importing_it_loads_no_torch(env_id: str) -> None:
    module = ragen_lite.TASKS[env_id].partition(":")[0]
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
