"""Runs in processes of their own: killed, stopped by a signal, called as the README says."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.commands import environment, start
from tests.fixtures.runs import SMALL, contents, folder

TEN = (*SMALL, "train.steps=10", "train.schedule=linear")


FORKED = ("engine.shard=5",)  # with more than one thread: by engines that are forked off


def command(
    name: str, *arguments: str, cwd: Path, threads: int = 1
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "ignore", "-m", f"ragen_lite.{name}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment(threads))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_kill_and_resume_equals_never_stopping(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    result = command("train", *TEN, cwd=whole)
    assert result.returncode == 0, result.stdout + result.stderr
    process = start("train", *TEN, cwd=tmp_path)
    until = time.monotonic() + 150
    while not list((tmp_path / "runs").glob("*/checkpoints/step-5/trainer/manifest.json")):
        assert process.poll() is None and time.monotonic() < until, "step 5 was never saved"
        time.sleep(0.02)
    process.kill()
    process.wait()
    result = command("train", *TEN, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "resuming" in result.stdout
    assert contents(folder(tmp_path), 10) == contents(folder(whole), 10)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_forked_engines_leave_the_same_bytes_killed_or_not(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert command("train", *TEN, *FORKED, cwd=whole).returncode == 0
    process = start("train", *TEN, *FORKED, cwd=tmp_path, threads=2)
    until = time.monotonic() + 150
    while not list((tmp_path / "runs").glob("*/checkpoints/step-5/trainer/manifest.json")):
        assert process.poll() is None and time.monotonic() < until, "step 5 was never saved"
        time.sleep(0.02)
    engines = children(process.pid)
    assert len(engines) == 2
    process.kill()
    process.wait()
    result = command("train", *TEN, *FORKED, "run.resume=auto", cwd=tmp_path, threads=2)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 engines play" in result.stdout
    assert contents(folder(tmp_path), 10) == contents(folder(whole), 10)
    assert not any(Path(f"/proc/{pid}").exists() for pid in engines)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.gate), signal.SIGINT]
)
def test_a_signal_saves_and_leaves_cleanly(
    tmp_path: Path, number: signal.Signals, threads: int
) -> None:
    line = (*SMALL, *FORKED, "train.steps=500", "run.save_every=100")
    process = start("train", *line, cwd=tmp_path, threads=threads)
    until = time.monotonic() + 90
    while sum(1 for f in (tmp_path / "runs").glob("*/metrics.jsonl") for _ in f.open()) < 3:
        assert process.poll() is None and time.monotonic() < until, "no step was ever logged"
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "run.resume=auto" in output and "Traceback" not in output
    assert any((folder(tmp_path) / "checkpoints").glob("step-*"))
    assert (folder(tmp_path) / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_during_an_evaluation_is_heard(tmp_path: Path, threads: int) -> None:
    line = (*SMALL, *FORKED, "train.steps=2", "eval.instances=5000")
    process = start("train", *line, cwd=tmp_path, threads=threads)
    assert process.stdout is not None
    for line in process.stdout:
        if "measuring the starting policy" in line:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "nothing to go on from" in output, output
