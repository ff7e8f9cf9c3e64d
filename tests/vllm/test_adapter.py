"""LoRA's matrices handed to vLLM by themselves: exact, seen where they do not arrive, and what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ragen_lite.agents.engines import vllm_weights
from ragen_lite.agents.engines.protocol import EngineUnavailable, StaleWeights
from ragen_lite.config.schema import ModelConfig
from ragen_lite.learning.exactness import Inexact
from ragen_lite.models.loading import load_policy
from ragen_lite.models.lora import adapter_matrices, add_lora
from tests.fixtures import families
from tests.vllm.test_families import HEADS, adapter_of, check, engine_of
from tests.vllm.test_training import SMALL, command, rows

pytestmark = pytest.mark.vllm


def learn(model: Any, size: float = 0.1) -> None:
    """A step of learning, so to speak."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(size * torch.randn(parameter.shape))


def without_a_layer(worker: Any) -> None:
    """A layer of vLLM's whose matrices are known and take no part in generating."""
    del worker.model_runner.lora_manager._adapter_manager.modules["model.layers.0.mlp.down_proj"]


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_matrices_arrive_by_themselves(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = families.make("qwen3", **HEADS, tie_word_embeddings=tied)
    wrapper = add_lora(model, rank=4, alpha=6, seed=0)
    learn(model)
    with engine_of(model, wrapper) as engine:
        check(engine, model)
        learn(model)
        with pytest.raises(Inexact, match="engine's log-probs"):
            check(engine, model)  # a step that did not arrive
        whole = engine.llm.collective_rpc

        def without_reload(method: Any, **more: Any) -> Any:
            assert method != "reload_weights", "the frozen weights are handed over once"
            return whole(method, **more)

        monkeypatch.setattr(engine.llm, "collective_rpc", without_reload)
        engine.load_weights(adapter_matrices(wrapper), 1)
        check(engine, model)
        assert engine.version == 1

        # However small the step is.
        learn(model, 1e-6)
        monkeypatch.setattr(engine.llm, "add_lora", lambda request: True)
        with pytest.raises(StaleWeights, match="vLLM holds other values of .*lora_"):
            engine.load_weights(adapter_matrices(wrapper), 2)
        monkeypatch.undo()
        few = list(adapter_matrices(wrapper))[1:]
        with pytest.raises(StaleWeights, match="1 of 56 tensors are missing"):
            engine.load_weights(few, 3)
        engine.llm.collective_rpc(without_a_layer)
        with pytest.raises(StaleWeights, match=r"layers\.0\.mlp\.down_proj\.lora_"):
            engine.load_weights(adapter_matrices(wrapper), 4)


def test_a_rank_beyond_vllms_is_refused() -> None:
    model = families.make("qwen3", **HEADS)
    wrapper = add_lora(model, rank=600, alpha=6, seed=0)
    with pytest.raises(EngineUnavailable, match="rank of up to 512, not 600; engine.lora=merged"):
        vllm_weights.adapter_arguments(adapter_of(model, wrapper), "float32", True)
    with pytest.raises(
        EngineUnavailable, match="of 16 bits: take dtype=bfloat16; engine.lora=merged"
    ):
        vllm_weights.adapter_arguments(adapter_of(model, wrapper), "float32", False)


def test_matrices_that_vllm_would_leave_out_are_refused() -> None:
    model = families.make("deepseek_v3")
    wrapper = add_lora(model, rank=4, alpha=6, seed=0)
    with pytest.raises(EngineUnavailable, match="without kv_b_proj"):
        vllm_weights.adapter_arguments(adapter_of(model, wrapper), "float32", True)


@pytest.mark.slow
def test_a_run_trains_with_the_adapter_and_leaves_what_vllm_serves(tmp_path: Path) -> None:
    line = (*SMALL, "model=tiny", "model.lora_rank=4", "train.steps=2", "train.lr=1e-2")
    found = {}
    for how in ("adapter", "merged"):
        result = command("train", *line, f"engine.lora={how}", f"run.name={how}", cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        (folder,) = (tmp_path / "runs").glob(f"*-{how}")
        found[how] = rows(folder)[1:]
        for row in found[how]:
            assert 0 < row["train/logprob_gap"] < 1e-4
            assert 0 < row["train/probe_gap"] < 1e-5
    first = [found[how][0]["train/grad_norm"] for how in found]
    assert first[0] == pytest.approx(first[1], rel=1e-3) and first[0] > 0

    # A checkpoint's folder as it is, by vLLM's own loader.
    from vllm.lora.request import LoRARequest

    (folder,) = (tmp_path / "runs").glob("*-adapter/checkpoints/step-2")
    policy = load_policy(ModelConfig(path=str(folder)))
    with engine_of(policy.model, policy.adapter) as engine:
        (ours,) = engine.llm.collective_rpc(vllm_weights.matrices_of)
        request = LoRARequest("theirs", vllm_weights.ADAPTER, str(folder), load_inplace=True)
        assert engine.llm.add_lora(request)
        (theirs,) = engine.llm.collective_rpc(vllm_weights.matrices_of)
        assert theirs == ours and len(ours) > 1
