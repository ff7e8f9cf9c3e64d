"""The learner: one gradient however a step is cut, chunked logits, skipped steps, agreement with the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engines.threads import SMALL
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start
from ragen_lite.algorithms.kl import K3
from ragen_lite.algorithms.losses import AGGREGATIONS, PPO, Loss, token_weights
from ragen_lite.learning.batches import Sample, collate
from ragen_lite.learning.learner import Learner, NotFinite
from ragen_lite.learning.making import frozen
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.passes import side_by_side
from ragen_lite.learning.samples import demonstration, to_samples
from ragen_lite.learning.scoring import token_logprobs
from ragen_lite.models import scratch
from tests.fixtures.making import torch_engine

OPTIM = Optim(lr=1e-3, steps=10)


LOSS = PPO(entropy_coef=0.01)


def double(tokenizer: Any, seed: int = 1) -> Any:
    return scratch.make_model(
        tokenizer, hidden=32, layers=2, heads=4, context=512, seed=seed
    ).double()


def samples(n: int = 8) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        length = int(rng.integers(6, 40))
        trained = rng.random(length) < 0.4
        trained[0], trained[-1] = False, True
        made.append(
            Sample(
                rng.integers(260, 400, length).tolist(),
                trained,
                rng.normal(-6, 0.1, length),
                rng.normal(size=length),
                trained,
            )
        )
    return made


def gradient_of(
    learner: Learner, data: list[Sample], weights: list[float], loss: Loss
) -> torch.Tensor:
    """The gradient of a step, which is stopped before it is clipped and used."""
    learner._update = lambda metrics: metrics  # type: ignore[method-assign]
    learner.step(data, weights, loss)
    grads = [p.grad for p in learner.model.parameters()]
    return torch.cat([grad.ravel() for grad in grads if grad is not None])


def gradient(tokenizer: Any, budget: int, aggregation: str) -> torch.Tensor:
    model = double(tokenizer)
    learner = Learner(model, dataclasses.replace(OPTIM, microbatch_tokens=budget))
    data = samples()
    weights = token_weights([s.trained for s in data], aggregation, 48)
    return gradient_of(learner, data, weights, LOSS)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_gradient_is_the_same_for_any_micro_batches(tokenizer: Any, aggregation: str) -> None:
    whole = gradient(tokenizer, 100_000, aggregation)
    assert whole.abs().max() > 1e-3
    for budget in (300, 150, 40):  # up to 8 micro-batches
        other = gradient(tokenizer, budget, aggregation)
        assert (whole - other).abs().max() < 1e-6 * max(1.0, float(whole.abs().max()))


@pytest.fixture
def several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3, "a step leaves the threads as they were"
    torch.set_num_threads(before)


def test_passes_side_by_side_change_no_byte(tokenizer: Any, several_threads: None) -> None:
    found = []
    for in_turn in (True, False):
        torch.set_num_threads(1 if in_turn else 3)
        learner = Learner(double(tokenizer), dataclasses.replace(OPTIM, microbatch_tokens=40))
        data = samples()
        weights = token_weights([s.trained for s in data], "token")
        metrics = [learner.step(data, weights, LOSS) for _ in range(3)]
        assert side_by_side(learner.model, 40) == (1 if in_turn else 3)
        found.append((metrics, [p.detach() for p in learner.trained]))
    (alone, first), (beside, second) = found
    assert alone == beside
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_error_in_one_pass_is_the_steps(tokenizer: Any, several_threads: None) -> None:
    learner = Learner(double(tokenizer), dataclasses.replace(OPTIM, microbatch_tokens=40))
    data = samples()
    data[3] = dataclasses.replace(data[3], token_ids=[10**6] * len(data[3].token_ids))
    with pytest.raises(IndexError):
        learner.step(data, [1.0] * len(data), LOSS)


def test_a_large_model_gives_all_threads_to_one_pass(several_threads: None) -> None:
    small, large = torch.nn.Linear(SMALL // 4, 4, bias=False), torch.nn.Linear(SMALL // 4, 4)
    assert side_by_side(small, 40) == 3
    assert side_by_side(large, 40) == side_by_side(small.to("meta"), 40) == 1


def test_passes_at_once_stay_within_a_budget_of_tokens(several_threads: None) -> None:
    model = torch.nn.Linear(2, 2)
    found = [side_by_side(model, tokens) for tokens in (5461, 5462, 8192, 8193, 16_384, 50_000)]
    assert found == [3, 2, 2, 1, 1, 1]


def test_chunked_logits_give_the_same_values_and_gradient(tokenizer: Any) -> None:
    found = []
    for chunk in (10**9, 7 * 512):
        model = double(tokenizer)
        data = samples()
        batch = collate(data, [1.0] * 8, range(8), 0, torch.float64)
        logprobs, entropy = token_logprobs(model, batch, 0.7, chunk)
        (logprobs.sum() + entropy.sum()).backward()
        found.append(
            (
                logprobs.detach(),
                entropy.detach(),
                torch.cat([p.grad.ravel() for p in model.parameters()]),
            )
        )
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 1e-9


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_log_probs_are_the_models_own(family: str) -> None:
    shape: dict[str, Any] = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    configs = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    model: Any = (
        AutoModelForCausalLM.from_config(configs[family](**shape), attn_implementation="sdpa")
        .double()
        .eval()
    )
    rng = np.random.default_rng(0)
    data = []
    for length in (9, 5, 7):
        data.append(demonstration(rng.integers(4, 40, length).tolist(), np.arange(length) % 2 == 1))
    for part in ([0, 1, 2], [2, 0], [1]):
        with torch.no_grad():
            found, _ = token_logprobs(model, collate(data, [1.0] * 3, part, 0, torch.float64), 0.5)
            expected = []
            for i in part:
                ids = torch.tensor([data[i].token_ids])
                all_of_it = torch.log_softmax(model(ids).logits[0] / 0.5, -1)[:-1].gather(
                    -1, ids[0, 1:, None]
                )[:, 0]
                expected.append(all_of_it[torch.from_numpy(data[i].loss_mask[1:])])
        assert torch.allclose(found, torch.cat(expected), atol=1e-10)


def test_only_trained_tokens_have_a_gradient(tokenizer: Any) -> None:
    """With the mask dropped the gradient differs: an observation would be learnt."""
    model = double(tokenizer)
    learner = Learner(model, OPTIM)
    data = samples(1)
    quiet = dataclasses.replace(
        data[0], advantages=np.where(data[0].loss_mask, 0.0, 1.0)
    )  # credit only where nothing was sampled
    assert not gradient_of(learner, [quiet], [1.0], PPO()).any()
    everywhere = np.arange(len(quiet.token_ids)) > 0
    unmasked = dataclasses.replace(quiet, loss_mask=everywhere, sampled=everywhere)
    assert gradient_of(learner, [unmasked], [1.0], PPO()).any()


def credit(trajectory: Any, value: float) -> list[Any]:
    return [np.full(len(context.token_ids), value) for context in trajectory.contexts]


def rollout(model: Any, chat: Chat, n: int = 6) -> list[Any]:
    engine = torch_engine(model, chat.stop_ids, 800, slots=4)
    spec = EnvSpec("ragen_lite/Sokoban-v0")
    return Rollout(engine, chat, spec, 3).play(
        [Start(s, member=s) for s in range(n)], Sampling(1.0, 16)
    )


def test_engine_and_learner_agree_also_after_an_update(
    tokenizer: Any, chat: Chat, model: Any
) -> None:
    learner = Learner(model, OPTIM)
    for _ in range(2):
        nothing = [to_samples(t, credit(t, 0.0)) for t in rollout(model, chat)]
        data = [sample for samples in nothing for sample in samples]
        weights = token_weights([s.trained for s in data], "token")
        data = [dataclasses.replace(s, advantages=np.ones(len(s.token_ids))) for s in data]
        metrics = learner.step(data, weights, LOSS)
        assert 0 < metrics["train/logprob_gap"] < 1e-5
        assert metrics["train/grad_norm"] > 0


def test_the_turn_mask_is_the_sampled_tokens_and_can_be_dropped(chat: Chat, model: Any) -> None:
    for t in rollout(model, chat, 2):
        (kept,) = to_samples(t, credit(t, 1.0))
        (dropped,) = to_samples(t, credit(t, 1.0), turn_mask=False)
        (context,) = t.contexts
        assert tuple(kept.loss_mask) == tuple(kept.sampled) == context.loss_mask
        assert dropped.trained == len(context.token_ids) - t.turns[0].start > kept.trained
        assert tuple(dropped.sampled) == context.loss_mask


def test_a_loss_that_is_no_number_skips_the_step_and_the_third_stops(tokenizer: Any) -> None:
    model = double(tokenizer)
    learner = Learner(model, OPTIM)
    before = [p.clone() for p in model.parameters()]
    data = samples(2)
    bad = [dataclasses.replace(s, advantages=np.full(len(s.token_ids), np.inf)) for s in data]
    assert learner.step(bad, [0.1, 0.1], LOSS)["train/skipped"] == 1
    assert learner.step(bad, [0.1, 0.1], LOSS)["train/skipped"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert learner.step(data, [0.1, 0.1], LOSS)["train/skipped"] == 0  # a good one in between
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    learner.step(bad, [0.1, 0.1], LOSS)
    learner.step(bad, [0.1, 0.1], LOSS)
    with pytest.raises(NotFinite, match="three optimiser steps in a row.*lower train.lr"):
        learner.step(bad, [0.1, 0.1], LOSS)
    assert learner.skipped == 5


def test_schedules() -> None:
    at = {
        s: [Optim(lr=1.0, steps=10, warmup=2, schedule=s).lr_at(k) for k in (0, 1, 2, 6, 10)]
        for s in ("constant", "linear", "cosine")
    }
    assert at["constant"] == [0.5, 1, 1, 1, 1]
    assert at["linear"] == pytest.approx([0.5, 1, 1, 0.55, 0.1])
    assert at["cosine"] == pytest.approx([0.5, 1, 1, 0.55, 0.1])


def test_the_kl_reference_is_frozen_and_enters(tokenizer: Any) -> None:
    model, reference = double(tokenizer), double(tokenizer, seed=2)
    learner = Learner(model, OPTIM, penalty=K3(coef=1.0), reference=frozen(reference))
    still = [dataclasses.replace(s, advantages=np.zeros(len(s.token_ids))) for s in samples(4)]
    weights = token_weights([s.trained for s in still], "token")
    kl = [learner.step(still, weights, PPO())["train/kl"] for _ in range(8)]
    assert kl[-1] < kl[0] and all(p.grad is None for p in reference.parameters())
