"""Every family that is called exact: its own log-probs in engine and learner, and what it saves comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from ragen_lite.agents.engines.slots import SlotCache
from ragen_lite.algorithms.losses import PPO
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning import checkpoint, scoring
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.exactness import Inexact, check_exact, prompts_for, window_of
from ragen_lite.learning.generation import start_engine
from ragen_lite.learning.learner import Learner, Optim
from ragen_lite.learning.scoring import scorer
from ragen_lite.models.loading import load_policy
from tests.fixtures import families
from tests.fixtures.making import torch_engine

ROOT = Path(__file__).parents[3]
PLAIN = np.arange(3, 800)


def check(model: Any, temperature: float = 1.0) -> None:
    """What a command does at load."""
    engine = torch_engine(model, frozenset({2}), 300, slots=3)
    score = scorer(model, temperature)
    check_exact(engine, model, score, PLAIN, temperature, nullcontext, "float32")


def samples() -> list[Sample]:
    """Two conversations longer than the window, as if they had been sampled."""
    rng = np.random.default_rng(0)
    made = []
    for length in (40, 33):
        mask = np.arange(length) >= 20
        ids = rng.choice(PLAIN, length)
        made.append(Sample(ids, mask, np.where(mask, -1.0, 0.0), mask * rng.normal(), mask))
    return made


@pytest.mark.parametrize("family", families.EXACT)
def test_engine_and_learner_are_the_models_own_forward(family: str) -> None:
    model = families.make(family)
    check(model, temperature=0.7)
    windowed = "window" in families.EXACT[family][0]
    assert (window_of(model) == families.WINDOW) == windowed


@pytest.mark.parametrize("family", families.EXACT)
def test_what_a_family_saves_comes_back(family: str, tokenizer: Any, tmp_path: Path) -> None:
    learner = Learner(families.make(family), Optim(lr=1e-2, steps=5))
    weights = [1.0] * 2
    learner.step(samples(), weights, PPO())
    path = checkpoint.save(tmp_path, 1, learner, tokenizer)
    other = Learner(families.make(family), Optim(lr=1e-2, steps=5))
    checkpoint.restore(path, other)
    # The next step is the same, bit for bit: weights, moments and counters came back.
    first = learner.step(samples(), weights, PPO())
    second = other.step(samples(), weights, PPO())
    assert first == second and first["train/grad_norm"] > 0
    pairs = zip(learner.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    # And transformers reads the folder as the same model.
    path = checkpoint.save(tmp_path, 2, learner, tokenizer)
    read = AutoModelForCausalLM.from_pretrained(
        path, attn_implementation=learner.model.config._attn_implementation
    ).eval()
    ids = torch.tensor(samples()[0].token_ids)[None]
    with torch.no_grad():
        assert torch.equal(read(ids).logits, learner.model(ids).logits)


@pytest.mark.parametrize("family", families.REFUSED)
def test_a_family_that_differs_is_refused_in_a_sentence(family: str) -> None:
    with pytest.raises(Inexact, match=r"ForCausalLM.*docs/models\.md"):
        check(families.make(family))


# ---- the check can fail ----


def test_a_head_that_is_gone_round_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def projected(model: Any, hidden: torch.Tensor) -> torch.Tensor:
        return model.get_output_embeddings()(hidden)

    model = families.make("gemma2")
    monkeypatch.setattr(scoring, "logits_of", projected)
    with pytest.raises(Inexact, match="learner's log-probs are"):
        check(model)
    monkeypatch.setattr("ragen_lite.agents.engines.torch.logits_of", projected)
    with pytest.raises(Inexact, match="engine's log-probs are"):
        check(model)


def test_an_engine_that_sees_beyond_the_window_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.make("mistral")
    check(model)

    @contextmanager
    def everything(self: SlotCache, positions: torch.Tensor) -> Iterator[None]:
        def causal(kv_length: int, **rest: Any) -> torch.Tensor:
            columns = torch.arange(kv_length)
            return columns[None, None, None, :] <= positions[:, None, :, None]

        ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] = causal
        try:
            yield
        finally:
            del ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]

    monkeypatch.setattr(SlotCache, "masks", everything)
    with pytest.raises(Inexact, match="engine's log-probs are"):
        check(model)


def test_dropout_of_the_learner_is_off(tokenizer: Any) -> None:
    model = families.make("gpt2")
    learner = Learner(model.train(), Optim(lr=0.0, steps=5))
    before = learner.score(samples())
    gap = learner.step(samples(), [1.0] * 2, PPO())
    again = learner.step(samples(), [1.0] * 2, PPO())
    assert gap == again and not model.training
    assert all(np.array_equal(a, b) for a, b in zip(before, learner.score(samples()), strict=True))


def test_a_probe_is_longer_than_the_window_where_a_conversation_can_be() -> None:
    assert [len(p) for p in prompts_for(PLAIN, 0, 1024)] == [80, 47, 13]
    assert [len(p) for p in prompts_for(PLAIN, 100, 1024)] == [80, 47, 13, 124]
    assert [len(p) for p in prompts_for(PLAIN, 4096, 4096)] == [80, 47, 13]
    assert [len(p) for p in prompts_for(PLAIN, 50, 64)] == [43, 43, 13, 43]
    assert [len(p) for p in prompts_for(PLAIN, 0, 8)] == [1, 1, 1]


@pytest.mark.parametrize("longest", [1, 2, 5, 8, 20, 30])
def test_a_conversation_of_a_few_tokens_is_checked_as_far_as_it_goes(longest: int) -> None:
    model = families.make("llama")
    engine = torch_engine(model, frozenset({2}), longest, slots=1)
    check_exact(engine, model, scorer(model, 1.0), PLAIN, 1.0, nullcontext, "float32")


@pytest.mark.parametrize(
    ("dtype", "temperature"), [("float64", 1.0), ("bfloat16", 1.0), ("float32", 0.1)]
)
def test_coarse_arithmetic_and_low_temperatures_are_no_other_model(
    dtype: str, temperature: float
) -> None:
    policy = load_policy(ModelConfig(dtype=dtype))
    engine, _ = start_engine(EngineConfig("torch"), policy, temperature)
    engine.close()


def test_the_table_of_families_is_what_is_tested() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    for family, (words, _) in families.EXACT.items():
        assert f"| {family} | exact | {words} |" in text
    for family, (words, _) in families.REFUSED.items():
        assert f"| {family} | refused | {words} |" in text
