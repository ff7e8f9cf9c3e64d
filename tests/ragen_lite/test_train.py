"""Whole runs in this process: the same bytes twice, resuming, damage, failing environments."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import ragen_lite.train
from ragen_lite.config.schema import ConfigError
from ragen_lite.runs.collection import Plan
from ragen_lite.runs.evaluation import val_baselines
from ragen_lite.runs.metrics import METRICS
from tests.fixtures.commands import run
from tests.fixtures.runs import SMALL, contents, folder, records, rows

THREE = (*SMALL, "min_cost=7", "train.steps=3", "train.schedule=linear", "eval.every=2")
SCRATCH = ("model.path=scratch:32x1x4", "eval.every=0")


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("three")
    result = run("train", *THREE, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder(cwd)


def copied(made: Path, cwd: Path) -> Path:
    """A copy of a run in ``cwd/runs``, to be resumed there."""
    target = cwd / "runs" / made.name
    shutil.copytree(made, target)
    return target


def test_the_same_seed_gives_the_same_bytes(three_steps: Path, tmp_path: Path) -> None:
    result = run("train", *THREE, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert contents(folder(tmp_path), 3) == contents(three_steps, 3)


def test_going_on_from_a_checkpoint_equals_never_stopping(
    three_steps: Path, tmp_path: Path
) -> None:
    resumed = copied(three_steps, tmp_path)
    for step in (2, 3):
        shutil.rmtree(resumed / "checkpoints" / f"step-{step}")
    (resumed / "after.json").unlink()
    result = run("train", *THREE, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "after step 1" in result.words
    assert contents(resumed, 3) == contents(three_steps, 3)


def test_a_run_leaves_what_it_promises(three_steps: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "curves.png",
        "report.html",
        "before.json",
        "after.json",
        "tensorboard",
    ):
        assert (three_steps / name).exists(), name
    made = rows(three_steps)
    assert [row["step"] for row in made] == [0, 1, 2, 3]
    names = {name for name in METRICS if not name.endswith(("/TASK", "/NAME"))}
    seldom = {"train/kl", "train/correction", "rollout/prefix_hits", "rollout/engine_restarts"}
    seldom |= {"train/value_loss", "train/explained_variance", "rollout/lost_players"}
    seldom |= {"rollout/success_easy", "eval/success_easy"}  # all rooms are harder than that
    # Step 2 is one that is followed by an evaluation.
    assert {"train/grad_norm_wide", "eval/prompt_information"} <= set(made[2])
    assert set(made[2]) - {"step"} <= names and names - set(made[2]) == seldom
    # The rounding of float32 in batches of other shapes, at the worst of some thousand tokens.
    assert all(0 < row["train/logprob_gap"] < 1e-4 for row in made[1:])
    checkpoints = sorted(path.name for path in (three_steps / "checkpoints").iterdir())
    assert checkpoints == ["step-1", "step-2", "step-3"]


def test_a_record_holds_the_contexts_as_they_were_sampled(three_steps: Path) -> None:
    for record in records(three_steps, 1):
        (context,) = record["contexts"]
        spans = [0] * len(context["token_ids"])
        for turn in record["turns"]:
            length = turn["stop"] - turn["start"]
            assert turn["context"] == 0 and turn["reply_tokens"] == length
            spans[turn["start"] : turn["stop"]] = [1] * length
        assert context["loss_mask"] == spans
        lengths = {len(context[name]) for name in ("behaviour_logprobs", "advantages")}
        assert lengths == {len(spans)}
        assert record["returns"] == sum(turn["reward"] for turn in record["turns"])


def test_a_checkpoint_is_a_hugging_face_model(three_steps: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = three_steps / "checkpoints" / "step-3"
    assert AutoModelForCausalLM.from_pretrained(path).config.model_type == "qwen3"
    assert AutoTokenizer.from_pretrained(path).chat_template
    assert not any(p.suffix in (".pt", ".bin", ".pkl") for p in path.rglob("*"))


def test_a_damaged_checkpoint_gives_way_to_the_last_good_one(
    three_steps: Path, tmp_path: Path
) -> None:
    damaged = copied(three_steps, tmp_path)
    with (damaged / "checkpoints" / "step-3" / "model.safetensors").open("r+b") as handle:
        handle.seek(5000)
        handle.write(b"damage")
    result = run("train", *THREE, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    why = "step-3 is damaged (model.safetensors is not what was written)"
    assert f"{why}; the one before it is used" in result.words and "after step 2" in result.words
    assert contents(damaged, 3) == contents(three_steps, 3)


def test_a_start_that_fails_leaves_no_folder_and_hides_no_run(
    three_steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(three_steps, tmp_path)
    later = tmp_path / "runs" / "20990101-000000-sokoban-run" / "checkpoints"
    later.mkdir(parents=True)  # a later run, empty
    failed = run("train", *SMALL, "engine.max_model_len=10000", cwd=tmp_path)
    assert failed.returncode == 2 and len(list((tmp_path / "runs").iterdir())) == 2

    def refuse(*arguments: Any) -> Any:
        raise ConfigError("an engine that cannot be had")

    with monkeypatch.context() as patch:
        patch.setattr(ragen_lite.train, "open_session", refuse)
        failed = run("train", *SMALL, cwd=tmp_path)
    assert "cannot be had" in failed.stderr and len(list((tmp_path / "runs").iterdir())) == 2
    result = run("train", *THREE, "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0 and "after step 3" in result.words


def test_a_run_is_only_resumed_as_what_it_was(three_steps: Path, tmp_path: Path) -> None:
    line = [*THREE, f"run.resume={three_steps}", "seed=5", "algo=rloo", "loss.clip_high=0.3"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 2
    for change in (
        "credit (was gigpo, now rloo)",
        "seed (was 0, now 5)",
        "loss.clip_high (was 0.28, now 0.3)",
    ):
        assert change in result.stderr
    assert len(rows(three_steps)) == 4, "a refused resume has touched the run"


def test_a_run_of_version_0_1_is_resumed(three_steps: Path, tmp_path: Path) -> None:
    """Its config.yaml had all of the algorithm under ``algo``."""
    old = copied(three_steps, tmp_path)
    text = (old / "config.yaml").read_text()
    algo = (
        "algo: {credit: grpo, normalize: true, loss: clip, clip_low: 0.2, clip_high: 0.28, "
        "aggregation: token, kl: 'off', kl_coef: 0.0, entropy_coef: 0.0, filter: none, "
        "correction: 'off', turn_mask: true}\n"
    )
    start = text.index("credit:")
    (old / "config.yaml").write_text(text[:start] + algo + text[text.index("engine:") :])
    line = ("train", *THREE, "run.resume=auto", "instances=as_drawn", "algo=grpo")
    result = run(*line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    refused = run(*line, "loss=reinforce", cwd=tmp_path)
    assert "loss (was ppo, now reinforce)" in refused.stderr


@pytest.mark.slow
def test_without_the_turn_mask_the_observations_are_trained(tmp_path: Path) -> None:
    weights = []
    for mask in ("true", "false"):
        line = [*SMALL, "eval.every=0", "eval.instances=2", "train.steps=1"]
        line += [f"loss.turn_mask={mask}", f"run.name=mask-{mask}"]
        result = run("train", *line, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        step = folder(tmp_path, f"mask-{mask}") / "checkpoints" / "step-1"
        weights.append((step / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]


@pytest.mark.slow
def test_other_algorithms_and_tasks_train(tmp_path: Path) -> None:
    for line in (
        ["algo=turn_return", "kl=k3", "kl.coef=0.01", "env=countdown"],
        ["algo=reinforce", "train.epochs=2", "loss.entropy_coef=0.01"],
        ["credit=rloo", "credit.normalize=true", "loss.aggregation=sequence"],
    ):
        name = f"run.name={line[0].partition('=')[2]}"
        result = run("train", *SMALL, *SCRATCH, *line, name, "train.steps=1", cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    assert rows(folder(tmp_path, "turn_return"))[-1]["train/kl"] == 0.0  # before any update


GUESS = "env=envs_for_tests:ragen_lite_tests/Guess-v0"


def test_a_failing_environment_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    line = [*SMALL, *SCRATCH, GUESS, "env.kwargs.fault=reset", "train.steps=3"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    for words in ("failed environments", "no level today", "seed"):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["env=sokobn"], "did you mean sokoban"),
        (["env=nowhere:Nothing-v0"], "env.id=nowhere:Nothing-v0"),
        (["env=ragen_lite/Sokobn-v0"], "Sokoban"),
        (["env.kwargs.boxs=2"], "did you mean boxes"),
        (["env.kwargs.levels=/no/such/file.txt"], "cannot read the level file"),
        (["env.protocol=xml"], "choose one of think_answer"),
        (
            ["env=countdown", "env.kwargs.template=r1", "env.protocol=boxed"],
            "protocol=boxed does nothing here",
        ),
        (["model=/no/such/model"], "no model there"),
        (["model=nonsense"], "no model there"),
        (["train.stpes=3"], "did you mean train.steps"),
        (["train.steps=abc"], "could not be converted to Integer"),
        (["algo.clip_high=0.3"], "write loss.clip_high=0.3"),
        (["correction=token"], "correction=token does nothing with engine=auto"),
        (["engine.max_model_len=80"], "does not fit engine.max_model_len=80"),
        (["engine.max_model_len=9999"], "the model has 1024 positions"),
        (["run.dir=/proc/nowhere"], "give a folder you may write to"),
        (["run.resume=/no/run"], "no run folder"),
        (["run.wandb=true"], "pip install wandb"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run("train", *SMALL, "train.steps=1", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_without_chat_template_is_refused(
    tmp_path: Path, tokenizer: Any, model: Any
) -> None:
    model.save_pretrained(tmp_path / "m")
    plain = __import__("copy").deepcopy(tokenizer)
    plain.chat_template = None
    plain.save_pretrained(tmp_path / "m")
    result = run("evaluate", f"model={tmp_path / 'm'}", "eval.instances=2", cwd=tmp_path)
    assert result.returncode == 2
    assert "no chat template" in result.stderr and "instruction-tuned" in result.stderr


@pytest.mark.parametrize(
    "shape", ["scratch:", "scratch:32x1", "scratch:0x1x1", "scratch:30x1x4", "scratchy"]
)
def test_a_wrong_shape_from_scratch_is_refused(shape: str, tmp_path: Path) -> None:
    result = run("sft", f"model.path={shape}", cwd=tmp_path)
    assert result.returncode == 2
    assert f"model={shape}" in result.stderr.replace("model.path", "model")


def test_a_step_that_teaches_nothing_says_so(tmp_path: Path) -> None:
    line = [*SMALL, *SCRATCH, "filter=outcome", "train.steps=1"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "filter=outcome kept no group" in result.stdout and "teach it by sft" in result.words
    assert (folder(tmp_path) / "report.html").exists()


def test_help_and_cfg(tmp_path: Path) -> None:
    assert "train.group_size=8" in run("train", "--help", cwd=tmp_path).stdout
    resolved = run("train", "--cfg", "job", "train.steps=3", cwd=tmp_path).stdout
    assert "steps: 3" in resolved and "clip_high: 0.28" in resolved
    named = run("train", "--cfg", "job", "algo=rloo", cwd=tmp_path).stdout
    assert (
        "name: rloo" in named and "name: gigpo" in run("train", "--cfg", "job", cwd=tmp_path).stdout
    )


# ---- the other commands ----


def test_sft_learns_from_a_teacher_and_from_trajectories_old_and_new(
    three_steps: Path, tmp_path: Path
) -> None:
    small = (
        "train.groups=2",
        "train.group_size=4",
        "train.mini_batches=1",
        "train.steps=3",
        "eval.every=0",
        "eval.instances=2",
        "train.lr=1e-3",
        "model.path=scratch:32x1x4",
    )
    result = run("sft", *small, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    losses = [row["train/loss"] for row in rows(folder(tmp_path))]
    assert losses[-1] < losses[0]
    demos = three_steps / "trajectories" / "step-1.jsonl.gz"
    result = run("sft", *small, f"demos={demos}", "run.name=file", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    # The same trajectories as version 0.1 wrote them teach the same.
    lines = []
    for record in records(three_steps, 1):
        (context,) = record.pop("contexts")
        old = {"token_ids": context["token_ids"], "sampled": context["loss_mask"]}
        turns = [
            {name: turn[name] for name in ("observation", "reply", "start", "stop", "reward")}
            | {"info": {"regret": turn["regret"]}}
            for turn in record.pop("turns")
        ]
        lines.append(json.dumps({**record, "turns": turns, **old}))
    (tmp_path / "old.jsonl").write_text("\n".join(lines))
    result = run("sft", *small, "demos=old.jsonl", "run.name=old", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = (rows(folder(tmp_path, name))[-1]["train/loss"] for name in ("file", "old"))
    assert first == second


def test_a_stop_during_sfts_evaluation_loses_that_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return val_baselines(*arguments)

    monkeypatch.setattr("ragen_lite.runs.session.val_baselines", stopped)
    line = ("train.groups=2", "train.group_size=4", "eval.every=1", "eval.instances=4", SCRATCH[0])
    result = run("sft", *line, cwd=tmp_path)
    assert result.returncode == 143 and "run.resume=auto" in result.words, result.stderr
    (row,) = rows(folder(tmp_path))
    assert row["train/loss"] > 0 and "eval/success" not in row


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "give teacher, solver, or a file of demonstrations"),
        (
            '{"turns": [{"observation": "a", "reply": "b"}]}\n{"turn": 1}\n',
            "line 2: a demonstration needs turns",
        ),
        ('{"turns": []}\n', "no conversation in it has a reply"),
    ],
)
def test_demonstrations_that_are_none_are_refused(
    lines: str | None, message: str, tmp_path: Path
) -> None:
    if lines is not None:
        (tmp_path / "demos.jsonl").write_text(lines)
    result = run("sft", "demos=demos.jsonl", "model.path=scratch:32x1x4", cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr, result.stderr


def test_evaluate_prints_the_policy_beside_the_random_one_and_the_solver(tmp_path: Path) -> None:
    from ragen_lite.models.scratch import TINY

    (tmp_path / "copy").symlink_to(TINY)
    result = run("evaluate", "eval.instances=6", "eval.compare=./copy", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words in ("sampled", "greedy", "random", "solver", "100.0%", "Wilson", "format errors"):
        assert words in result.stdout
    sentence = "tiny sampled against ./copy sampled, the same 6 instances: +0.0%"
    assert sentence in result.words and "McNemar p = 1" in result.words
    same = run("evaluate", "eval.compare=tiny", cwd=tmp_path)
    assert same.returncode == 2 and "give a second model" in same.stderr
    line = ["model.path=random", "env=countdown", "eval.instances=6"]
    only = run("evaluate", *line, cwd=tmp_path)
    assert only.returncode == 0 and "solver" in only.stdout


def test_a_sweep_may_be_asked_for_behind_the_values(tmp_path: Path) -> None:
    line = ["env=bandit,hanoi", "model=random", "eval.instances=2", "-m"]
    result = run("evaluate", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Bandit-v0, 2 instances" in result.stdout and "Hanoi-v0, 2 instances" in result.stdout


def test_play_at_the_keyboard_and_watching(tmp_path: Path) -> None:
    result = run("play", "model.path=human", cwd=tmp_path, typed="u l\nDown Down\n\n")
    assert result.returncode == 0, result.stderr
    assert "Turn 3:" in result.stdout and "given up" in result.stdout
    for policy in ("solver", "tiny"):
        watched = run("play", f"model.path={policy}", cwd=tmp_path)
        assert watched.returncode == 0, watched.stderr
        assert "Turn 1:" in watched.stdout and "return" in watched.stdout


# ---- what else ends a run ----


@pytest.mark.slow
@pytest.mark.gate
def test_whatever_ends_a_run_the_finished_steps_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    line = [*SMALL, "eval.every=0", "eval.instances=2", "run.save_every=50"]
    with monkeypatch.context() as patch:
        patch.setattr("ragen_lite.runs.collection.Plan.starts", _failing_at(3))
        with pytest.raises(ZeroDivisionError):
            run("train", *line, "train.steps=4", cwd=tmp_path)
    saved = folder(tmp_path) / "checkpoints"
    assert [path.name for path in saved.iterdir()] == ["step-2"]
    resumed = run("train", *line, "train.steps=4", "run.resume=auto", cwd=tmp_path)
    assert resumed.returncode == 0 and "after step 2" in resumed.words, resumed.stderr
    assert run("train", *line, "train.steps=4", cwd=whole).returncode == 0
    assert contents(folder(tmp_path), 4) == contents(folder(whole), 4)


def _failing_at(step: int) -> Any:
    real = Plan.starts

    def starts(plan: Plan, now: int, first: int = 0) -> Any:
        if now == step:
            raise ZeroDivisionError("a bug of ours")
        return real(plan, now, first)

    return starts


def test_a_prompt_that_does_not_fit_is_no_sample(tmp_path: Path) -> None:
    """Countdown's prompts fit, Sokoban's do not; with filter=none both stay."""
    line = [*SMALL, "env=mix", "env.kwargs.tasks={countdown: 3, sokoban: 1}", "train.steps=2"]
    line += ["engine.max_model_len=100", "train.groups=6", "eval.every=0"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    made = [r for step in (1, 2) for r in records(folder(tmp_path), step)]
    assert any(not r["turns"] and r["outcome"] == "out_of_tokens" for r in made)


@pytest.mark.slow
def test_the_schedule_goes_by_the_iteration(tmp_path: Path) -> None:
    """Fewer samples than mini-batches make fewer optimiser steps, and do not stretch the decay."""
    line = [*SMALL, "eval.every=0", "eval.instances=2", "train.steps=2", "train.warmup=0"]
    rates = {}
    for count in (2, 12):
        name = f"batches{count}"
        more = [f"train.mini_batches={count}", f"run.name={name}", "train.groups=4", "min_cost=8"]
        assert run("train", *line, *more, "filter=outcome", cwd=tmp_path).returncode == 0
        rates[count] = [r["train/lr"] for r in rows(folder(tmp_path, name)) if "train/lr" in r]
    # Linear from 2e-4 to 2e-5 over two iterations: the second is below half way, however few
    # optimiser steps the first has made.
    assert all(found[-1] < 1.2e-4 for found in rates.values()), rates


def test_an_environment_that_ignores_its_seed_is_noticed(tmp_path: Path) -> None:
    env = "env=envs_for_tests:ragen_lite_tests/Unseeded-v0"
    result = run("train", *SMALL, *SCRATCH, env, "train.steps=1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "the members of group 0 saw different first messages" in result.words
    fine = run("train", *SMALL, *SCRATCH, GUESS, "train.steps=1", cwd=tmp_path)
    assert "saw different first messages" not in fine.words
