"""Warnings of a collapse: each in a run that really collapses that way, and none in one that does not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragen_lite.agents.trajectory import Outcome, Trajectory
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.prompt_information import prompt_information
from ragen_lite.runs.collapse import SIGNS, signs, warnings
from tests.fixtures.commands import run
from tests.fixtures.making import trajectory, turn
from tests.fixtures.runs import folder, rows

REWARDED = (
    "env=envs_for_tests:ragen_lite_tests/Rewarded-v0",
    "train.groups=4",
    "train.mini_batches=2",
    "train.schedule=constant",
    "eval.every=0",
    "eval.instances=2",
)


@pytest.mark.slow
@pytest.mark.gate
def test_a_run_that_falls_for_short_replies(tmp_path: Path) -> None:
    """Short replies earn more and nothing succeeds: replies shrink, all become one, and no group differs."""
    line = [*REWARDED, "env.kwargs.short=true", "filter=spread", "train.lr=1e-3", "train.steps=20"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in SIGNS:
        assert f": {name}: " in result.words, name
    made = [row for row in rows(folder(tmp_path)) if "rollout/success" in row]
    assert made[-1]["rollout/reply_tokens"] < made[0]["rollout/reply_tokens"] / 2
    assert made[-1]["rollout/return_spread"] < made[0]["rollout/return_spread"] / 4


@pytest.mark.slow
def test_a_task_that_nothing_is_earned_in(tmp_path: Path) -> None:
    line = [*REWARDED, "env.kwargs.short=false", "train.steps=7", "train.group_size=2"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    # Said once, when it begins.
    assert result.words.count("warning after step") == 1
    assert (
        "warning after step 6: all groups dropped: no group passed the filter in 3" in result.words
    )


def row(step: int, **values: Any) -> dict[str, Any]:
    healthy = {
        "rollout/success": 0.3,
        "rollout/kept_groups": 1.0,
        "rollout/reply_tokens": 20.0,
        "rollout/return_spread": 1.0,
        "train/entropy": 0.8,
    }
    given = {name.replace("__", "/"): value for name, value in values.items()}
    return {"step": step, **healthy, **given}


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ({}, []),
        ({"rollout__kept_groups": 0.0}, ["all groups dropped"]),
        ({"train__entropy": 0.1}, ["entropy collapse"]),
        ({"rollout__reply_tokens": 9.0}, ["length collapse"]),
        ({"rollout__return_spread": 0.2, "train__entropy": 0.3}, ["echo trap"]),
        ({"rollout__return_spread": 0.2}, []),
        # Nothing was learnt, so no entropy was measured.
        ({"rollout__kept_groups": 0.0, "train__entropy": None}, ["all groups dropped"]),
        ({"rollout__kept_groups": 0.0, "rollout__success": 1.0}, []),
        # Sure of itself, short and alike, since it has learnt.
        ({"train__entropy": 0.1, "rollout__reply_tokens": 5.0, "rollout__success": 0.5}, []),
    ],
)
def test_signs(late: dict[str, Any], expected: list[str]) -> None:
    early = [row(step) for step in (1, 2, 3)]
    made = early + [row(step, **late) for step in (4, 5, 6)]
    assert signs(made) == expected and signs(made[:5]) == []
    assert [w.split(": ")[1] for w in warnings(made)] == expected
    assert warnings([*made, row(7, **late)]) == []


def played(first: int, reply: int) -> Trajectory:
    """A prompt of one token and a reply of one."""
    t = trajectory([turn(1, 2, 0.0)], 2, Outcome.FAILURE)
    context = type(t.contexts[0])((first, reply), (False, True), (0.0, 0.0))
    return type(t)(env_id="e", seed=0, turns=t.turns, contexts=(context,), outcome=t.outcome)


def test_what_replies_tell_of_their_prompts() -> None:
    def copying(samples: Any) -> list[np.ndarray[Any, Any]]:
        """A policy that says its prompt, with probability 0.8, else the other."""
        return [
            np.log([0.8 if s.token_ids[0] == s.token_ids[1] else 0.2])
            for s in list[Sample](samples)
        ]

    def deaf(samples: Any) -> list[np.ndarray[Any, Any]]:
        return [np.log([0.5]) for _ in samples]

    pair = [played(3, 3), played(4, 4)]
    assert prompt_information(pair, copying) == pytest.approx(math.log(0.8 / 0.5))
    assert prompt_information(pair, deaf) == pytest.approx(0)
    assert prompt_information([pair[0], pair[0]], deaf) is None
