"""What of the vLLM engine can be seen without vLLM: the door, the versions, the order of a sleep."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ragen_lite.agents.engines import vllm_setup
from ragen_lite.agents.engines.protocol import EngineFailure, EngineUnavailable, StaleWeights
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.agents.engines.vllm_setup import import_vllm
from ragen_lite.agents.engines.vllm_weights import WholeWeights


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "vLLM is not installed; pip install 'vllm>=0.32,<0.34', or engine=torch"),
        ("0.31.2", r"vLLM 0.31.2 is installed; 0.32 up to, not including, 0.34"),
        ("0.34.0", "pip install 'vllm>=0.32,<0.34', or engine=torch"),
        ("1.0.0+cpu", "vLLM 1.0.0"),
    ],
)
def test_a_version_that_is_not_known_is_refused(
    version: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_setup, "installed_version", lambda: version)
    with pytest.raises(EngineUnavailable, match=message):
        import_vllm()


class Recorder:
    """Stands for vLLM's engine on a GPU, and writes down what it was told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.held: dict[str, torch.Tensor] = {}
        self.wakes = True

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> bool:
        self.calls.append(("wake", *tags))
        return tags == ["kv_cache"] and self.wakes

    def collective_rpc(self, method: Any, kwargs: Any = None) -> list[Any]:
        if kwargs is None:  # the vectors that the one worker holds
            return [self.held]
        self.held = {name: tensor.to(torch.bfloat16) for name, tensor in kwargs["weights_iterator"]}
        self.calls.append((method, list(self.held)))
        return [None]

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return True


def on_a_gpu() -> VLLMEngine:
    engine = VLLMEngine.__new__(VLLMEngine)
    engine.llm, engine._cpu, engine._sleeping, engine._asleep, engine._warned = (
        Recorder(),
        False,
        True,
        False,
        False,
    )
    engine._under_way, engine._known, engine._adapter = (set(), {}, None)
    engine._weights = WholeWeights(torch.bfloat16, False, 1)
    return engine


def test_the_order_of_a_sleep() -> None:
    """Weights' memory, weights, then the cache's memory: at no time are learner, weights and cache all in memory."""
    engine = on_a_gpu()
    weights = [("model.norm.weight", torch.zeros(2)), ("model.embed_tokens.weight", torch.zeros(2))]
    for _ in range(2):
        engine.sleep()
        engine.wake()
        engine.load_weights(weights, 7)
    once = [
        ("sleep", 2),
        ("wake", "weights"),
        ("reload_weights", ["model.norm.weight", "model.embed_tokens.weight"]),
        ("wake", "kv_cache"),
        "reset",
    ]
    assert engine.llm.calls == once * 2 and engine.version == 7


def test_tensors_that_came_before_must_come_again() -> None:
    engine = on_a_gpu()
    engine.load_weights([("a", torch.zeros(2)), ("b", torch.zeros(2))], 1)
    with pytest.raises(StaleWeights, match="1 of 2 tensors are missing, such as b"):
        engine.load_weights([("a", torch.zeros(2))], 2)
    assert engine.version == 1


def test_a_vector_that_is_not_what_was_sent_is_seen_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One entry of 4,096 moved by the last bit of bfloat16, as a step at a small learning rate moves it."""
    engine = on_a_gpu()
    norm = torch.ones(4096)
    engine.load_weights([("model.norm.weight", norm)], 1)
    norm[7] = 1 - 2**-8
    engine.load_weights([("model.norm.weight", norm)], 2)
    norm[7] -= 2**-8
    real = engine.llm.collective_rpc
    monkeypatch.setattr(
        engine.llm,
        "collective_rpc",
        lambda method, kwargs=None: real(method) if kwargs is None else None,
    )
    with pytest.raises(StaleWeights, match=r"vLLM holds other values of model\.norm\.weight"):
        engine.load_weights([("model.norm.weight", norm)], 3)
    assert engine.version == 2


def test_an_engine_that_does_not_wake_up_or_raises_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = on_a_gpu()
    engine.sleep()
    engine.llm.wakes = False
    with pytest.raises(StaleWeights, match="did not wake up"):
        engine.load_weights([("a", torch.zeros(2))], 1)

    def full(**kwargs: Any) -> None:
        raise RuntimeError("CUDA Error: out of memory at cumem_allocator.cpp")

    for name, doing in (("sleep", engine.sleep), ("wake_up", engine.wake)):
        monkeypatch.setattr(engine.llm, name, full)
        with pytest.raises(EngineFailure, match="out of memory"):
            doing()


def test_frozen_weights_are_not_dropped_in_a_sleep() -> None:
    engine = on_a_gpu()
    engine._adapter = "the learner's"
    engine.sleep()
    assert engine.llm.calls == [("sleep", 1)]


def test_without_sleeping_nothing_is_dropped() -> None:
    engine = on_a_gpu()
    engine._sleeping = False
    engine.sleep()
    engine.wake()
    assert engine.llm.calls == []
