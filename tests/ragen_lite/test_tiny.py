"""The embedded model: small, loadable anywhere, and as good as it is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragen_lite import scratch
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.torch_engine import TorchEngine
from ragen_lite.cli import compose
from ragen_lite.evaluate import Evaluator, make_spec, scripted
from ragen_lite.models import TINY, load_policy
from ragen_lite.summary import summarise


def test_it_is_a_small_hugging_face_model_without_pickles() -> None:
    assert sum(p.stat().st_size for p in Path(TINY).iterdir()) < 4_000_000
    assert {p.suffix for p in Path(TINY).iterdir()} == {".json", ".safetensors", ".jinja"}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)
    assert model.config.model_type == "qwen3" and tokenizer.chat_template
    assert len(tokenizer) <= model.config.vocab_size


def test_its_tokenizer_is_the_one_that_is_made_from_nothing() -> None:
    assert scratch.make_tokenizer().get_vocab() == scratch.load_tokenizer().get_vocab()


# Not clearly above chance, which wins half of the time here: it answers mostly without looking at the names.
BEYOND = {"bandit"}


@pytest.mark.parametrize("name", sorted({*scratch.TAUGHT} - BEYOND))
def test_it_starts_above_the_random_policy_with_room_to_learn(name: str) -> None:
    config = compose([f"env={name}"])
    policy, spec = load_policy(config), make_spec(config)
    engine = TorchEngine(policy.model, policy.chat.stop_ids, policy.max_model_len)
    sampled = summarise(Evaluator(Rollout(engine, policy.chat, spec, 0), config).play("val", 128, 1.0))
    assert summarise(scripted(spec, "random", "val", 128)).success < sampled.success < 0.6
    assert sampled.format_errors < 0.15
