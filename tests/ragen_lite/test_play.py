"""play: what a person types is what is meant."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from rich.console import Console

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.play import as_reply, hint, innermost, play_person, player
from tests.fixtures.installed import INSTALLED


class Signs(gym.Env[str, int]):
    """Numbers that begin at 1, and names that look like markup."""

    observation_space = gym.spaces.Text(20)
    action_space = gym.spaces.Discrete(3, start=1)
    action_names = ("Rock", "Paper, wet", "[/look]")
    max_turns = 2

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        return "begin", {}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return f"played {action}", float(action), False, False, {}


@pytest.mark.parametrize("env_id", INSTALLED)
def test_the_line_that_the_hint_shows_is_read(env_id: str) -> None:
    env = EnvSpec(env_id).make()
    env.reset(seed=3)
    task = innermost(env)
    if not task.names:
        return
    example = hint(task).partition("such as: ")[2].partition(". The")[0]
    most = task.max_actions_per_turn
    first, last = task._first, task._first + len(task.names) - 1
    assert task.read(as_reply(task, example)) == [first, last][:most]


@pytest.mark.parametrize(
    ("line", "number"), [("rock", 1), ("r", 1), ("Paper, wet", 2), ("pap", 2), ("[/look]", 3)]
)
def test_a_name_means_its_number(line: str, number: int) -> None:
    env = Dialogue(Signs())
    env.reset(seed=0)
    assert env.read(as_reply(env, line)) == [number]


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    console = Console(record=True, width=200)
    lines = iter(["[/look]", ""])
    play_person(Dialogue(Signs()), 0, "train", console, lambda prompt: next(lines))
    shown = console.export_text()
    assert "such as: Rock. The" in shown and "[/look]" in shown and "played 3" in shown


def test_one_move_of_the_cube_that_begins_another() -> None:
    env = EnvSpec("ragen_lite/Rubik-v0").make()
    env.reset(seed=0)
    name = min(env.names, key=len)
    assert len([other for other in env.names if other.startswith(name)]) > 1
    assert env.read(as_reply(env, name.lower())) == [env.numbers[name.lower()]]


@pytest.mark.parametrize("template", ["r1", "qwen_boxed", "gsm8k"])
def test_a_right_answer_to_a_question_is_called_right(template: str) -> None:
    env = EnvSpec("ragen_lite/Math-v0", {"template": template}).make()
    console = Console(record=True, width=200)
    env.reset(seed=1, options={"split": "test"})
    gold: Any = env.unwrapped
    right = gold.row.golds[0]
    play_person(env, 1, "test", console, lambda prompt: right)
    assert "\nsolved, return" in console.export_text()


def test_a_mixtures_present_task_is_played() -> None:
    spec = EnvSpec("ragen_lite/Mix-v0", {"tasks": {"bandit": 1}})
    console = Console(record=True, width=200)
    env = spec.make()
    env.reset(seed=0)
    play_person(env, 0, "train", console, lambda prompt: innermost(env).names[0])
    assert "could not be read" not in console.export_text()


def test_a_models_arithmetic_is_no_model() -> None:
    assert player(["env=bandit", "model.dtype=float32"]) == ["model.path=human"]
    assert player(["model=tiny"]) == player(["model.path=random"]) == player(["--help"]) == []
