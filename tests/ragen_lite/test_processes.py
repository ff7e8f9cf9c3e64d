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


def command(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "ignore", "-m", f"ragen_lite.{name}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment())


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
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.gate), signal.SIGINT]
)
def test_a_signal_saves_and_leaves_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process = start("train", *SMALL, "train.steps=500", "run.save_every=100", cwd=tmp_path)
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
def test_a_signal_during_an_evaluation_is_heard(tmp_path: Path) -> None:
    process = start("train", *SMALL, "train.steps=2", "eval.instances=5000", cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "measuring the starting policy" in line:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "nothing to go on from" in output, output
