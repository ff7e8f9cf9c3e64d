"""Which engine is taken and why; an engine that is built again; the canary beside the torch engine."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engines.protocol import EngineFailure, EngineSetup, StaleWeights
from ragen_lite.agents.engines.restarting import Restarting
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start
from ragen_lite.algorithms.corrections import SequenceWeights, TokenWeights
from ragen_lite.config.schema import ConfigError, EngineConfig, ModelConfig
from ragen_lite.learning import generation, sync
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.correction import apply_correction
from ragen_lite.learning.scoring import scorer
from ragen_lite.learning.sync import WeightSync, probe_prompts
from ragen_lite.models.loading import load_policy
from tests.fixtures.making import torch_engine

PLAIN = np.arange(300, 800)  # no control tokens of the embedded tokenizer
SOKOBAN = EnvSpec("ragen_lite/Sokoban-v0")


def test_auto_takes_vllm_where_it_is_and_a_gpu_too() -> None:
    assert generation.choose(gpu=True, vllm="0.33.0") == ("vllm", "there is a GPU and vLLM 0.33.0")
    assert generation.choose(gpu=False, vllm="0.33.0") == ("torch", "there is no GPU")
    name, why = generation.choose(gpu=True, vllm="0.34.1")
    assert name == "torch" and "vLLM 0.34.1 is not one of the versions" in why
    assert generation.choose(gpu=True, vllm="0.33.0", dtype="float64") == (
        "torch",
        "vLLM has no float64",
    )
    name, why = generation.choose(gpu=True, vllm=None)
    assert name == "torch" and "vLLM is not installed (pip install" in why


def test_auto_is_resolved_once_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = generation.resolve(EngineConfig())
    assert (choice.config.name, choice.note) == (
        "torch",
        "engine=auto takes torch: there is no GPU",
    )
    again = generation.resolve(choice.config)
    assert again.note is None and again.config == choice.config


@pytest.mark.parametrize(
    ("config", "correction", "message"),
    [
        (
            EngineConfig("torch", options={"budget": 3}),
            "off",
            "engine.options does nothing with engine=torch",
        ),
        (
            EngineConfig("auto", options={"x": 3}),
            "off",
            r"engine=auto, which takes torch here \(there is no GPU",
        ),
        (
            EngineConfig("torch", lora="adapter"),
            "off",
            "engine.lora=adapter does nothing with engine=torch",
        ),
        (EngineConfig("torch"), "token", "correction=token does nothing with engine=torch"),
    ],
)
def test_what_would_do_nothing_is_refused(
    config: EngineConfig, correction: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        generation.check_correction(correction, generation.resolve(config), 0)


def test_an_adapter_that_the_model_does_not_have_is_refused() -> None:
    policy = load_policy(ModelConfig(path="scratch:16x1x2"))
    with pytest.raises(ConfigError, match="engine.lora=adapter: .* has no LoRA adapter"):
        generation.make(EngineConfig("vllm", lora="adapter"), policy, False, print)


def test_a_correction_does_something_where_the_weights_are_older() -> None:
    choice = generation.resolve(EngineConfig("torch"))
    generation.check_correction("token", choice, 1)
    generation.check_correction("off", choice, 0)


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


def test_an_engine_is_built_again_once_and_the_trajectories_are_the_same(
    model: Any, chat: Chat
) -> None:
    starts = [Start(seed) for seed in range(6)]
    whole = Rollout(torch_engine(model, chat.stop_ids, 800), chat, SOKOBAN, 3).play(
        starts, Sampling(1.0, 16)
    )
    built: list[Failing] = []

    def build() -> Failing:
        engine = Failing(EngineSetup(model, chat.stop_ids, 800))
        engine.fail_at = 20 if not built else -1
        built.append(engine)
        return engine

    notes: list[str] = []
    engine = Restarting(build, notes.append)
    rollout = Rollout(engine, chat, SOKOBAN, 3)
    for mended, other in zip(rollout.play(starts, Sampling(1.0, 16)), whole, strict=True):
        assert (
            mended.contexts[0].token_ids == other.contexts[0].token_ids
        )  # draws belong to keys, so even the lost replies come back
        assert (
            mended.contexts[0].behaviour_logprobs
            == pytest.approx(other.contexts[0].behaviour_logprobs, abs=1e-5)
            and mended.outcome == other.outcome
        )
    assert len(built) == 2 and len(notes) == 1
    assert (
        "the device went away" in notes[0] and "6 replies under way are sampled again" in notes[0]
    )
    assert engine.metrics() == {"rollout/engine_restarts": 1.0}
    engine.reset_metrics()
    assert engine.metrics() == {}
    built[1].fail_at = built[1].calls + 20
    with pytest.raises(EngineFailure, match="failed a second time: the device went away"):
        rollout.play(starts, Sampling(1.0, 16))


def test_an_engine_that_cannot_be_built_again_is_a_failure(model: Any, chat: Chat) -> None:
    built: list[Failing] = []

    def build() -> Failing:
        if built:
            raise RuntimeError("no memory for a second one")
        built.append(Failing(EngineSetup(model, chat.stop_ids, 800)))
        built[0].fail_at = 3
        return built[0]

    rollout = Rollout(Restarting(build, lambda text: None), chat, SOKOBAN, 3)
    with pytest.raises(
        EngineFailure, match="the device went away; it cannot be built again: no memory"
    ):
        rollout.play([Start(0)], Sampling(1.0, 16))


def test_running_out_of_memory_is_an_engine_failure(
    model: Any, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = torch_engine(model, chat.stop_ids, 800)

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "_forward", full)
    with pytest.raises(EngineFailure, match="CUDA out of memory - a smaller engine.slots"):
        Rollout(engine, chat, SOKOBAN, 3).play([Start(0)], Sampling(1.0, 16))


# ---- the canary ----


def test_the_probe_is_fixed_and_has_no_control_token(tokenizer: Any) -> None:
    prompts = probe_prompts(PLAIN, 1024)
    assert prompts == probe_prompts(PLAIN, 1024) and [len(p) for p in prompts] == [80] * 4
    assert not {t for p in prompts for t in p} & set(tokenizer.all_special_ids)
    assert [len(p) for p in probe_prompts(PLAIN, 20)] == [12] * 4


def test_the_canary_sees_other_weights_versions_and_numbers_that_are_none(
    model: Any, chat: Chat, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = torch_engine(model, chat.stop_ids, 800)
    weights = WeightSync(model, scorer(model, 0.7), PLAIN, "float32", 0.7)
    weights(engine, 3)
    assert engine.version == 3 and 0 < weights.gap < 1e-5
    with pytest.raises(StaleWeights, match="the weights of step 3, the learner is at 4"):
        weights.check(engine, 4)
    wrong_temperature = WeightSync(model, scorer(model, 1.0), PLAIN, "float32", 0.7)
    with pytest.raises(StaleWeights, match="differ by"):
        wrong_temperature(engine, 4)
    monkeypatch.setattr(
        weights, "score", lambda samples: [np.full(s.trained, np.nan) for s in samples]
    )
    with pytest.raises(StaleWeights, match="differ by nan"):
        weights.check(engine, 4)
    assert sync.TOLERANCE["float32"] == 1e-4


# ---- truncated importance weights ----


def sample(behaviour: list[float]) -> Sample:
    """Two prompt tokens, three sampled ones."""
    return Sample(
        [5, 6, 7, 8, 2],
        np.arange(5) >= 2,
        np.array([0.0, 0.0, *behaviour]),
        np.array([9.0, 9.0, 1, -2, 3]),
        np.arange(5) >= 2,
    )


def test_importance_weights_by_hand() -> None:
    engine, learner = np.log([0.5, 0.2, 0.1]), np.log([0.25, 0.3, 0.4])
    ((token,), metrics) = apply_correction([sample(engine.tolist())], [learner], TokenWeights())
    assert token.behaviour_logprobs[2:] == pytest.approx(learner)
    assert token.advantages == pytest.approx([9, 9, 0.5, -2 * 1.5, 3 * 2.0])  # 4 is truncated to 2
    assert metrics["train/correction"] == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert metrics["train/logprob_gap"] == pytest.approx(np.log(4))
    ratios = np.array([0.5, 1.5, 4.0])
    assert metrics["train/mismatch_kl"] == pytest.approx((ratios - 1 - np.log(ratios)).mean())
    ((sequence,), _) = apply_correction(
        [sample(engine.tolist())], [learner - np.log(2)], SequenceWeights()
    )
    assert sequence.advantages == pytest.approx(
        [9, 9, *(np.array([1, -2, 3]) * 0.5 * 1.5 * 4.0 / 8)]
    )


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_without_a_gap_nothing_is_corrected(level: str) -> None:
    correction = TokenWeights() if level == "token" else SequenceWeights()
    everywhere = sample([-0.3, -0.2, -5.0])
    sampled = np.array([False, False, True, True, False])  # no engine sampled the last one
    before = dataclasses.replace(everywhere, sampled=sampled)
    ((after,), metrics) = apply_correction([before], [np.array([-0.3, -0.2, -0.7])], correction)
    assert after.advantages.tolist() == before.advantages.tolist()
    assert after.behaviour_logprobs.tolist() == [0.0, 0.0, -0.3, -0.2, -0.7]
    assert metrics == {"train/logprob_gap": 0.0, "train/mismatch_kl": 0.0, "train/correction": 1.0}
    ((half,), _) = apply_correction(
        [before], [np.array([-0.3, -0.2, -0.7]) + np.log(0.5)], correction
    )
    weights = half.advantages / before.advantages
    each = 0.5 if level == "token" else 0.25
    assert weights[2:] == pytest.approx([each, each, 1.0])
