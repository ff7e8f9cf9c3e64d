"""The canary: every way in which an engine can be left with other weights than the learner's stops the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ragen_lite.agents.engines import vllm_weights
from ragen_lite.agents.engines.protocol import EngineFailure, StaleWeights
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.learning.sync import WeightSync

pytestmark = pytest.mark.vllm


@pytest.fixture(autouse=True)
def synced(engine: VLLMEngine, sync: WeightSync, change: Any) -> Iterator[None]:
    """Every test begins with an engine that was in step, and a learner that has moved on; it ends with one in step."""
    sync(engine, 1)
    assert sync.gap < 1e-5
    change()
    yield


def test_new_weights_arrive(engine: VLLMEngine, sync: WeightSync, change: Any) -> None:
    for version in (2, 3, 4):
        sync(engine, version)
        assert sync.gap < 1e-5 and engine.version == version
        change(1e-3)


def test_a_skipped_sync(
    engine: VLLMEngine, sync: WeightSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "load_weights", lambda tensors, version: None)
    with pytest.raises(StaleWeights, match="has the weights of step 1, the learner is at 2"):
        sync(engine, 2)


@pytest.mark.parametrize("size", [1e-2, 1e-3])
def test_a_sync_that_says_it_was_done(
    engine: VLLMEngine,
    sync: WeightSync,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    size: float,
    seen: str,
) -> None:
    """Also where the weights moved no further than a learning rate of 1e-3 moves them."""
    sync(engine, 2)
    change(size)
    rpc(engine, monkeypatch, lambda kwargs: None)
    with pytest.raises(StaleWeights, match=seen):
        sync(engine, 3)


@pytest.fixture(params=["comparison", "probe"])
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fault is seen by the engine's own comparison of vectors, and without it by the probe."""
    if request.param == "comparison":
        return "vLLM holds other values of model"
    monkeypatch.setattr(vllm_weights, "compare", lambda held, sent: None)
    return "differ by .* in the mean log-prob of a probe"


def rpc(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let ``change`` alter the arguments of every reload; None: it does nothing."""
    real = engine.llm.collective_rpc

    def call(method: Any, kwargs: Any = None) -> Any:
        if kwargs is None:
            return real(method)
        changed = change(kwargs)
        return None if changed is None else real(method, kwargs=changed)

    monkeypatch.setattr(engine.llm, "collective_rpc", call)


def test_a_reload_without_tensors_has_no_disk_to_read_from(
    engine: VLLMEngine, sync: WeightSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc(engine, monkeypatch, lambda kwargs: {})
    with pytest.raises(EngineFailure, match="reload"):
        sync(engine, 2)


def test_a_reload_from_disk(
    engine: VLLMEngine,
    sync: WeightSync,
    policy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    seen: str,
) -> None:
    """What a peer did: the checkpoint's weights come back."""
    policy.save_pretrained(tmp_path)
    change()
    monkeypatch.setattr(engine.llm.vllm_config.load_config, "load_format", "auto")
    monkeypatch.setattr(engine.llm.vllm_config.model_config, "model", str(tmp_path))
    overrides = {"weights_path": str(tmp_path)}
    rpc(engine, monkeypatch, lambda kwargs: overrides)
    with pytest.raises(StaleWeights, match=seen):
        sync(engine, 2)


def test_layers_that_changed_places(
    engine: VLLMEngine, sync: WeightSync, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    def swap(kwargs: dict[str, Any]) -> dict[str, Any]:
        names = {"layers.0": "layers.1", "layers.1": "layers.0"}
        swapped: list[tuple[str, Tensor]] = []
        for name, tensor in kwargs["weights_iterator"]:
            key = next((k for k in names if k in name), "")
            swapped.append((name.replace(key, names[key]) if key else name, tensor))
        return {"weights_iterator": swapped}

    rpc(engine, monkeypatch, swap)
    with pytest.raises(StaleWeights, match=seen):
        sync(engine, 2)


def test_a_prefix_cache_that_was_not_reset(
    engine: VLLMEngine, sync: WeightSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.llm, "reset_prefix_cache", lambda: True)
    with pytest.raises(StaleWeights, match="keys and values of older ones"):
        sync(engine, 2)
    monkeypatch.setattr(engine.llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(StaleWeights, match="did not reset its prefix cache"):
        sync(engine, 2)


def test_half_of_the_tensors_missing(engine: VLLMEngine, sync: WeightSync, policy: Any) -> None:
    half = list(policy.named_parameters())[::2]
    with pytest.raises(StaleWeights, match="of 24 tensors are missing, such as model.layers"):
        engine.load_weights(half, 2)


def test_half_of_the_tensors_lost_on_the_way(
    engine: VLLMEngine, sync: WeightSync, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    rpc(engine, monkeypatch, lambda kwargs: {"weights_iterator": kwargs["weights_iterator"][::2]})
    with pytest.raises(StaleWeights, match=seen):
        sync(engine, 2)
    monkeypatch.undo()
    # Half a model writes anything, even no number, into the cache's pages, and one probe clears them.
    with contextlib.suppress(StaleWeights):
        sync(engine, 3)
    sync(engine, 4)
    assert sync.gap < 1e-5
