"""Whole runs: the same bytes twice, 5 + kill + 5 = 10, damaged checkpoints, failing environments, clean ends."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ragen_lite.run

SMALL = (
    "train.groups=3", "train.group_size=4", "train.mini_batches=2", "algo.filter=none", "eval.instances=4", "eval.every=4",
    "sample.max_tokens=24", "run.save_every=1",
)  # fmt: skip
RESUMABLE = (*SMALL, "train.steps=10", "train.schedule=linear")
HERE = Path(__file__).parent


def command(name: str, *arguments: str, cwd: Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160", "PYTHONPATH": str(HERE.parent / "fixtures")}
    line = [sys.executable, "-W", "ignore", "-m", f"ragen_lite.{name}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=env, timeout=110, **kwargs)


def start(name: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "ignore", "-m", f"ragen_lite.{name}", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, env=env)


def folder(cwd: Path) -> Path:
    (found,) = (cwd / "runs").iterdir()
    return found


def contents(run: Path, last: int) -> dict[str, Any]:
    """Everything that must repeat: metrics (times aside), trajectories, weights and optimiser."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not k.startswith("time/") and "per_second" not in k} for row in metrics]
    files = {p.name: gzip.decompress(p.read_bytes()) for p in sorted((run / "trajectories").iterdir())}
    step = run / "checkpoints" / f"step-{last}"
    weights = {p: (step / p).read_bytes() for p in ("model.safetensors", "trainer/optimizer.safetensors")}
    return {"metrics": kept, "trajectories": files, "weights": weights}


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("ten")
    result = command("train", *RESUMABLE, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder(cwd)


def test_the_same_seed_gives_the_same_bytes(ten_steps: Path, tmp_path: Path) -> None:
    result = command("train", *RESUMABLE, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert contents(folder(tmp_path), 10) == contents(ten_steps, 10)


def test_a_kill_and_resume_equals_never_stopping(ten_steps: Path, tmp_path: Path) -> None:
    process = start("train", *RESUMABLE, cwd=tmp_path)
    until = time.monotonic() + 90
    while not list((tmp_path / "runs").glob("*/checkpoints/step-5/trainer/manifest.json")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    result = command("train", *RESUMABLE, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "resuming" in result.stdout
    assert contents(folder(tmp_path), 10) == contents(ten_steps, 10)


def test_a_run_leaves_what_it_promises(ten_steps: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "curves.png",
        "report.html",
        "before.json",
        "after.json",
        "tensorboard",
    ):
        assert (ten_steps / name).exists(), name
    rows = [json.loads(line) for line in (ten_steps / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(11))
    names = set(re.findall(r"\b(?:rollout|eval|train|time)/\w+", ragen_lite.run.__doc__ or ""))
    assert set(rows[4]) - {"step"} <= names and names - set(rows[4]) == {
        "train/kl",
        "train/correction",
        "rollout/prefix_hits",
        "rollout/engine_restarts",
    }
    # The rounding of float32 in batches of other shapes, at the worst of some thousand tokens
    assert all(0 < row["train/logprob_gap"] < 1e-4 for row in rows[1:])
    assert sorted(p.name for p in (ten_steps / "checkpoints").iterdir()) == ["step-10", "step-8", "step-9"]
    record = json.loads(gzip.decompress((ten_steps / "trajectories" / "step-1.jsonl.gz").read_bytes()).splitlines()[0])
    assert len(record["token_ids"]) == len(record["sampled"]) == len(record["logprobs"]) == len(record["advantages"])


def test_a_checkpoint_is_a_hugging_face_model(ten_steps: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = ten_steps / "checkpoints" / "step-10"
    assert AutoModelForCausalLM.from_pretrained(path).config.model_type == "qwen3"
    assert AutoTokenizer.from_pretrained(path).chat_template
    assert not any(p.suffix in (".pt", ".bin", ".pkl") for p in path.rglob("*"))


def test_a_damaged_checkpoint_gives_way_to_the_last_good_one(ten_steps: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "runs" / ten_steps.name
    shutil.copytree(ten_steps, run)
    with (run / "checkpoints" / "step-10" / "model.safetensors").open("r+b") as handle:
        handle.seek(5000)
        handle.write(b"damage")
    result = command("train", *RESUMABLE, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert "step-10 is damaged (model.safetensors is not what was written); the one before it is used" in text
    assert "after step 9" in text
    assert contents(run, 10) == contents(ten_steps, 10)


def test_a_start_that_fails_leaves_no_folder_and_hides_no_run(ten_steps: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / ten_steps.name
    shutil.copytree(ten_steps, run)
    (tmp_path / "runs" / "20990101-000000-sokoban-run" / "checkpoints").mkdir(parents=True)  # a later one, empty
    failed = command("train", *SMALL, "engine.max_model_len=10000", cwd=tmp_path)
    assert failed.returncode == 2 and len(list((tmp_path / "runs").iterdir())) == 2
    code = (
        "from ragen_lite import train\n"
        "from ragen_lite.config import Config, ConfigError\n"
        "def refuse(*arguments): raise ConfigError('an engine that cannot be had')\n"
        "train.build = refuse\n"
        "try: train.train(Config())\n"
        "except ConfigError as error: print(error)\n"
    )
    line = [sys.executable, "-W", "ignore", "-c", code]
    failed = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=110, check=True)
    assert "cannot be had" in failed.stdout and len(list((tmp_path / "runs").iterdir())) == 2
    result = command("train", *RESUMABLE, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0 and "after step 10" in " ".join(result.stdout.split()), result.stdout + result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process = start("train", *SMALL, "train.steps=500", "run.save_every=100", cwd=tmp_path)
    until = time.monotonic() + 90
    while sum(1 for f in (tmp_path / "runs").glob("*/metrics.jsonl") for _ in f.open()) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "run.resume=auto" in output and "Traceback" not in output
    assert any((folder(tmp_path) / "checkpoints").glob("step-*")) and (folder(tmp_path) / "report.html").exists()


def test_without_the_turn_mask_the_observations_are_trained(ten_steps: Path, tmp_path: Path) -> None:
    result = command("train", *RESUMABLE, "train.steps=1", "algo.turn_mask=false", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    weights = (folder(tmp_path) / "checkpoints" / "step-1" / "model.safetensors").read_bytes()
    masked = command("train", *RESUMABLE, "train.steps=1", "run.name=masked", cwd=tmp_path)
    assert masked.returncode == 0
    (other,) = (tmp_path / "runs").glob("*masked")
    assert (other / "checkpoints" / "step-1" / "model.safetensors").read_bytes() != weights


def test_countdown_trains_through_the_same_loop(tmp_path: Path) -> None:
    result = command("train", *SMALL, "env=countdown", "train.steps=1", "sample.max_tokens=40", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_other_algorithms_train(tmp_path: Path) -> None:
    for algo in (
        ["algo=turn", "algo.kl=k3", "algo.kl_coef=0.01"],
        ["algo=reinforce", "train.epochs=2"],
    ):
        result = command("train", *SMALL, *algo, "train.steps=1", cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr


GUESS = "env=envs_for_tests:ragen_lite_tests/Guess-v0"


def test_a_failing_environment_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    result = command("train", *SMALL, GUESS, "env.kwargs.fault=reset", "train.steps=3", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failed environments" in result.stdout and "no level today" in result.stdout and "seed" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["env=sokobn"], "did you mean sokoban"),
        (["env=nowhere:Nothing-v0"], "env.id=nowhere:Nothing-v0"),
        (["env=ragen_lite/Sokobn-v0"], "Sokoban"),
        (["env.kwargs.boxs=2"], "did you mean boxes"),
        (["env.kwargs.levels=/no/such/file.txt"], "cannot read the level file"),
        (["env.protocol=xml"], "choose one of think_answer"),
        (["model=/no/such/model"], "no model there"),
        (["model=nonsense"], "no model there"),
        (["train.stpes=3"], "did you mean train.steps"),
        (["train.steps=abc"], "could not be converted to Integer"),
        (["engine.max_model_len=80"], "does not fit engine.max_model_len=80"),
        (["engine.max_model_len=9999"], "the model has 1024 positions"),
        (["run.dir=/proc/nowhere"], "give a folder you may write to"),
        (["run.resume=/no/run"], "no run folder"),
        (["run.wandb=true"], "pip install wandb"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = command("train", *SMALL, "train.steps=1", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_without_chat_template_is_refused(tmp_path: Path, tokenizer: Any, model: Any) -> None:
    model.save_pretrained(tmp_path / "m")
    plain = __import__("copy").deepcopy(tokenizer)
    plain.chat_template = None
    plain.save_pretrained(tmp_path / "m")
    result = command("evaluate", f"model={tmp_path / 'm'}", "eval.instances=2", cwd=tmp_path)
    assert result.returncode == 2 and "no chat template" in result.stderr and "instruction-tuned" in result.stderr


def test_sft_learns_from_a_teacher_and_from_a_runs_trajectories(ten_steps: Path, tmp_path: Path) -> None:
    small = (
        "train.groups=2",
        "train.group_size=4",
        "train.mini_batches=1",
        "train.steps=3",
        "eval.every=0",
        "train.lr=1e-3",
    )
    scratch = ("model.path=scratch:32x1x4",)
    result = command("sft", *small, *scratch, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in (folder(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    data = f"demos={ten_steps / 'trajectories' / 'step-1.jsonl.gz'}"
    result = command("sft", *small, data, "run.name=file", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    result = command("sft", *small, "demos=/no/file.jsonl", cwd=tmp_path)
    assert result.returncode == 2 and "give teacher, solver, or a JSONL file" in result.stderr
    (tmp_path / "bad.jsonl").write_text('{"turns": [{"observation": "a", "reply": "b"}]}\n{"turn": 1}\n')
    result = command("sft", *small, f"demos={tmp_path / 'bad.jsonl'}", cwd=tmp_path)
    assert result.returncode == 2 and "bad.jsonl, line 2: no trajectory" in result.stderr


def test_evaluate_prints_the_policy_beside_the_random_one_and_the_solver(tmp_path: Path) -> None:
    tiny = Path(ragen_lite.run.__file__).with_name("tiny")
    (tmp_path / "copy").symlink_to(tiny)
    result = command("evaluate", "eval.instances=6", "eval.compare=./copy", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words in ("sampled", "greedy", "random", "solver", "100.0%", "Wilson", "format errors"):
        assert words in result.stdout
    text = " ".join(result.stdout.split())
    assert "tiny sampled against ./copy sampled, the same 6 instances: +0.0%" in text and "McNemar p = 1" in text
    same = command("evaluate", "eval.compare=tiny", cwd=tmp_path)
    assert same.returncode == 2 and "give a second model" in same.stderr
    only = command("evaluate", "model.path=random", "env=countdown", "eval.instances=6", cwd=tmp_path)
    assert only.returncode == 0 and "solver" in only.stdout


def test_play_at_the_keyboard_and_watching(tmp_path: Path) -> None:
    result = command("play", cwd=tmp_path, input="u l\nDown Down\n\n")
    assert result.returncode == 0 and "Turn 3:" in result.stdout and "given up" in result.stdout
    for policy in ("solver", "tiny"):
        watched = command("play", f"model.path={policy}", cwd=tmp_path)
        assert watched.returncode == 0 and "Turn 1:" in watched.stdout and "return" in watched.stdout


def test_a_run_is_only_resumed_as_what_it_was(ten_steps: Path, tmp_path: Path) -> None:
    result = command("train", *RESUMABLE, f"run.resume={ten_steps}", "seed=5", "algo=rloo", cwd=tmp_path)
    assert result.returncode == 2
    assert "algo.credit (was grpo, now rloo)" in result.stderr and "seed (was 0, now 5)" in result.stderr
    fresh = command("train", *SMALL, "train.steps=1", "run.resume=auto", cwd=tmp_path)
    assert fresh.returncode == 0 and "a new run begins" in fresh.stdout


@pytest.mark.parametrize("shape", ["scratch:", "scratch:32x1", "scratch:0x1x1", "scratch:30x1x4", "scratchy"])
def test_a_wrong_shape_from_scratch_is_refused(shape: str, tmp_path: Path) -> None:
    result = command("sft", f"model.path={shape}", cwd=tmp_path)
    assert result.returncode == 2 and f"model={shape}" in result.stderr.replace("model.path", "model")


def test_a_step_that_teaches_nothing_says_so(tmp_path: Path) -> None:
    result = command("train", *SMALL, "model.path=scratch:32x1x4", "algo.filter=outcome", "train.steps=1", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "algo.filter=outcome kept no group" in result.stdout
    assert (folder(tmp_path) / "report.html").exists()


def test_a_signal_during_an_evaluation_is_heard(tmp_path: Path) -> None:
    process = start("train", *SMALL, "train.steps=2", "eval.instances=5000", cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "measuring the starting policy" in line:
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "nothing to go on from" in output


def test_help_and_cfg(tmp_path: Path) -> None:
    assert "train.group_size=8" in command("train", "--help", cwd=tmp_path).stdout
    shown = command("train", "--cfg", "job", "train.steps=3", cwd=tmp_path).stdout
    assert "steps: 3" in shown and "clip_high: 0.28" in shown


def test_a_sweep_may_be_asked_for_behind_the_values(tmp_path: Path) -> None:
    result = command("evaluate", "env=bandit,hanoi", "model=random", "eval.instances=2", "-m", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Bandit-v0, 2 instances" in result.stdout and "Hanoi-v0, 2 instances" in result.stdout
