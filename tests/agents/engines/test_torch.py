"""The torch engine: the learner's log-probs, draws that depend on nothing else, linear cost, three model families."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from ragen_lite.agents.engines import torch as torch_module
from ragen_lite.agents.engines.draws import draw_key, uniform
from ragen_lite.agents.engines.protocol import Request
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.trajectory import Completion, Sampling, Stop
from tests.fixtures.making import torch_engine

STOP = frozenset({3})
SAMPLING = Sampling(1.0, 12)


def small(family: str, dtype: torch.dtype = torch.float32) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)).to(dtype).eval()
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**shape)).to(dtype).eval()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8)).to(dtype).eval()


def run(engine: TorchEngine, requests: list[Request]) -> dict[int, Completion]:
    for request in requests:
        engine.submit(request)
    done: dict[int, Completion] = {}
    while len(done) < len(requests):
        for id, completion in engine.step():
            done[id] = completion
    return done


def converse(
    engine: TorchEngine, ids: list[int], turns: int = 3, seed: int = 0
) -> dict[int, tuple[list[int], list[Completion]]]:
    """Conversations of several turns with prompts of ragged lengths; each is a function of its id alone."""
    prompts = {
        i: np.random.default_rng([seed, i]).integers(4, 40, size=3 + i % 7).tolist() for i in ids
    }
    replies: dict[int, list[Completion]] = {i: [] for i in ids}
    for turn in range(turns):
        done = run(
            engine,
            [Request(i, tuple(prompts[i]), SAMPLING, draw_key(seed, i, 0, turn)) for i in ids],
        )
        for i in ids:
            replies[i].append(done[i])
            extra = (
                np.random.default_rng([seed, i, turn])
                .integers(4, 40, size=1 + (i + turn) % 4)
                .tolist()
            )
            prompts[i] = [*prompts[i], *done[i].token_ids, *extra]
    for i in ids:
        engine.release(i)
    return {i: (prompts[i], replies[i]) for i in ids}


def reference_logprobs(model: Any, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0] / temperature
    return torch.log_softmax(logits, -1)[:-1].gather(-1, torch.tensor(ids)[1:, None])[:, 0]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_log_probs_are_the_models_own_over_turns_slots_and_families(family: str) -> None:
    model = small(family)
    engine = torch_engine(model, STOP, 300, slots=5)  # fewer slots than trajectories
    for ids, replies in converse(engine, list(range(11))).values():
        at = 0
        for reply in replies:
            at = next(
                k
                for k in range(at, len(ids))
                if tuple(ids[k : k + len(reply.token_ids)]) == reply.token_ids
            )
            expected = reference_logprobs(model, ids[: at + len(reply.token_ids)])[at - 1 :]
            assert torch.allclose(torch.tensor(reply.logprobs), expected, atol=1e-5)
            at += len(reply.token_ids)


def test_a_trajectory_samples_the_same_alone_and_among_a_hundred() -> None:
    model = small("qwen3", torch.float64)
    among = converse(torch_engine(model, STOP, 300, slots=64), list(range(100)))
    for i in (0, 17, 63, 64, 99):
        alone = converse(torch_engine(model, STOP, 300, slots=1), [i])[i]
        assert [r.token_ids for r in alone[1]] == [r.token_ids for r in among[i][1]]
        assert alone[0] == among[i][0]


def test_draws_are_uniform_and_owned_by_their_key() -> None:
    keys = np.array([draw_key(0, s, 0, 0) for s in range(200)], dtype=np.uint64)
    numbers = np.concatenate([uniform(keys, np.full(200, p, dtype=np.uint64)) for p in range(50)])
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(np.mean(numbers < 0.1) - 0.1) < 0.01
    assert (
        len(
            {
                draw_key(r, s, m, t)
                for r in range(3)
                for s in range(3)
                for m in range(3)
                for t in range(3)
            }
        )
        == 81
    )
    assert uniform(keys[:1], np.array([7], dtype=np.uint64)) == uniform(
        keys[:1], np.array([7], dtype=np.uint64)
    )


def test_sampling_follows_the_distribution() -> None:
    model = small("qwen2")
    engine = torch_engine(model, frozenset(), 100, slots=256)
    n = 4000
    done = run(
        engine,
        [Request(i, (5, 6, 7), Sampling(1.0, 1), draw_key(0, i, 0, 0)) for i in range(n)][:256],
    )
    for start in range(256, n, 256):
        for i in range(start - 256, start):
            engine.release(i)
        done |= run(
            engine,
            [
                Request(i, (5, 6, 7), Sampling(1.0, 1), draw_key(0, i, 0, 0))
                for i in range(start, min(n, start + 256))
            ],
        )
    counts = np.bincount([c.token_ids[0] for c in done.values()], minlength=40) / len(done)
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([[5, 6, 7]])).logits[0, -1], -1).numpy()
    assert np.abs(counts - expected).max() < 5 * np.sqrt(0.25 / len(done))


def test_greedy_takes_the_best_and_temperature_scales_the_log_probs() -> None:
    model = small("qwen3")
    engine = torch_engine(model, frozenset(), 100)
    done = run(
        engine, [Request(0, (5, 6), Sampling(0.0, 4), 1), Request(1, (5, 6), Sampling(0.5, 4), 2)]
    )
    ids = [5, 6, *done[0].token_ids]
    with torch.no_grad():
        best = model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    assert list(done[0].token_ids) == best[1:-1]
    expected = reference_logprobs(model, [5, 6, *done[1].token_ids], 0.5)[1:]
    assert torch.allclose(torch.tensor(done[1].logprobs), expected, atol=1e-5)


def test_replies_stop_at_an_end_token_or_at_their_length() -> None:
    engine = torch_engine(small("qwen3"), frozenset(range(20)), 100)
    done = run(
        engine, [Request(i, (5, 6), Sampling(1.0, 3), draw_key(0, i, 0, 0)) for i in range(40)]
    )
    for c in done.values():
        ended = c.token_ids[-1] < 20
        assert c.stop is (Stop.EOS if ended else Stop.LENGTH) and all(
            t >= 20 for t in c.token_ids[:-1]
        )
        assert len(c.token_ids) == 3 or ended
        assert len(c.logprobs) == len(c.token_ids)
    assert {c.stop for c in done.values()} == {Stop.EOS, Stop.LENGTH}


def test_every_token_is_fed_once() -> None:
    engine = torch_engine(small("qwen3"), STOP, 300)
    ids, fed = [5, 6, 7], 0
    for turn in range(4):
        reply = run(engine, [Request(0, tuple(ids), SAMPLING, turn)])[0].token_ids
        fed = len(ids) + len(reply) - 1  # all but the reply's last token
        assert engine.fed_tokens == fed
        ids = [*ids, *reply, 8, 9]


def test_members_that_begin_alike_are_prefilled_once() -> None:
    model = small("qwen3")
    engine = torch_engine(model, STOP, 300)
    prompt = tuple(range(4, 30))
    done = run(engine, [Request(i, prompt, SAMPLING, draw_key(0, 1, i, 0)) for i in range(8)])
    assert engine.fed_tokens == len(prompt) - 1 + sum(len(c.token_ids) for c in done.values())
    for c in done.values():
        expected = reference_logprobs(model, [*prompt, *c.token_ids])[len(prompt) - 1 :]
        assert torch.allclose(torch.tensor(c.logprobs), expected, atol=1e-5)


def test_new_weights_are_used_and_refused_while_trajectories_are_under_way() -> None:
    model, other = small("qwen3"), small("qwen3")
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    engine = torch_engine(model, STOP, 300)
    converse(engine, [0, 1])
    engine.load_weights(other.named_parameters(), 7)
    assert engine.version == 7
    reply = run(engine, [Request(5, (5, 6), SAMPLING, 3)])[5]
    expected = reference_logprobs(other, [5, 6, *reply.token_ids])[1:]
    assert torch.allclose(torch.tensor(reply.logprobs), expected, atol=1e-5)
    engine.release(5)
    engine.submit(Request(9, (5, 6), SAMPLING, 1))
    with pytest.raises(RuntimeError, match="under way"):
        engine.load_weights(other.named_parameters(), 8)
    engine.release(9)
    with pytest.raises(KeyError, match="no parameter"):
        engine.load_weights([("nonsense", torch.zeros(1))], 9)


def test_requests_that_cannot_be_are_refused() -> None:
    engine = torch_engine(small("qwen3"), STOP, 20)
    with pytest.raises(ValueError, match="do not fit max_model_len=20"):
        engine.submit(Request(0, tuple(range(4, 16)), SAMPLING, 1))
    run(engine, [Request(1, (5, 6), Sampling(1.0, 2), 1)])
    with pytest.raises(ValueError, match="does not continue"):
        engine.submit(Request(1, (6, 5, 7, 8), Sampling(1.0, 2), 1))


def test_a_small_cache_stays_while_the_engine_sleeps_and_changes_no_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small("qwen3")
    anew, kept = (torch_engine(model, STOP, 256) for _ in range(2))
    converse(kept, [1, 2, 3], seed=1)
    kept.sleep()
    held = kept._cache.nbytes
    assert held == sum(each.nbytes for each in (*kept._cache.keys, *kept._cache.values)) > 0
    assert converse(kept, [4, 5]) == converse(anew, [4, 5])
    monkeypatch.setattr(torch_module, "KEPT_BYTES", held - 1)
    kept.sleep()
    assert kept._cache.nbytes == 0
    assert converse(kept, [4, 5]) == converse(anew, [4, 5])
