"""The vLLM engine, for real: the same log-probs, stops and contract as the torch engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.contexts import WindowContext
from ragen_lite.agents.engines.protocol import (
    EngineFailure,
    EngineSetup,
    EngineUnavailable,
    Request,
)
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Completion, Sampling, Start, Stop
from ragen_lite.learning.samples import to_samples
from ragen_lite.learning.scoring import scorer

pytestmark = pytest.mark.vllm


def prompts(n: int, length: int = 60) -> list[tuple[int, ...]]:
    return [tuple(row) for row in np.random.default_rng(1).integers(300, 420, (n, length)).tolist()]


def generate(engine: Any, texts: list[tuple[int, ...]], sampling: Sampling) -> list[Completion]:
    for i, text in enumerate(texts):
        engine.submit(Request(i, text, sampling, key=1000 + i))
    done: dict[int, Completion] = {}
    while len(done) < len(texts):
        done |= dict(engine.step())
    for i in range(len(texts)):
        engine.release(i)
    return [done[i] for i in range(len(texts))]


def logprobs(
    model: Any, prompt: tuple[int, ...], reply: tuple[int, ...], temperature: float
) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1] / (
            temperature or 1.0
        )
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(reply)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_log_probs_are_those_of_transformers(
    engine: VLLMEngine, policy: Any, temperature: float
) -> None:
    texts = prompts(8)
    for text, reply in zip(texts, generate(engine, texts, Sampling(temperature, 24)), strict=True):
        assert len(reply.token_ids) == len(reply.logprobs) == 24 or reply.stop is Stop.EOS
        expected = logprobs(policy, text, reply.token_ids, temperature)
        assert (expected - torch.tensor(reply.logprobs)).abs().max() < 1e-5


def test_every_stop_id_ends_a_reply_and_belongs_to_it(
    engine: VLLMEngine, policy: Any, chat: Chat
) -> None:
    with torch.no_grad():  # a model that ends at once
        policy.model.norm.weight.mul_(0.0)
    engine.load_weights(policy.named_parameters(), 1)
    replies = generate(engine, prompts(32, 5) * 8, Sampling(1.0, 40))
    ends = [r for r in replies if r.stop is Stop.EOS]
    assert ends and all(r.token_ids[-1] in chat.stop_ids for r in ends)
    assert all(t not in chat.stop_ids for r in replies for t in r.token_ids[:-1])
    assert all(
        r.logprobs[-1] == pytest.approx(-math.log(policy.config.vocab_size), abs=1e-4) for r in ends
    )


def test_tokens_are_drawn_from_the_distribution(engine: VLLMEngine, policy: Any) -> None:
    """Pearson's chi-squared of 6,400 draws at temperature 0.7 against the model's probabilities, in 20 classes."""
    text = prompts(1)[0]
    with torch.no_grad():
        p = torch.softmax(policy(torch.tensor([text])).logits[0, -1].double() / 0.7, -1).numpy()
    drawn = [r.token_ids[0] for k in range(200) for r in generate_keyed(engine, text, 32, k)]
    order = np.argsort(p)
    classes = np.searchsorted(np.cumsum(p[order]), np.linspace(0, 1, 21)[1:-1])
    where = np.empty(len(p), dtype=int)
    where[order] = np.searchsorted(classes, np.arange(len(p)), side="right")
    expected = np.bincount(where, weights=p, minlength=20) * len(drawn)
    seen = np.bincount(where[drawn], minlength=20)
    assert (
        (seen - expected) ** 2 / expected
    ).sum() < 43.8  # the 0.1% point of 19 degrees of freedom


def generate_keyed(engine: VLLMEngine, text: tuple[int, ...], n: int, key: int) -> list[Completion]:
    for i in range(n):
        engine.submit(Request(i, text, Sampling(0.7, 1), key * 1000 + i))
    done: dict[int, Completion] = {}
    while len(done) < n:
        done |= dict(engine.step())
    for i in range(n):
        engine.release(i)
    return list(done.values())


def test_the_same_keys_give_the_same_draws_whatever_was_drawn_before(engine: VLLMEngine) -> None:
    first = generate(engine, prompts(6), Sampling(1.0, 12))
    torch.rand(7)
    generate(engine, prompts(3), Sampling(1.0, 5))
    assert generate(engine, prompts(6), Sampling(1.0, 12)) == first


def test_it_draws_nothing_from_the_learners_generator(engine: VLLMEngine) -> None:
    before = torch.get_rng_state()
    generate(engine, prompts(4), Sampling(1.0, 8))
    assert torch.equal(before, torch.get_rng_state())


def test_later_turns_are_read_from_the_prefix_cache(engine: VLLMEngine) -> None:
    ids = [list(text) for text in prompts(8)]
    engine.reset_metrics()
    for _ in range(5):
        for i, text in enumerate(ids):
            engine.submit(Request(i, tuple(text), Sampling(1.0, 20), i))
        done: dict[int, Completion] = {}
        while len(done) < 8:
            done |= dict(engine.step())
        for i, text in enumerate(ids):
            text += [*done[i].token_ids, *range(300, 320)]
    assert engine.metrics()["rollout/prefix_hits"] > 0.9
    engine.reset_metrics()
    assert engine.metrics() == {}
    for i in range(8):
        engine.release(i)


def test_requests_that_cannot_be_served(engine: VLLMEngine) -> None:
    with pytest.raises(ValueError, match="no token to begin with"):
        engine.submit(Request(0, (), Sampling(), 0))
    with pytest.raises(ValueError, match="do not fit max_model_len=1024"):
        engine.submit(Request(0, (300,) * 1000, Sampling(1.0, 25), 0))
    (reply,) = generate_one(engine, (300,) * 9)
    with pytest.raises(ValueError, match="does not continue"):
        engine.submit(Request(0, (301,) * 40, Sampling(), 0))
    engine.submit(Request(0, (300,) * 9 + reply.token_ids, Sampling(), 0))
    with pytest.raises(RuntimeError, match="under way"):
        engine.load_weights([], 1)
    engine.release(0)
    assert engine.step() == []


def generate_one(engine: VLLMEngine, text: tuple[int, ...]) -> list[Completion]:
    engine.submit(Request(0, text, Sampling(1.0, 4), 0))
    while not (done := engine.step()):
        pass
    return [completion for _, completion in done]


def test_what_goes_wrong_within_vllm_is_an_engine_failure(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(engine.llm, "step", fail)
    engine.submit(Request(0, (300,) * 9, Sampling(), 0))
    with pytest.raises(EngineFailure, match="vLLM, generating: RuntimeError: CUDA out of memory"):
        engine.step()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensor_paralel_size", "is no engine argument of vLLM; did you mean tensor_parallel_size"),
        ("logprobs_mode", "is set here"),
        ("max_num_seqs", "is set here by engine.slots"),
        ("tokenizer", "is set here"),
    ],
)
def test_options_that_it_does_not_take(policy: Any, name: str, message: str) -> None:
    with pytest.raises(EngineUnavailable, match=f"engine.options.{name} {message}"):
        VLLMEngine(EngineSetup(policy, frozenset({2}), 64, options={name: 1}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("gpu_memory_utilization", v) for v in ("abc", None, 0, 5)]
    + [("tensor_parallel_size", "two")],
)
def test_values_that_cannot_be(policy: Any, name: str, value: Any) -> None:
    with pytest.raises(EngineUnavailable, match=f"engine.options.{name}={value}: it is"):
        VLLMEngine(EngineSetup(policy, frozenset({2}), 64, options={name: value}))


def test_a_process_takes_one_engine(engine: VLLMEngine, policy: Any) -> None:
    with pytest.raises(EngineUnavailable, match="close it first"):
        VLLMEngine(EngineSetup(policy, frozenset({2}), 64))


def test_sleep_does_nothing_on_a_cpu_and_says_so_once(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine, "note", said.append)
    monkeypatch.setattr(engine, "_sleeping", True)
    for _ in range(3):
        engine.sleep()
        engine.wake()
        engine.load_weights(policy.named_parameters(), 1)
    assert len(said) == 1 and "does nothing on a CPU" in said[0]
    generate(engine, prompts(1), Sampling(1.0, 3))


def test_several_contexts_of_a_trajectory_are_exact(
    engine: VLLMEngine, policy: Any, tokenizer: Any
) -> None:
    """A window forgets what went before: each context's log-probs are the learner's all the same."""
    task = EnvSpec("ragen_lite/Sokoban-v0", {"max_turns": 4, "max_actions": 4})
    rollout = Rollout(engine, Chat(tokenizer), task, 0, WindowContext(turns=1))
    played = rollout.play([Start(seed) for seed in range(4)], Sampling(0.7, 16))
    rollout.close()
    assert max(len(t.contexts) for t in played) == 3
    samples = [
        s for t in played for s in to_samples(t, [np.zeros(len(c.token_ids)) for c in t.contexts])
    ]
    for trajectory in played:
        trajectory.check()
    for sample, found in zip(samples, scorer(policy, 0.7)(samples), strict=True):
        assert np.abs(found - sample.behaviour_logprobs[sample.loss_mask]).max() < 1e-4
