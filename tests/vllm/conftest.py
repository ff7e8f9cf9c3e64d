"""One vLLM engine for the tests of a file: building it takes seconds, and a process takes one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.learning.scoring import scorer
from ragen_lite.learning.sync import WeightSync
from ragen_lite.models import scratch

TEMPERATURE = 0.7  # not 1, so that log-probs taken at another temperature would show


@pytest.fixture
def policy(tokenizer: Any) -> Any:
    """A Qwen3 of two layers with random weights, heads of a size that vLLM's CPU kernels take."""
    return scratch.make_model(tokenizer, hidden=64, layers=2, heads=2, seed=1).eval()


@pytest.fixture(scope="module")
def module_engine(tokenizer: Any) -> Iterator[VLLMEngine]:
    model = scratch.make_model(tokenizer, hidden=64, layers=2, heads=2, seed=1)
    engine = VLLMEngine(EngineSetup(model, Chat(tokenizer).stop_ids, 1024, slots=32))
    yield engine
    engine.close()


@pytest.fixture
def engine(module_engine: VLLMEngine, policy: Any) -> Iterator[VLLMEngine]:
    """The engine with the policy's weights, as version 0."""
    module_engine.load_weights(policy.named_parameters(), 0)
    yield module_engine
    for id in list(module_engine._under_way):
        module_engine.release(id)


@pytest.fixture
def sync(policy: Any) -> WeightSync:
    return WeightSync(
        policy, scorer(policy, TEMPERATURE), np.arange(300, 800), "float32", TEMPERATURE
    )


@pytest.fixture
def change(policy: Any) -> Any:
    """A step of learning, so to speak: every weight moves a little."""

    def move(size: float = 1e-2) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))

    return move
