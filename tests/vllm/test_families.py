"""Families and LoRA in vLLM: exact, or refused at load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.engines.protocol import Adapter, EngineSetup
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.learning.exactness import Inexact, check_exact
from ragen_lite.learning.scoring import scorer
from ragen_lite.models.lora import (
    NAME,
    adapter_matrices,
    adapter_scales,
    add_lora,
    stored_weights,
)
from tests.fixtures import families

pytestmark = pytest.mark.vllm
# Heads of a size that vLLM's CPU kernels take.
HEADS = {
    "hidden_size": 64,
    "head_dim": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}


def adapter_of(model: Any, wrapper: Any) -> Adapter:
    frozen = partial(stored_weights, model, merged=False)
    return Adapter(wrapper.peft_config[NAME], adapter_scales(model), frozen)


@contextmanager
def engine_of(model: Any, wrapper: Any = None) -> Iterator[VLLMEngine]:
    """An engine with a model's weights; with peft's wrapper its adapter is handed over by itself."""
    adapter = None if wrapper is None else adapter_of(model, wrapper)
    engine = VLLMEngine(EngineSetup(model, frozenset({2}), 300, 8, adapter=adapter))
    try:
        engine.load_weights(adapter_matrices(wrapper) if wrapper else stored_weights(model), 0)
        yield engine
    finally:
        engine.close()


def check(engine: VLLMEngine, model: Any) -> None:
    check_exact(engine, model, scorer(model, 0.7), np.arange(3, 800), 0.7, nullcontext, "float32")


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_window_and_caps_are_the_models_own(family: str) -> None:
    own = {"query_pre_attn_scalar": 32} if family == "gemma2" else {}
    model = families.make(family, **HEADS | own)
    with engine_of(model) as engine:
        check(engine, model)


def test_a_mixture_of_experts_is_refused_on_a_cpu() -> None:
    model = families.make("qwen3_moe", **HEADS | {"moe_intermediate_size": 64})
    names = {name for name, _ in stored_weights(model)}
    assert "model.layers.0.mlp.experts.3.gate_proj.weight" in names
    # vLLM's build for CPUs repacks experts, and a reload leaves the copies as they were.
    refused = pytest.raises(Inexact, match="engine's log-probs are .* take another engine")
    with engine_of(model) as engine, refused:
        check(engine, model)


def test_loras_matrices_arrive_as_part_of_the_weights() -> None:
    model = families.make("qwen3", **HEADS)
    add_lora(model, rank=4, alpha=8, seed=0)
    with engine_of(model) as engine:
        check(engine, model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        with pytest.raises(Inexact, match="engine's log-probs"):
            check(engine, model)  # a step that did not arrive
        engine.load_weights(stored_weights(model), 1)
        check(engine, model)
