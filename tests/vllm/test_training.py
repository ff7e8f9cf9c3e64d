"""Training with vLLM from the command line and in this process: exact, resumable, and whole when the engine fails."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.engines.protocol import EngineFailure, EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.agents.environments import EnvSpec, Handle
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start, Stop
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning import generation
from ragen_lite.models.loading import Policy, load_policy
from tests.vllm.test_engine import generate, prompts

pytestmark = pytest.mark.vllm

SMALL = (
    *(
        "env=sokoban",
        "engine=vllm",
        "train.groups=6",
        "train.group_size=6",
        "eval.every=0",
        "eval.instances=8",
    ),
    *("filter=spread", "train.mini_batches=2", "run.save_every=2"),
)


def command(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"ragen_lite.{name}", *arguments]
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def records(folder: Path, step: int) -> list[dict[str, Any]]:
    with gzip.open(folder / "trajectories" / f"step-{step}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("four")
    result = command("train", *SMALL, "train.steps=4", cwd=tmp)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = (tmp / "runs").iterdir()
    return folder


def test_engine_and_learner_agree_at_every_step(four_steps: Path) -> None:
    steps = rows(four_steps)[1:]
    assert len(steps) == 4
    for row in steps:
        assert 0 < row["train/logprob_gap"] < 1e-4
        assert 0 <= row["train/mismatch_kl"] < 1e-8
        assert 0 < row["train/probe_gap"] < 1e-5
        assert row["rollout/prefix_hits"] > 0.9
    moved = [sum(r["train/grad_norm"] for r in steps), sum(r["train/lr"] for r in steps)]
    assert all(m > 0 for m in moved)


def test_a_run_goes_on_with_vllm_where_it_stopped_byte_for_byte(
    four_steps: Path, tmp_path: Path
) -> None:
    """On a CPU a rollout's draws follow from its first request's key, so they do not depend on what came before."""
    first = command("train", *SMALL, "train.steps=2", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    result = command("train", *SMALL, "train.steps=4", "run.resume=auto", cwd=tmp_path)
    assert result.returncode == 0 and "after step 2" in result.stdout, result.stdout + result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    for step in (1, 2, 3, 4):
        assert records(folder, step) == records(four_steps, step)
    weights = "checkpoints/step-4/model.safetensors"
    assert (folder / weights).read_bytes() == (four_steps / weights).read_bytes()


@pytest.mark.parametrize("level", ["token", pytest.param("sequence", marks=pytest.mark.slow)])
def test_importance_weights_are_one_where_the_log_probs_are_equal(
    level: str, four_steps: Path, tmp_path: Path
) -> None:
    result = command("train", *SMALL, "train.steps=1", f"correction={level}", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    with_it, without = rows(folder)[1], rows(four_steps)[1]
    assert with_it["train/correction"] == pytest.approx(1.0, abs=1e-4)
    assert with_it["train/grad_norm"] == pytest.approx(without["train/grad_norm"], rel=1e-3)
    assert 0 < with_it["train/logprob_gap"] < 1e-4


@pytest.mark.slow
def test_tensor_parallel_size_passes_through(tmp_path: Path) -> None:
    """Two workers, to which the weights travel; heads of 32 and two of them, so that they can be divided."""
    made = command("sft", "model.path=scratch:64x2x2", "train.steps=1", "train.groups=1", "train.mini_batches=1",
                   "eval.every=0", "eval.instances=2", cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    (model,) = (tmp_path / "runs").glob("*/checkpoints/step-1")
    result = command("train", *SMALL, f"model={model}", "engine.options.tensor_parallel_size=2", "train.steps=2",
                     "train.groups=2", "train.mini_batches=1", "sample.max_tokens=12", "train.lr=1e-3",
                     "filter=none", cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = (tmp_path / "runs").glob("*-sokoban-run")
    assert [row["train/probe_gap"] < 1e-5 for row in rows(folder)[1:]] == [True, True]


@pytest.mark.slow
def test_options_and_dtypes_that_cannot_be(tmp_path: Path) -> None:
    for argument, message in (
        ("engine.options.gpu_memory_utilisation=0.3", "did you mean gpu_memory_utilization"),
        ("engine.options.kv_cache_dtype=nonsense", "vLLM refuses this model or these options"),
        ("model.dtype=float64", "vLLM has no float64"),
        ("engine.options.tensor_parallel_size=5", "vLLM refuses this model or these options"),
    ):
        result = command("evaluate", "engine=vllm", argument, cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr, result.stdout + result.stderr


# ---- in this process ----


@pytest.fixture
def tiny() -> Policy:
    return load_policy(ModelConfig())


@pytest.fixture
def vllm_config() -> EngineConfig:
    return EngineConfig(name="vllm", slots=16)


def test_greedy_replies_end_as_the_torch_engines(tiny: Policy) -> None:
    """On the embedded model, whose replies end by themselves; and cut at their length."""
    first = tiny.chat.start("You solve Sokoban.", "Turn 1:\nState:\n# # # # # #\n# _ _ O _ #")
    texts = [(*first, *text[:k]) for k, text in enumerate(prompts(6))]
    there = VLLMEngine(EngineSetup(tiny.model, tiny.chat.stop_ids, 1024, slots=8))
    try:
        there.load_weights(tiny.model.named_parameters(), 0)
        here = TorchEngine(EngineSetup(tiny.model, tiny.chat.stop_ids, 1024))
        for length in (2, 48):
            a = generate(there, texts, Sampling(0.0, length))
            b = generate(here, texts, Sampling(0.0, length))
            assert [(x.token_ids, x.stop) for x in a] == [(x.token_ids, x.stop) for x in b]
            for x, y in zip(a, b, strict=True):
                assert np.abs(np.array(x.logprobs) - np.array(y.logprobs)).max() < 1e-4
            if length == 48:
                assert any(x.stop is Stop.EOS and x.token_ids[-1] in tiny.chat.stop_ids for x in a)
            else:
                cut = [x for x in a if x.stop is Stop.LENGTH]
                assert cut and all(len(x.token_ids) == 2 for x in cut)
    finally:
        there.close()


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The seeds that environments were reset with."""
    seen: list[int] = []
    real = Handle.reset

    def reset(self: Handle, seed: int, options: dict[str, Any]) -> None:
        seen.append(seed)
        real(self, seed, options)

    monkeypatch.setattr(Handle, "reset", reset)
    yield seen


def failing(monkeypatch: pytest.MonkeyPatch, at: set[int]) -> list[int]:
    """Let vLLM's own step raise at these calls; returns a list whose length is the number of calls so far."""
    from vllm import LLMEngine

    calls: list[int] = []
    real = LLMEngine.step

    def step(self: Any) -> Any:
        calls.append(len(calls))
        if len(calls) - 1 in at:
            raise RuntimeError("CUDA out of memory")
        return real(self)

    monkeypatch.setattr(LLMEngine, "step", step)
    return calls


def test_an_engine_that_fails_is_built_again_and_nothing_finished_is_lost(
    tiny: Policy, vllm_config: EngineConfig, monkeypatch: pytest.MonkeyPatch, resets: list[int]
) -> None:
    notes: list[str] = []
    engine, _ = generation.start_engine(vllm_config, tiny, 1.0, note=notes.append)
    rollout = Rollout(engine, tiny.chat, EnvSpec("ragen_lite/Sokoban-v0"), 0)
    starts = [Start(seed) for seed in range(24)]
    at: set[int] = set()
    calls = failing(monkeypatch, at)
    finished_before: list[int] = []

    def on_progress(finished: int, tokens: int) -> None:
        if not notes and finished >= 6:  # some are over, others in the middle of a reply
            at.add(len(calls))
            finished_before.append(finished)

    played = rollout.play(starts, Sampling(1.0, 48), on_progress)
    assert (
        len(notes) == 1
        and "CUDA out of memory" in notes[0]
        and "built again from the learner's weights" in notes[0]
    )
    assert 6 <= finished_before[-1] < 24 and sorted(resets) == list(range(24))  # nobody began again
    assert [t.seed for t in played] == list(range(24)) and all(t.error is None for t in played)
    for t in played:
        t.check()
    with (
        torch.no_grad()
    ):  # the log-probs are those of the learner's weights, before the failure and after
        for t in played:
            (context,) = t.contexts
            logits = tiny.model(torch.tensor([context.token_ids])).logits[0]
            expected = torch.log_softmax(logits, -1)[:-1].gather(
                -1, torch.tensor(context.token_ids)[1:, None]
            )[:, 0]
            sampled = torch.tensor(context.loss_mask)[1:]
            assert (
                expected[sampled] - torch.tensor(context.behaviour_logprobs)[1:][sampled]
            ).abs().max() < 1e-4
    at.add(len(calls))
    with pytest.raises(EngineFailure, match="failed a second time"):
        rollout.play(starts, Sampling(1.0, 48))
    engine.close()


SABOTAGE = """
import sys
from vllm import LLMEngine
import ragen_lite.train as train
from ragen_lite.config.command_line import command
real, calls = LLMEngine.step, []
def step(self):
    calls.append(1)
    if len(calls) in ({at}):
        raise RuntimeError("CUDA out of memory")
    return real(self)
LLMEngine.step = step
command("train", "", train.train)
"""


@pytest.mark.slow
def test_a_second_failure_stops_the_run_with_its_checkpoint_whole(
    four_steps: Path, tmp_path: Path
) -> None:
    """The failures come in steps 3 and 4 or thereabouts; what was saved can be resumed, and gives the same run."""
    once = command("train", *SMALL, "train.steps=2", cwd=tmp_path)
    assert once.returncode == 0, once.stdout + once.stderr
    code = SABOTAGE.format(at="800, 900, 1000")
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                   "TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # fmt: skip
    line = [sys.executable, "-c", code, *SMALL, "train.steps=40", "run.resume=auto"]
    result = subprocess.run(
        line,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert "built again from the learner's weights" in " ".join(result.stdout.split())
    assert "error: the engine failed a second time" in result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    last = rows(folder)[-1]["step"]
    from ragen_lite.learning import checkpoint_files

    path, notes = checkpoint_files.last_good(folder / "checkpoints")
    assert path is not None and path.name == f"step-{last}" and not notes
    assert records(folder, 3) == records(four_steps, 3)
