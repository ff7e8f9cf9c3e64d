"""Which engine is taken and why; an engine that is built again; the canary beside the torch engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite import engines, sync
from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engine import EngineFailure, Restarting, StaleWeights
from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.agents.rollout import Rollout, Start
from ragen_lite.agents.torch_engine import TorchEngine
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.batch import Sample, correct
from ragen_lite.config import AlgoConfig, Config, ConfigError, EngineConfig
from ragen_lite.learner import scorer
from ragen_lite.loss import truncated_weights
from ragen_lite.sync import WeightSync, probe_prompts

SOKOBAN = EnvSpec("ragen_lite/Sokoban-v0")


def test_auto_takes_vllm_where_it_is_and_a_gpu_too() -> None:
    assert engines.choose(gpu=True, vllm="0.33.0") == ("vllm", "there is a GPU and vLLM 0.33.0")
    assert engines.choose(gpu=False, vllm="0.33.0") == ("torch", "there is no GPU")
    name, why = engines.choose(gpu=True, vllm="0.34.1")
    assert name == "torch" and "vLLM 0.34.1 is not one of the versions" in why
    assert engines.choose(gpu=True, vllm="0.33.0", dtype="float64") == ("torch", "vLLM has no float64")
    name, why = engines.choose(gpu=True, vllm=None)
    assert name == "torch" and "vLLM is not installed (pip install" in why


def test_auto_is_resolved_once_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    notes: list[str] = []
    config = Config()
    engines.resolve(config, notes.append)
    engines.resolve(config, notes.append)
    assert config.engine.name == "torch" and notes == ["engine=auto takes torch: there is no GPU"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(engine=EngineConfig("torch", options={"budget": 3})), "engine.options does nothing with engine=torch"),
        (
            Config(engine=EngineConfig("auto", options={"x": 3})),
            r"engine=auto, which takes torch here \(there is no GPU",
        ),
        (
            Config(engine=EngineConfig("torch"), algo=AlgoConfig(correction="token")),
            "algo.correction=token does nothing with engine=torch",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(config: Config, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        engines.resolve(config, lambda text: None)


# ---- an engine that fails ----


class Failing(TorchEngine):
    """Fails at the given call of its step, halfway through its work."""

    fail_at = -1
    calls = 0

    def step(self) -> Any:
        self.calls += 1
        if self.calls == self.fail_at:
            raise EngineFailure("the device went away")
        return super().step()


def test_an_engine_is_built_again_once_and_the_trajectories_are_the_same(model: Any, chat: Chat) -> None:
    starts = [Start(seed) for seed in range(6)]
    whole = Rollout(TorchEngine(model, chat.stop_ids, 800), chat, SOKOBAN, 3).play(starts, Sampling(1.0, 16))
    built: list[Failing] = []

    def build() -> Failing:
        engine = Failing(model, chat.stop_ids, 800)
        engine.fail_at = 20 if not built else -1
        built.append(engine)
        return engine

    notes: list[str] = []
    engine = Restarting(build, notes.append)
    rollout = Rollout(engine, chat, SOKOBAN, 3)
    for mended, other in zip(rollout.play(starts, Sampling(1.0, 16)), whole, strict=True):
        assert mended.token_ids == other.token_ids  # draws belong to keys, so even the lost replies come back
        assert mended.logprobs == pytest.approx(other.logprobs, abs=1e-5) and mended.outcome == other.outcome
    assert len(built) == 2 and len(notes) == 1
    assert "the device went away" in notes[0] and "6 replies under way are sampled again" in notes[0]
    assert engine.metrics() == {"rollout/engine_restarts": 1.0} and engine.metrics() == {}
    built[1].fail_at = built[1].calls + 20
    with pytest.raises(EngineFailure, match="failed a second time: the device went away"):
        rollout.play(starts, Sampling(1.0, 16))


def test_an_engine_that_cannot_be_built_again_is_a_failure(model: Any, chat: Chat) -> None:
    built: list[Failing] = []

    def build() -> Failing:
        if built:
            raise RuntimeError("no memory for a second one")
        built.append(Failing(model, chat.stop_ids, 800))
        built[0].fail_at = 3
        return built[0]

    rollout = Rollout(Restarting(build, lambda text: None), chat, SOKOBAN, 3)
    with pytest.raises(EngineFailure, match="the device went away; it cannot be built again: no memory"):
        rollout.play([Start(0)], Sampling(1.0, 16))


def test_running_out_of_memory_is_an_engine_failure(model: Any, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(model, chat.stop_ids, 800)

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "_forward", full)
    with pytest.raises(EngineFailure, match="CUDA out of memory - a smaller engine.slots"):
        Rollout(engine, chat, SOKOBAN, 3).play([Start(0)], Sampling(1.0, 16))


# ---- the canary ----


def test_the_probe_is_fixed_and_has_no_control_token(tokenizer: Any) -> None:
    prompts = probe_prompts(tokenizer, 1024)
    assert prompts == probe_prompts(tokenizer, 1024) and [len(p) for p in prompts] == [80] * 4
    assert not {t for p in prompts for t in p} & set(tokenizer.all_special_ids)
    assert [len(p) for p in probe_prompts(tokenizer, 20)] == [12] * 4


def test_the_canary_sees_other_weights_versions_and_numbers_that_are_none(
    model: Any, chat: Chat, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(model, chat.stop_ids, 800)
    weights = WeightSync(model, scorer(model, 0.7), tokenizer, "float32", 0.7)
    weights(engine, 3)
    assert engine.version == 3 and 0 < weights.gap < 1e-5
    with pytest.raises(StaleWeights, match="the weights of step 3, the learner is at 4"):
        weights.check(engine, 4)
    wrong_temperature = WeightSync(model, scorer(model, 1.0), tokenizer, "float32", 0.7)
    with pytest.raises(StaleWeights, match="differ by"):
        wrong_temperature(engine, 4)
    monkeypatch.setattr(weights, "score", lambda samples: [np.full(int(s.trained.sum()), np.nan) for s in samples])
    with pytest.raises(StaleWeights, match="differ by nan"):
        weights.check(engine, 4)
    assert sync.TOLERANCE["float32"] == 1e-4


# ---- truncated importance weights ----


def sample(behaviour: list[float]) -> Sample:
    """Two prompt tokens, three sampled ones."""
    return Sample([5, 6, 7, 8, 2], np.arange(5) >= 2, np.array([0.0, 0.0, *behaviour]), np.array([9.0, 9.0, 1, -2, 3]))


def test_importance_weights_by_hand() -> None:
    engine, learner = np.log([0.5, 0.2, 0.1]), np.log([0.25, 0.3, 0.4])
    ((token,), metrics) = correct([sample(engine.tolist())], [learner], "token")
    assert token.behaviour[2:] == pytest.approx(learner)
    assert token.advantages == pytest.approx([9, 9, 0.5, -2 * 1.5, 3 * 2.0])  # 4 is truncated to 2
    assert metrics["train/correction"] == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert metrics["train/logprob_gap"] == pytest.approx(np.log(4))
    ratios = np.array([0.5, 1.5, 4.0])
    assert metrics["train/mismatch_kl"] == pytest.approx((ratios - 1 - np.log(ratios)).mean())
    ((sequence,), _) = correct([sample(engine.tolist())], [learner - np.log(2)], "sequence")
    assert sequence.advantages == pytest.approx([9, 9, *(np.array([1, -2, 3]) * 0.5 * 1.5 * 4.0 / 8)])


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_without_a_gap_nothing_is_corrected(level: str) -> None:
    assert truncated_weights(np.log([0.5, 0.5, 0.9]), np.log([1.0, 0.5, np.nan]), level).tolist() == (
        pytest.approx([0.5, 1.0, 1.0] if level == "token" else [0.5, 0.5, 1.0])
    )
    before = sample([-0.3, -0.2, float("nan")])  # nan: no engine sampled it
    ((after,), metrics) = correct([before], [np.array([-0.3, -0.2, -0.7])], level)
    assert after.advantages.tolist() == before.advantages.tolist()
    assert after.behaviour.tolist() == [0.0, 0.0, -0.3, -0.2, -0.7]
    assert metrics == {"train/logprob_gap": 0.0, "train/mismatch_kl": 0.0, "train/correction": 1.0}
