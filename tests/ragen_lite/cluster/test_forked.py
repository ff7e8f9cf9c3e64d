"""Engines that are forked off where a step has several shards: when, and that they change no byte."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ragen_lite.agents.engines import threads as engine_threads
from ragen_lite.cluster.hosts import ProcessHost
from ragen_lite.config.schema import Config, ModelConfig
from ragen_lite.models.loading import load_policy
from ragen_lite.opening import engines_of, forked
from tests.fixtures.commands import run
from tests.fixtures.runs import SMALL, contents, folder

LINE = ("env=bandit", *SMALL, "train.steps=2", "eval.every=0", "engine.shard=5")

POLICY = load_policy(ModelConfig())


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def configured(**changed: Any) -> Config:
    """Twelve trajectories a step, in shards of five; ``engine_shard=12`` is engine.shard."""
    config = Config()
    config.train.groups, config.train.group_size = 3, 4
    config.engine.name, config.engine.shard = "torch", 5
    for name, value in changed.items():
        part, _, key = name.partition("_")
        setattr(getattr(config, part), key, value)
    return config


def count(**changed: Any) -> int:
    return forked(configured(**changed), POLICY)


def test_one_a_shard_at_most_as_many_as_threads(threads: Callable[[int], None]) -> None:
    found = []
    for number in (1, 2, 3, 8):
        threads(number)
        found.append(count())
    assert found == [0, 2, 3, 3]
    assert count(engine_shard=12) == count(engine_shard=None) == 0


def test_none_where_the_user_says_how_many_or_somebody_else_works(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(4)
    assert count(engine_workers=0) == count(engine_name="vllm") == 0
    assert count(train_workers=2) == count(train_staleness=1) == 0
    assert engines_of(configured(train_staleness=1)) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert count() == 0
    monkeypatch.undo()
    assert count() == 3
    monkeypatch.setattr(engine_threads, "SMALL", 1000)
    assert count() == 0
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert count() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_forked_engines_leave_the_same_bytes(
    tmp_path: Path, threads: Callable[[int], None]
) -> None:
    found = []
    threads(2)
    for own in ((), ("engine.workers=0",)):
        cwd = tmp_path / str(len(found))
        cwd.mkdir()
        result = run("train", *LINE, *own, cwd=cwd)
        assert result.returncode == 0, result.stdout + result.stderr
        assert ("2 engines play" in result.words) == (not own)
        found.append(contents(folder(cwd), 2))
    assert found[0] == found[1]


class Talker:
    """A worker that prints."""

    def __init__(self, setup: None) -> None:
        pass

    def talk(self) -> int:
        print("x")
        return 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_a_forked_worker_prints_without_the_locks_of_the_live_view() -> None:
    host = ProcessHost("fork")
    stream = io.StringIO()
    # What a lock that the view's own thread held at the fork does, for certain.
    with contextlib.redirect_stdout(stream), Held(stream):
        worker = host.start(Talker, None)
        call = host.call(worker, "talk")
        assert host.wait([call], 60) == [call] and host.result(call) == 1
    host.close()


class Held:
    """Makes a stream's writes wait for a lock, which is held within it."""

    def __init__(self, stream: io.StringIO) -> None:
        self.lock = threading.Lock()
        write = stream.write

        def waiting(text: str) -> int:
            with self.lock:
                return write(text)

        stream.write = waiting  # type: ignore[method-assign]

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *failed: object) -> None:
        self.lock.release()
