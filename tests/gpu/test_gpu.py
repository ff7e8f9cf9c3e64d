"""What can only be seen on a card: its arithmetic, its memory, and whole runs there."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning import generation
from ragen_lite.learning.exactness import check_exact
from ragen_lite.learning.scoring import scorer
from ragen_lite.models.loading import load_policy
from tests.fixtures import families
from tests.fixtures.commands import run
from tests.fixtures.making import torch_engine
from tests.fixtures.runs import SMALL, contents, folder, rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
RUN = (*SMALL, "env=sokoban", "train.steps=4", "eval.every=0", "engine=torch")


def test_a_gpu_is_taken_without_being_asked_for() -> None:
    policy = load_policy(ModelConfig())
    weights = next(policy.model.parameters())
    assert weights.is_cuda and weights.dtype == torch.float32 and policy.dtype == "bfloat16"


@pytest.mark.parametrize(
    "family", ["llama", "qwen3_moe", "mistral", "gemma2", "gpt_oss", "deepseek_v3"]
)
def test_engine_and_learner_are_the_models_own_forward_there(family: str) -> None:
    model = families.make(family).cuda()
    engine = torch_engine(model, frozenset({2}), 300, slots=3)
    check_exact(engine, model, scorer(model, 1.0), np.arange(3, 800), 1.0, nullcontext, "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_model_samples_what_it_learns(dtype: str) -> None:
    policy = load_policy(ModelConfig(dtype=dtype))
    engine, sync = generation.start_engine(EngineConfig("torch"), policy, 1.0)
    assert sync.gap < (1e-3 if dtype == "float32" else 0.05)
    engine.close()


def test_bfloat16_is_near_float32() -> None:
    found = gpu.arithmetic(gpu.SMALL_SHAPE, "cuda")
    assert 0 < found["mean_gap"] < 0.05


def test_the_logits_of_a_batch_never_exist() -> None:
    found = gpu.loss_memory("cuda", tokens=8192)
    assert found["peak_bytes"] < 0.5 * found["whole_logits_bytes"]


def same_metrics(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    kept = [[{k: v for k, v in row.items() if not k.startswith("time/") and "per_second" not in k} for row in rows_]
            for rows_ in (first, second)]  # fmt: skip
    return bool(kept[0] == kept[1])


@pytest.mark.parametrize("extra", [(), ("model.lora_rank=4",)], ids=["all weights", "lora"])
def test_a_run_is_resumed(extra: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = run("train", *RUN, *extra, cwd=tmp_path / "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    made = folder(tmp_path / "whole")
    assert all(row["train/logprob_gap"] < 1.0 for row in rows(made)[1:])
    copy = tmp_path / "again" / "runs" / made.name
    shutil.copytree(made, copy)
    for step in (3, 4):
        shutil.rmtree(copy / "checkpoints" / f"step-{step}")
    resumed = run("train", *RUN, *extra, "run.resume=auto", cwd=tmp_path / "again")
    assert resumed.returncode == 0 and "after step 2" in resumed.words, resumed.stderr
    assert same_metrics(rows(copy), rows(made))
    assert contents(copy, 4)["weights"] == contents(made, 4)["weights"]
