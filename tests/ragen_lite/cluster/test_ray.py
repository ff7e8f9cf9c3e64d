"""Whole runs with Ray: the same bytes for any number of players, whoever dies, however stale.

One Ray serves all of them: a run joins it as it would join a cluster.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragen_lite.cluster import players
from ragen_lite.cluster.ray_host import RayHost
from ragen_lite.config.schema import ConfigError
from ragen_lite.learning import checkpoint_files
from tests.fixtures.commands import Result, run, start
from tests.fixtures.runs import SMALL, contents, folder, rows

ray = pytest.importorskip("ray")

LINE = ("env=frozen_lake", *SMALL, "train.steps=4", "engine.shard=5", "run.save_every=1")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def finished(cwd: Path, *arguments: str) -> Result:
    cwd.mkdir(exist_ok=True)
    result = run("train", *LINE, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def left_by(cwd: Path) -> dict[str, Any]:
    """All that must repeat; how often somebody died need not."""
    found = contents(folder(cwd), 4)
    for row in found["metrics"]:
        row.pop("rollout/lost_players", None)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run in one process leaves."""
    cwd = tmp_path_factory.mktemp("alone")
    finished(cwd)
    return left_by(cwd)


@pytest.mark.parametrize("workers", [1, 2, pytest.param(3, marks=pytest.mark.gate)])
def test_any_number_of_players_leaves_the_same_bytes(
    tmp_path: Path, alone: dict[str, Any], workers: int
) -> None:
    result = finished(tmp_path, f"engine.workers={workers}")
    assert "Ray: joined the cluster" in result.words
    assert left_by(tmp_path) == alone


def pids() -> list[int]:
    """The processes of Ray's actors that have begun."""
    listed = subprocess.run(["pgrep", "-f", "^ray::Actor"], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


class Killer:
    """Kills a player at a random moment of every rollout, until it has killed enough."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int, most: int) -> None:
        self.draw = random.Random(seed)
        self.killed = 0
        self.most = most
        self.longest = 1.0
        play = players.Players.play

        def watched(*arguments: Any, **named: Any) -> Any:
            timer = threading.Timer(self.draw.uniform(0, self.longest), self.kill)
            timer.start()
            began = time.monotonic()
            try:
                return play(*arguments, **named)
            finally:
                timer.cancel()
                self.longest = min(1.0, time.monotonic() - began)

        monkeypatch.setattr(players.Players, "play", watched)

    def kill(self) -> None:
        found = pids()
        if found and self.killed < self.most:
            os.kill(self.draw.choice(found), signal.SIGKILL)
            self.killed += 1


def killed_at_random(
    cwd: Path, monkeypatch: pytest.MonkeyPatch, alone: dict[str, Any], seed: int, most: int
) -> int:
    with monkeypatch.context() as patch:
        killer = Killer(patch, 100 * most + seed, most)
        finished(cwd, "engine.workers=2", "engine.restarts=100")
        assert left_by(cwd) == alone
    return killer.killed


@pytest.mark.parametrize("trials", [pytest.param(4, marks=pytest.mark.gate), 16])
def test_players_killed_at_random_moments_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: dict[str, Any], trials: int
) -> None:
    killed = 0
    for seed in range(trials):
        killed += killed_at_random(tmp_path / str(seed), monkeypatch, alone, seed, trials - killed)
        if killed == trials:
            return
    pytest.fail(f"only {killed} were killed")


@pytest.mark.gate
def test_staleness_leaves_the_same_bytes_on_slow_and_fast_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One background player without Ray, two with it, delays on either side."""
    finished(tmp_path / "process", "train.staleness=1")
    expected = left_by(tmp_path / "process")
    assert [row.get("rollout/age") for row in expected["metrics"][1:]] == [0, 1, 1, 1]
    play = players.Players.play

    def late(*arguments: Any, **named: Any) -> Any:
        time.sleep(1.0)
        return play(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(players.Players, "play", late)
        finished(tmp_path / "slow", "train.staleness=1", "engine.workers=2")
    assert left_by(tmp_path / "slow") == expected
    monkeypatch.setattr("ragen_lite.train.average_metrics", slowly(1.0))
    finished(tmp_path / "learner", "train.staleness=1", "engine.workers=1")
    assert left_by(tmp_path / "learner") == expected


def slowly(seconds: float) -> Any:
    from ragen_lite.learning.mini_batches import average_metrics

    def average(*arguments: Any) -> Any:
        time.sleep(seconds)
        return average_metrics(*arguments)

    return average


def test_two_learners_repeat_themselves_and_resume_as_one(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    both = ("engine.workers=1", "train.workers=2")
    finished(tmp_path / "one", *both)
    finished(tmp_path / "other", *both)
    left = left_by(tmp_path / "one")
    assert left == left_by(tmp_path / "other")
    # The gradient is the single learner's, to rounding.
    for a, b in zip(left["metrics"], alone["metrics"], strict=True):
        for name in ("train/loss", "train/grad_norm", "train/entropy"):
            assert name not in a or abs(a[name] - b[name]) < 1e-3 * max(1.0, abs(b[name])), name
    # Begun with two, it goes on with one, and back.
    run_folder = folder(tmp_path / "one")
    for steps, line in ((5, ()), (6, both)):
        result = finished(
            tmp_path / "one", *line, f"train.steps={steps}", f"run.resume={run_folder}"
        )
        assert f"after step {steps - 1}" in result.words
    assert [row["step"] for row in rows(run_folder)] == list(range(7))


def kill_a_learner_after(step: int, cwd: Path) -> threading.Thread:
    """Kill one as soon as a step's trajectories are there."""

    def wait_and_kill() -> None:
        until = time.monotonic() + 120
        while not list((cwd / "runs").glob(f"*/trajectories/step-{step}.jsonl.gz")):
            if time.monotonic() > until:
                return
            time.sleep(0.01)
        os.kill(random.Random(step).choice(pids()), signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_a_killed_learner_is_started_again_from_the_newest_checkpoint(tmp_path: Path) -> None:
    finished(tmp_path / "whole", "train.workers=2")
    cwd = tmp_path / "killed"
    cwd.mkdir()
    thread = kill_a_learner_after(2, cwd)
    result = finished(cwd, "train.workers=2")
    thread.join()
    assert "the learners are started again, 0 restarts are left" in result.words
    assert left_by(cwd) == left_by(tmp_path / "whole")


def test_a_run_without_restarts_ends_and_names_its_checkpoint(tmp_path: Path) -> None:
    thread = kill_a_learner_after(2, tmp_path)
    result = run("train", *LINE, "train.workers=2", "train.restarts=0", cwd=tmp_path)
    thread.join()
    assert result.returncode == 2 and "a learner of 2 was lost" in result.stderr
    newest = checkpoint_files.steps(folder(tmp_path) / "checkpoints")[0][1]
    assert f"checkpoints/{newest.name}; go on with run.resume=auto" in result.words


def test_a_learner_killed_while_a_batch_is_sampled_ahead_ends_nothing_else(tmp_path: Path) -> None:
    """No engine was asked for: staleness brings one, in the same Ray."""
    line = ("train.workers=2", "train.staleness=1")
    finished(tmp_path / "whole", *line)
    cwd = tmp_path / "killed"
    cwd.mkdir()
    thread = kill_a_learner_after(2, cwd)
    finished(cwd, *line, "engine.restarts=5")
    thread.join()
    assert left_by(cwd) == left_by(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_a_batch_that_is_sampled_ahead_saves_the_whole_step(
    tmp_path: Path, number: signal.Signals
) -> None:
    line = [each for each in LINE if not each.startswith(("run.save_every", "train.steps"))]
    line += ["train.staleness=1", "run.save_every=50", "train.steps=8"]
    whole, cwd = tmp_path / "whole", tmp_path / "cut"
    for each in (whole, cwd):
        each.mkdir()
    assert run("train", *line, cwd=whole).returncode == 0
    process = start("train", *line, cwd=cwd)
    until = time.monotonic() + 150
    while not list((cwd / "runs").glob("*/trajectories/step-3.jsonl.gz")):
        assert process.poll() is None and time.monotonic() < until, "step 3 was never made"
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert run("train", *line, "run.resume=auto", cwd=cwd).returncode == 0
    assert contents(folder(cwd), 8) == contents(folder(whole), 8)


def test_a_killed_driver_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    line = ("train.staleness=1", "engine.workers=2")
    finished(tmp_path / "whole", *line)
    cwd = tmp_path / "killed"
    cwd.mkdir()
    process = start("train", *LINE, *line, cwd=cwd)
    until = time.monotonic() + 150
    while not list((cwd / "runs").glob("*/checkpoints/step-2/trainer/manifest.json")):
        assert process.poll() is None and time.monotonic() < until, "step 2 was never saved"
        time.sleep(0.02)
    process.kill()
    process.wait()
    finished(cwd, *line, "run.resume=auto")
    assert left_by(cwd) == left_by(tmp_path / "whole")


def test_what_a_cluster_does_not_have_is_said() -> None:
    with pytest.raises(ConfigError, match=re.escape("asked for 7 engines with 0 GPU each and 2")):
        RayHost(7, 1, 2, lambda text: None)
    with pytest.raises(ConfigError, match="that is 9 CPUs, and the cluster has 8"):
        RayHost(7, 1, 2, lambda text: None)
