"""Workers in processes of this machine: what they answer, raise, and leave when they die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from ragen_lite.cluster.hosts import ProcessHost, WorkerLost


class Counter:
    """A worker that counts, fails and sleeps."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("it begins at 0")
        self.number = start

    def add(self, more: int) -> int:
        self.number += more
        return self.number

    def fail(self) -> None:
        raise KeyError("nothing there")

    def sleep(self) -> None:
        time.sleep(60)

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(params=["spawn", "fork"])
def host(request: pytest.FixtureRequest) -> Iterator[ProcessHost]:
    made = ProcessHost(request.param)
    yield made
    made.close()


def test_a_worker_keeps_what_it_was_told_and_raises_what_it_meets(host: ProcessHost) -> None:
    worker = host.start(Counter, 3)
    calls = [host.call(worker, "add", 1), host.call(worker, "add", 2)]
    assert [host.result(call) for call in calls] == [4, 6]
    assert host.wait(calls, 1) == calls
    with pytest.raises(KeyError, match="nothing there"):
        host.result(host.call(worker, "fail"))
    assert host.result(host.call(worker, "add", host.share(1))) == 7
    assert host.result(host.call(worker, "pid")) != os.getpid()


def test_why_a_worker_cannot_be_made_is_said_by_its_first_call(host: ProcessHost) -> None:
    worker = host.start(Counter, -1)
    with pytest.raises(ValueError, match="it begins at 0"):
        host.result(host.call(worker, "add", 1))


def kill(host: ProcessHost, worker: ProcessPoolExecutor) -> None:
    os.kill(host.result(host.call(worker, "pid")), signal.SIGKILL)


def test_a_killed_worker_is_lost_whether_it_was_busy_or_not(host: ProcessHost) -> None:
    idle, busy, other = (host.start(Counter, 0, place) for place in range(3))
    kill(host, idle)
    pid = host.result(host.call(busy, "pid"))
    waiting = host.call(busy, "sleep")
    assert host.wait([waiting], 0.1) == []
    os.kill(pid, signal.SIGKILL)
    assert host.wait([waiting], 30) == [waiting]
    for call in (waiting, host.call(busy, "add", 1), host.call(idle, "add", 1)):
        with pytest.raises(WorkerLost, match="its process ended"):
            host.result(call)
    assert host.result(host.call(other, "add", 1)) == 1


def test_a_stop_is_for_the_run_alone(host: ProcessHost) -> None:
    worker = host.start(Counter, 3)
    os.kill(host.result(host.call(worker, "pid")), signal.SIGTERM)
    assert host.result(host.call(worker, "add", 1)) == 4


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_is_stopped_ends_at_once(host: ProcessHost) -> None:
    worker = host.start(Counter, 0)
    pid = host.result(host.call(worker, "pid"))
    host.call(worker, "sleep")
    host.stop(worker)
    for _ in range(600):
        if not alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("it sleeps on")
