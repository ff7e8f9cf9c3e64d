"""Engines that are forked off where a step has several shards: when, and that they change no byte."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ragen_lite.config.command_line import compose
from ragen_lite.opening import engines_of, forked
from tests.fixtures.commands import run
from tests.fixtures.runs import SMALL, contents, folder

LINE = ("env=bandit", *SMALL, "train.steps=2", "eval.every=0", "engine.shard=5")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def count(*arguments: str) -> int:
    config = compose(["engine=torch", *LINE, *arguments])
    return forked(config)


def test_one_a_shard_at_most_as_many_as_threads(threads: Callable[[int], None]) -> None:
    found = []
    for number in (1, 2, 3, 8):
        threads(number)
        found.append(count())
    assert found == [0, 2, 3, 3]  # 12 trajectories are three shards of five
    assert count("engine.shard=12") == count("engine.shard=null") == 0


def test_none_where_the_user_says_how_many_or_somebody_else_works(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(4)
    for other in ("engine.workers=0", "train.workers=2", "train.staleness=1", "engine=vllm"):
        assert count(other) == 0
    assert engines_of(compose([*LINE, "train.staleness=1"])) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert count() == 0
    monkeypatch.undo()
    assert count() == 3
    monkeypatch.setattr(sys, "platform", "darwin")
    assert count() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_forked_engines_leave_the_same_bytes(
    tmp_path: Path, threads: Callable[[int], None]
) -> None:
    found = []
    for number in (1, 2):
        threads(number)
        cwd = tmp_path / str(number)
        cwd.mkdir()
        result = run("train", *LINE, cwd=cwd)
        assert result.returncode == 0, result.stdout + result.stderr
        assert ("2 engines play" in result.words) == (number == 2)
        found.append(contents(folder(cwd), 2))
    assert found[0] == found[1]
