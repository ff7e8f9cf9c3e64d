"""Dialogue: what is readable, what it costs, what the policy sees."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.scripted import random_policy
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.envs.formats import PROTOCOLS, Unreadable, read_boxed, read_think_answer
from ragen_lite.envs.games.sokoban.levels import parse_level
from ragen_lite.envs.games.sokoban.task import Sokoban


def corridor(**options: Any) -> Dialogue:
    task = Sokoban(**{"max_actions": 6, "max_turns": 3, "max_actions_per_turn": 2, **options})
    env = Dialogue(task)
    env.reset(seed=0)
    message, _ = task.load(parse_level("#######\n#@ $ .#\n#######"))
    env._state = message
    return env


@pytest.mark.parametrize(
    "reply",
    [
        "<think></think><answer>Up</answer>",
        " <think>a</think>\n<answer> Up </answer>\n",
        "<think><</think><answer>Up</answer>",
    ],
)
def test_think_answer_reads(reply: str) -> None:
    assert read_think_answer(reply).strip() == "Up"


@pytest.mark.parametrize(
    "reply",
    ["Up", "<answer>Up</answer>", "<think>a</think>Up", "<answer>Up</answer><think></think>", "x<think></think><answer>U</answer>",
     "<think></think>x<answer>U</answer>", "<think></think><answer>U</answer>x", "<think><think></think><answer>U</answer>",
     "<think></think><answer>U</answer><answer>D</answer>", "<think></think><answer>U", "</think><think><answer>U</answer>",
     "<think>in <answer>D</answer></think><answer>U</answer>", "<think></answer></think><answer>U</answer>"],
)  # fmt: skip
def test_think_answer_refuses(reply: str) -> None:
    with pytest.raises(Unreadable):
        read_think_answer(reply)


def test_boxed_takes_the_last_and_balances_braces() -> None:
    assert read_boxed(r"so \boxed{1} or \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    for reply in ("12", r"\boxed{1", r"\boxed 1"):
        with pytest.raises(Unreadable):
            read_boxed(reply)


@given(st.text(max_size=200))
def test_no_reply_breaks_a_protocol(reply: str) -> None:
    for protocol in PROTOCOLS.values():
        try:
            assert isinstance(protocol.read(reply), str)
        except Unreadable as error:
            assert str(error)


def test_a_turn_carries_out_its_actions_and_sums_their_rewards() -> None:
    env = corridor()
    message, reward, terminated, truncated, info = env.step(
        "<think></think><answer>right || RIGHT</answer>"
    )
    assert reward == pytest.approx(-0.2) and not terminated and not truncated
    assert (
        info["actions"] == ["Right", "Right"]
        and info["unreadable"] is None
        and info["regret"] == 0.0
    )
    assert message == (
        "Turn 2:\nState:\n# # # # # # #\n# _ _ P X O #\n# # # # # # #\nP (1,3), X (1,4), O (1,5)\n"
        "You have 4 actions left. Always output: <think> [your thoughts] </think> <answer> [your answer] </answer>"
    )
    assert env.step("<think></think><answer>Right</answer>")[1:4] == (
        pytest.approx(10.9),
        True,
        False,
    )


def test_an_unreadable_turn_changes_nothing_and_says_why() -> None:
    env = corridor()
    before = env._state
    for reply in (
        "go right",
        "<think></think><answer>Right || Jump</answer>",
        "<think></think><answer></answer>",
    ):
        message, reward, _, _, info = env.step(reply)
        assert (
            reward == pytest.approx(-0.2)
            and info["unreadable"]
            and info["actions"] == []
            and env._state == before
        )
        assert (
            message.startswith("Your reply could not be read: ")
            and "You have 6 actions left" in message
        )
    assert env.turn == 4


def test_budgets_end_it() -> None:
    env = corridor()
    left = "<think></think><answer>Left || Left || Left || Left</answer>"
    assert env.step(left)[4]["actions"] == ["Left", "Left"]  # two a turn
    assert env.step(left)[2:4] == (False, False)
    assert env.step(left)[2:4] == (False, True)  # the third turn is the last
    env = corridor(max_actions=3, min_cost=1)
    env.step(left)
    assert env.step(left)[2:4] == (False, True)  # three actions in all


class Echo(gym.Env[str, int]):
    """Somebody's environment that knows nothing of ours."""

    observation_space = gym.spaces.Text(10)
    action_space = gym.spaces.Discrete(2, start=3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "hello", {}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "bye", float(action), True, False, {}


def test_any_gymnasium_env_with_text_works() -> None:
    env = Dialogue(Echo())
    assert "hello" in env.reset(seed=0)[0]
    reply = "<think></think><answer>4</answer>"
    assert env.read(reply) == [4] and env.write("", [4]) == reply
    assert env.step(reply)[1] == 4.0


class Slippery(Echo):
    """Chance enters at each step."""

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return f"{self.np_random.random():.6f}", 0.0, False, False, {}


def test_members_share_the_instance_and_differ_in_chance() -> None:
    env = Dialogue(Slippery())
    shown = {}
    for member in (0, 1, 0):
        first = env.reset(seed=4, options={"split": "train", "member": member})[0]
        shown.setdefault(member, []).append(
            (first, env.step("<think></think><answer>3</answer>")[0])
        )
    assert (
        shown[0][0] == shown[0][1]
        and shown[0][0][0] == shown[1][0][0]
        and shown[0][0][1] != shown[1][0][1]
    )


def test_spaces_that_are_no_text_and_unknown_protocols_are_refused() -> None:
    with pytest.raises(TypeError, match="Text observation space"):
        Dialogue(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="think_answer, answer, boxed, free"):
        Dialogue(Echo(), "xml")


def test_neither_chance_nor_the_scripted_policies_repeat_the_draws_of_the_instance() -> None:
    handle = EnvSpec("ragen_lite/Wordle-v0").open()
    task: Any = handle._env.unwrapped
    firsts = 0
    for seed in range(60):
        for member in (0, 1):
            handle.reset(seed, {"split": "train", "member": member})
            handle.take()
            streams = [np.random.default_rng(seed), task.np_random, handle._rng]
            assert len({int(stream.integers(2**62)) for stream in streams}) == 3
        handle.reset(seed, {"split": "train", "member": 0})
        handle.take()
        handle.act(random_policy)
        firsts += handle.take().success
    assert firsts <= 3  # one word in 483 is found at once by chance


class Described(gym.ObservationWrapper[str, int, str]):
    """Somebody's wrapper that says in words what another environment shows."""

    action_names = ("left", "right")
    max_turns = 3

    def instructions(self) -> str:
        return "Walk to the door."

    def observation(self, observation: str) -> str:
        return f"seen: {observation}"


class Walk(gym.Env[str, int]):
    """An environment whose ``guess`` and ``max_turns`` are its own affair."""

    observation_space = gym.spaces.Text(50)
    action_space = gym.spaces.Discrete(2)
    max_turns = 9

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        return "a corridor", {}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "a corridor", 0.0, False, False, {}

    def guess(self, number: int) -> bool:
        raise AssertionError("nobody asked for a guess")


def test_a_wrapper_says_the_rules_of_what_it_wraps() -> None:
    env = Dialogue(Described(Walk()))
    env.reset(seed=0)
    assert env.system == (
        "Walk to the door.\nThe actions are left, right. You have 3 turns, up to 1 actions a turn "
        "(separated by ||) and 3 actions in all."
    )
    assert env.read("<think></think><answer>right</answer>") == [1]
    assert env.step("<think></think><answer>left</answer>")[0].startswith("Turn 2:\nState:\nseen: ")
    assert env.guess(np.random.default_rng(0)) in ([0], [1])
