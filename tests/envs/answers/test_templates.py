"""Questions as the published systems put them, their rewards, and their data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragen_lite.envs.answers.arithmetic import Multiplication
from ragen_lite.envs.answers.countdown import Countdown
from ragen_lite.envs.answers.knights_knaves.task import KnightsKnaves
from ragen_lite.envs.answers.math.task import Math
from ragen_lite.envs.answers.rewards.attempt import Attempt
from ragen_lite.envs.answers.rewards.table import PRESETS, REWARDS
from ragen_lite.envs.answers.templates import (
    TEMPLATES,
    first_answer,
    last_answer,
    last_line_answer,
)
from ragen_lite.envs.dialogue import Dialogue

TASKS = {
    "countdown": Countdown,
    "kk": KnightsKnaves,
    "multiplication": Multiplication,
    "math": Math,
}
PREFILL = TEMPLATES["mini_r1"].prefill


@given(st.lists(st.sampled_from(["<answer>", "</answer>", "1", " 2", "<an", "\n"]), max_size=12))
def test_the_last_answer_is_the_one_of_the_published_expression(parts: list[str]) -> None:
    reply = "".join(parts)
    found = re.findall(r"<answer>(.*?)</answer>", reply, re.DOTALL)
    assert last_answer(reply) == (found[-1].strip() if found else None)


def fixed_countdown(template: str, reward: str, numbers: list[int], target: int) -> Dialogue:
    task = Countdown(template=template, reward=reward)
    env = Dialogue(task)
    env.reset(seed=0)
    task.numbers = tuple(numbers)
    task.target = target
    return env


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", TASKS)
def test_every_template_puts_every_task_and_reads_its_own_replies(name: str, template: str) -> None:
    if name == "kk" and template in ("abel", "none", "tinyzero", "mini_r1", "unlock_deepseek"):
        # They read one line, and these answers have a line a person.
        with pytest.raises(ValueError, match="reads no answer such as"):
            KnightsKnaves(template=template, reward="accuracy")
        return
    zh = {"language": "zh"} if (name, template) == ("countdown", "unlock_deepseek") else {}
    env = Dialogue(TASKS[name](template=template, reward="accuracy", **zh))
    for seed in range(5):
        message, info = env.reset(seed=seed)
        assert info["prefill"] == TEMPLATES[template].prefill
        assert "{question}" not in message and "{example}" not in message
        task: Any = env.unwrapped
        _, (taught,) = task.demonstrate(np.random.default_rng(0))
        for reply in (task.solve()[0], taught):
            assert reply.startswith(info["prefill"])
            _, reward, terminated, _, after = env.step(reply)
            assert reward == 1.0 and terminated and after["success"]
            env.reset(seed=seed)
        _, reward, _, _, after = env.step(f"{info['prefill']} ...")
        assert reward == 0.0 and not after["success"]


# ---- published values ----


# mini-deepseek-r1's own five cases: its notebook prefills "<think>" in the format reward.
THOUGHT = "We need 55 out of 19, 36 and 7.</think>"
CASES = [
    (THOUGHT + "\n<answer> 55 + 36 - 7 - 19 </answer>", 1.0, 1.0),
    (THOUGHT + "\n<answer> 55 + 36 - 7 - 19 = 65 </answer>", 1.0, 0.0),
    (THOUGHT + "</think>\n<answer>55 + 36 - 7 - 19</answer>", 0.0, 1.0),
    ("55 + 36 - 7 - 19", 0.0, 0.0),
    (THOUGHT + "\n<answer>55 + 36 - 7 - 18</answer>", 1.0, 0.0),
]


@pytest.mark.parametrize(("rest", "form", "equation"), CASES)
def test_mini_r1(rest: str, form: float, equation: float) -> None:
    env = fixed_countdown("mini_r1", "mini_r1", [19, 36, 55, 7], 65)
    _, reward, _, _, info = env.step(PREFILL + rest)
    assert info["rewards"] == {"mini_r1_format": form, "accuracy": equation}
    assert reward == form + equation


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        ("a</think>\n<answer>(19 + 36) + 55 - 45</answer>", 0.1),  # other numbers
        ("a</think>\n<answer>55 + 36 - 7 - 19</answer>", 1.0),
        ("a</think>\n<answer>55 + 36 - 7 - 20</answer>", 0.1),
        ("a</think>\n<answer>55 + 36 - 7 - 19</answer>\n", 0.0),  # the last line is empty
        ("a</think>\n<answer>55 + 36\n- 7 - 19</answer>", 0.0),  # over two lines
        ("a</think>\n<answer>1</answer><answer>55 + 36 - 7 - 19</answer>", 1.0),  # the last counts
        ("a</think>\n<answer>1/0</answer>", 0.1),
        ("nothing", 0.0),
    ],
)
def test_tinyzero_countdown(rest: str, value: float) -> None:
    env = fixed_countdown("tinyzero", "tinyzero", [19, 36, 55, 7], 65)
    assert env.step(TEMPLATES["tinyzero"].prefill + rest)[1] == value


@pytest.mark.parametrize(
    ("answer", "value"), [("42", 1.0), ("41", 0.1), ("56,088", 0.0), ("42.0", 0.0), ("-42", 0.1)]
)
def test_tinyzero_multiplication(answer: str, value: float) -> None:
    task = Multiplication(template="tinyzero", reward="tinyzero")
    env = Dialogue(task)
    env.reset(seed=0)
    task.answer = 42
    assert env.step(task.reply_with(answer))[1] == value


def test_logic_rl() -> None:
    task = KnightsKnaves(min_people=3, max_people=3, template="logic_rl")
    env = Dialogue(task)

    def total(change: Any) -> float:
        env.reset(seed=3)
        return float(env.step(change(task.solve()[0]))[1])

    first, *_ = task.puzzle.names if hasattr(task, "puzzle") else ("",)
    assert total(lambda reply: reply) == 3.0
    flipped = {"knight": "knave", "knave": "knight"}

    def flip(reply: str) -> str:
        head, line, rest = reply.partition(f"{task.puzzle.names[0]} is a ")
        return head + line + flipped[rest[: rest.index("\n")]] + rest[rest.index("\n") :]

    assert total(flip) == -0.5
    assert total(lambda reply: reply.replace(f" {task.puzzle.names[1]} is a ", " ")) == -1.0
    assert total(lambda reply: reply.replace(" is a ", ": ")) == -1.0
    assert total(lambda reply: reply.replace("</think>", "")) == -3.0
    assert total(lambda reply: reply + "<answer>again</answer>") == -3.0
    assert total(lambda reply: "<answer>x</answer></think>") == -3.0


def test_how_each_reads() -> None:
    assert first_answer("<answer> a </answer><answer>b</answer>") == "a"
    assert first_answer("<answer>a\nb</answer>") is None and first_answer("<answer>a") is None
    assert first_answer("<answer>a\n</answer> <answer>b</answer>") == "b"
    assert last_line_answer("<answer>a</answer>\n<answer>b</answer>") == "b"
    read = TEMPLATES["deepscaler"].read
    assert read("<think>\\boxed{1}</think> so \\boxed{2} \\boxed{3}") == "3"
    assert read("<think> \\boxed{1}") is None


def test_weights_are_the_users_and_every_preset_fits_a_template() -> None:
    task = Countdown(template="mini_r1", reward={"accuracy": 2.0, "mini_r1_format": 0.5})
    env = Dialogue(task)
    env.reset(seed=0)
    assert env.step(task.solve()[0])[1] == 2.5  # type: ignore[index]
    for reward in PRESETS:
        fits = []
        for template in TEMPLATES:
            try:
                fits.append(Math(template=template, reward=reward))
            except ValueError as error:
                assert "asks for, not" in str(error)
        assert fits
    with pytest.raises(ValueError, match="need a template"):
        Countdown(reward={"accuracy": 1.0})
    with pytest.raises(ValueError, match="unknown template"):
        Countdown(template="chat")


def test_rewards_without_an_answer() -> None:
    nothing = Attempt("no tags", ("1",), None, lambda answer, gold: answer == gold)
    low = {"logic_rl_answer": -2.0, "logic_rl_format": -1.0, "simplerl": -1.0}
    for name, reward in REWARDS.items():
        if name not in ("reasoning_steps", "length", "overlong", "repetition", "cosine"):
            assert reward(nothing) == low.get(name, 0.0), name


# ---- data ----


def rows_file(tmp_path: Path, rows: list[Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_countdown_takes_published_rows(tmp_path: Path) -> None:
    rows = [{"nums": [i, i + 1, 3], "target": 2 * i + 4} for i in range(1, 41)]
    verl = {"numbers": [2, 5, 9], "target": 16}
    rows.append({"data_source": "countdown", "reward_model": {"ground_truth": verl}})  # type: ignore[dict-item]
    rows.append({"nums": [1], "target": 1})
    with pytest.warns(UserWarning, match="1 of 42 rows are malformed: line 42: nums must be"):
        env = Dialogue(Countdown(data=rows_file(tmp_path, rows)))
    seen = {}
    for split in ("train", "val", "test"):
        count = env.unwrapped.instance_count(split)
        assert count
        seen[split] = set()
        for seed in range(3 * count):
            env.reset(seed=seed, options={"split": split})
            seen[split].add(env.unwrapped.instance)
            assert env.unwrapped.solve() is not None
    assert not seen["train"] & seen["test"] and len(seen["val"]) == env.unwrapped.instance_count(
        "val"
    )
    _, info = env.reset(seed=0)
    assert info["difficulty"] == 3
    _, reward, *_ = env.step(env.write("", env.unwrapped.solve()))
    assert reward == 1.0


def test_a_published_puzzle_without_a_solution_is_played_and_not_solved(tmp_path: Path) -> None:
    task = Countdown(data=rows_file(tmp_path, [{"nums": [1, 1], "target": 99}]), min_numbers=2)
    task.reset(seed=0, options={"split": "all"})
    assert task.solve() is None
    with pytest.raises(RuntimeError, match="nothing to demonstrate"):
        task.demonstrate(np.random.default_rng(0))


def test_knights_and_knaves_takes_published_rows(tmp_path: Path) -> None:
    made = KnightsKnaves(min_people=3, max_people=4)
    rows = []
    for seed in range(40):
        made.reset(seed=seed)
        wording = made.puzzle.text().replace("So who is", "So who is  ").replace("  ", " ")
        rows.append({"quiz": wording, "solution": list(made.puzzle.solution)})
    rows.append({"quiz": rows[0]["quiz"], "solution": [not s for s in rows[0]["solution"]]})
    path = rows_file(tmp_path, rows)
    with pytest.warns(UserWarning, match="1 of 41 rows are malformed: line 41: the solution is"):
        task = KnightsKnaves(min_people=3, max_people=3, data=path)
    env = Dialogue(task)
    for seed in range(5):
        message, info = env.reset(seed=seed)
        assert info["difficulty"] == 3 and task.puzzle.wording in message
        assert env.step(env.write("", task.solve()))[4]["success"]
    for change in ("order", "leaf", "statement"):
        other = KnightsKnaves(min_people=3, max_people=3, data=path, perturb=change)
        other.reset(seed=0, options={"split": "all"})
        assert not other.puzzle.wording and len(other.puzzle.names) == 3


def test_a_folder_is_divided_as_its_names_say(tmp_path: Path) -> None:
    for name in ("train/a.jsonl", "test/a.jsonl", "testament.jsonl", "validation.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        count = len(name)
        rows = [{"nums": [count, i, 3], "target": 100 + i} for i in range(1, 41)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Countdown(data=str(tmp_path))
    assert task.instance_count("test") == 80
    counts = [task.instance_count(split) or 0 for split in ("train", "val")]
    assert sum(counts) == 80
    held = {len("test/a.jsonl"), len("validation.jsonl")}
    for seed in range(80):
        task.reset(seed=seed, options={"split": "test"})
        assert task.numbers[0] in held
    assert Countdown(data=str(tmp_path), max_numbers=3).instance_count("all") == 160
    with pytest.raises(ValueError, match="has no row in the train split"):
        Countdown(data=str(tmp_path), min_numbers=4).reset(seed=0)


def test_a_reward_for_the_exact_gold_does_not_pay_for_the_target() -> None:
    task = Countdown(template="gsm8k", reward="gsm8k_correctness")
    env = Dialogue(task)
    env.reset(seed=0)
    right = f"<answer>\n{task.known}\n</answer>"
    assert env.step(f"<answer>\n{task.target}\n</answer>")[1] == 0.0
    env.reset(seed=0)
    assert env.step(right)[1] == 2.0


def test_a_form_is_not_paid_for_behind_other_text() -> None:
    reply = "foo\n<think>a</think>\n<answer>1</answer>"
    form = REWARDS["mini_r1_format"]
    plain = Attempt(reply, ("1",), "1", lambda answer, gold: True)
    assert form(plain) == 0.0
    told = Attempt(reply, ("1",), "1", lambda answer, gold: True, prefill="foo\n<think>")
    assert form(told) == 1.0


def test_a_language_is_the_templates() -> None:
    with pytest.raises(ValueError, match="take language=zh"):
        Countdown(template="unlock_deepseek", reward="mini_r1")


def test_data_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        Countdown(data=str(tmp_path / "none.jsonl"))
