"""The contract of a task, over everything that ragen_lite registers. A new task needs no line here."""

from __future__ import annotations

import pytest

from ragen_lite.envs.spaces import CHARSET, AnyText
from ragen_lite.testing import (
    CHECKS,
    Task,
    _first_messages,
    another_process_agrees,
    in_another_process,
    vector_env_agrees,
)
from tests.fixtures.installed import INSTALLED as TASKS

ALONE = [name for name, check in CHECKS.items() if check is not another_process_agrees]


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("check", ALONE)
def test_a_task_keeps_the_contract(env_id: str, check: str) -> None:
    CHECKS[check](Task(env_id))


def test_another_process_agrees_on_every_task_and_loads_no_torch() -> None:
    tasks = [Task(env_id) for env_id in TASKS]
    for task, found in zip(tasks, in_another_process(tasks), strict=True):
        assert found == _first_messages(task), task.env_id


@pytest.mark.parametrize("env_id", TASKS)
def test_messages_are_of_the_charset_that_the_tokenizer_knows(env_id: str) -> None:
    env = Task(env_id).make()
    if isinstance(env.unwrapped.observation_space, AnyText):
        return
    for seed in range(20):
        assert set(env.reset(seed=seed)[0]) <= CHARSET, seed


def test_a_task_runs_in_an_async_vector_env() -> None:
    vector_env_agrees(Task("ragen_lite/Sokoban-v0"))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", TASKS)
def test_every_task_runs_in_an_async_vector_env(env_id: str) -> None:
    vector_env_agrees(Task(env_id))
