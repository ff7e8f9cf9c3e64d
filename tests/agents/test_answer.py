"""Values that are not ours, at the one door they come in by."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.agents.answer import EnvFailure, plain, read
from ragen_lite.agents.environments import EnvSpec, Handle
from ragen_lite.agents.scripted import random_policy

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            ("caf\udce9", 0.0, False, False, {}),
            r"the observation holds half a character, '\\udce9'",
        ),
        (("x", 0.0, False, False, CYCLE), "nested more than 40 deep, or holds itself"),
        (("x", 0.0, False, False, {"a": deep(5000)}), "nested more than 40 deep"),
        (("x", 0.0, False, False, {"a": 10**5000}), "an integer of 16610 bits"),
        (("x", 0.0, False, False, {"a": ["\ud800"]}), "info holds half a character"),
        (("x", 0.0, False, False, {"\ud800": 1}), "info holds half a character"),
        (("x", 0.0, False, False, {"success": np.array([0, 1])}), "neither true nor false"),
        (("x", 0.0, np.array([0, 1]), False, {}), "terminated is .* neither true nor false"),
        (("x", "much", False, False, {}), "the reward is 'much', not a number"),
        (("x", np.array([1.0, 2.0]), False, False, {}), "the reward is .* not a number"),
        (("x", float("inf"), False, False, {}), "the reward is inf, not a finite number"),
        ((7, {}), "the observation is int, not text"),
        (("x", None), "info is NoneType, not a dict"),
        ("nothing", "step returned 'nothing'"),
    ],
)
def test_what_no_record_can_hold_is_the_environments_failure(result: Any, message: str) -> None:
    with pytest.raises(EnvFailure, match=message):
        read(result, "rules")


def test_typed_fields_are_taken_out_of_info_and_the_rest_is_data() -> None:
    info = {
        "actions": ["Up"],
        "unreadable": None,
        "regret": np.float64(1.0),
        "deadlock": False,
        "success": np.bool_(True),
        "size": np.int64(3),
        "worst": float("inf"),
    }
    answer = read(("x", np.float32(0.5), False, True, info), "rules", "Up")
    assert (answer.actions, answer.regret, answer.deadlock) == (("Up",), 1.0, False)
    assert answer.success and answer.over and answer.system == "rules" and answer.reply == "Up"
    assert answer.info == {"success": True, "size": 3, "worst": "inf"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("regret", "some"), ("actions", 4), ("deadlock", np.array([0, 1])), ("unreadable", 7)],
)
def test_what_does_not_fit_a_typed_field_stays_its_owners(name: str, value: Any) -> None:
    answer = read(("x", {name: value}), "")
    assert getattr(answer, name) is None
    assert list(answer.info) == [name]


def test_a_task_in_anybodys_info_is_no_mixtures_label() -> None:
    info = {"task": "find the blue door"}
    assert read(("x", info), "").task is None
    assert read(("x", info), "").info == info
    assert read(("x", info), "", mixture=True).task == "find the blue door"


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(observation=st.text(), info=st.dictionaries(st.text(), values), reward=st.floats())
def test_any_answer_is_data_or_a_failure(
    observation: str, info: dict[str, Any], reward: float
) -> None:
    """Whatever an environment says, what comes through can be written and encoded."""
    try:
        answer = read((observation, reward, False, False, info), "")
    except EnvFailure:
        return
    json.dumps(answer.info, allow_nan=False)
    answer.observation.encode()
    assert json.loads(json.dumps(plain(answer.info))) == answer.info


def test_an_environment_that_leaves_the_process_fails_alone() -> None:
    class Leaving:
        system = ""
        unwrapped = None

        def reset(self, **kwargs: Any) -> Any:
            raise SystemExit("done")

    handle = Handle(Leaving())  # type: ignore[arg-type]
    handle.reset(0, {"member": 0})
    with pytest.raises(EnvFailure, match="SystemExit: done"):
        handle.take()


def test_a_time_limit_that_is_no_number_is_refused_where_the_task_is_made() -> None:
    spec = EnvSpec("envs_for_tests:ragen_lite_tests/Guess-v0", {"time_limit": "10s"})
    with pytest.raises(ValueError, match="time_limit is '10s': give seconds"):
        spec.open()


def test_a_process_brings_the_same_answer_as_this_one() -> None:
    here = EnvSpec("envs_for_tests:ragen_lite_tests/Guess-v0").open()
    there = EnvSpec("envs_for_tests:ragen_lite_tests/Guess-v0", {"time_limit": 20.0}).open()
    answers = []
    for handle in (here, there):
        handle.reset(1, {"split": "train", "member": 0})
        first = handle.take()
        handle.act(random_policy)
        answers.append((first, handle.take()))
        handle.close()
    assert answers[0] == answers[1]
