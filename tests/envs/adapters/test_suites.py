"""The doors, against the real packages: every generator of reasoning-gym, games of TextArena and GEM to their end."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ragen_lite.envs.adapters.gem import Gem
from ragen_lite.envs.adapters.reasoning_gym import ReasoningGym
from ragen_lite.envs.adapters.suite import package
from ragen_lite.envs.adapters.textarena import TextArena
from ragen_lite.envs.dialogue import Dialogue


def play(env: Dialogue, replies: list[str], seed: int = 3) -> tuple[float, dict[str, Any], int]:
    env.reset(seed=seed)
    for turn, reply in enumerate(replies, 1):
        _, reward, terminated, truncated, info = env.step(reply)
        if terminated or truncated:
            return reward, info, turn
    raise AssertionError("the game goes on")


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(300)
def test_every_generator_of_reasoning_gym_is_a_task_and_its_own_answer_is_right() -> None:
    pytest.importorskip("reasoning_gym")
    from reasoning_gym.factory import DATASETS

    wrong = []
    for name in sorted(set(DATASETS) - {"composite"}):  # it wants a list of others
        env = Dialogue(ReasoningGym(name))
        env.reset(seed=1)
        answer = env.unwrapped.solve()
        if answer is None:
            continue
        _, _, terminated, _, info = env.step(env.write("", answer))
        assert terminated
        if not info["success"]:
            wrong.append(name)
        env.reset(seed=1)
        assert 0 <= env.step(env.write("", ["nonsense xyz"]))[1] <= 1
    assert not wrong


def test_options_of_a_generator() -> None:
    pytest.importorskip("reasoning_gym")
    env = ReasoningGym("knights_knaves", {"n_people": 4})
    env.reset(seed=0)
    assert len(env.entry["metadata"]["names"]) == 4
    with pytest.raises(ValueError, match="unknown task 'x'"):
        ReasoningGym("x")


def test_an_answer_that_the_verifier_cannot_finish_is_wrong() -> None:
    pytest.importorskip("reasoning_gym")
    env = Dialogue(ReasoningGym("countdown", seconds=2.0))
    env.reset(seed=0)
    power = "**".join(map(str, env.unwrapped.entry["metadata"]["numbers"]))  # it evaluates powers
    _, reward, terminated, _, info = env.step(env.write("", [power]))
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    env.reset(seed=0)
    assert env.step(env.write("", env.unwrapped.solve()))[1] == 1.0  # a new process judges


def test_a_game_of_textarena_to_its_end() -> None:
    pytest.importorskip("textarena")
    env = Dialogue(TextArena())
    reward, info, turns = play(
        env, [f"<think></think><answer>[{n}]</answer>" for n in range(1, 21)]
    )
    assert turns <= 12 and info["success"] == (reward >= 1)
    env.reset(seed=3)
    secret = int(env.unwrapped.inner.state.game_state["game_number"])
    env.reset(seed=3)
    _, reward, terminated, _, info = env.step(f"<think></think><answer>[{secret}]</answer>")
    assert (reward, terminated, info["success"]) == (1.0, True, True)
    with pytest.raises(ValueError, match="not a game for one player"):
        TextArena("TicTacToe-v0")
    with pytest.raises(ValueError, match="unknown task"):
        TextArena("Nothing-v0")


def test_a_game_of_gem_to_its_end() -> None:
    pytest.importorskip("gem")
    env = Dialogue(Gem())
    env.reset(seed=3)
    secret = int(env.unwrapped.inner.game_number)
    _, reward, terminated, _, info = env.step(f"\\boxed{{{secret}}}")
    assert reward >= 1 and terminated and info["success"]
    message, _ = Dialogue(Gem("game:Sokoban-v0-easy")).reset(seed=0)
    assert "current board" in message  # GEM has it in info only


def test_the_process_keeps_its_own_randomness() -> None:
    for name, make in (("textarena", TextArena), ("gem", Gem), ("reasoning_gym", ReasoningGym)):
        pytest.importorskip(name)
        random.seed(5)
        np.random.seed(5)
        before = random.random(), np.random.random()
        random.seed(5)
        np.random.seed(5)
        env = Dialogue(make())
        first, _ = env.reset(seed=1)
        env.step("<think></think><answer>[5]</answer>")
        assert (random.random(), np.random.random()) == before
        assert env.reset(seed=1)[0] == first


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(ImportError, match="pip install 'x'"):
        package("no_such_package_at_all", "pip install 'x'")
