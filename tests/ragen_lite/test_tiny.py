"""The embedded model: small, loadable anywhere, and as good as it is said to be."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.torch_engine import TorchEngine
from ragen_lite.config import Config
from ragen_lite.evaluate import Evaluator, scripted
from ragen_lite.models import TINY, load_policy
from ragen_lite.summary import summarise


def test_it_is_a_small_hugging_face_model_without_pickles() -> None:
    assert sum(p.stat().st_size for p in Path(TINY).iterdir()) < 4_000_000
    assert {p.suffix for p in Path(TINY).iterdir()} == {".json", ".safetensors", ".jinja"}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)
    assert model.config.model_type == "qwen3" and tokenizer.chat_template


def test_it_starts_above_the_random_policy_with_room_to_learn() -> None:
    config = Config()
    policy = load_policy(config)
    engine = TorchEngine(policy.model, policy.chat.stop_ids, policy.max_model_len)
    spec = EnvSpec("ragen_lite/Sokoban-v0")
    played = Evaluator(Rollout(engine, policy.chat, spec, 0), config).both("val", 128)
    sampled, greedy = summarise(played["sampled"]), summarise(played["greedy"])
    assert summarise(scripted(spec, "random", "val", 128)).success_high < sampled.success_low
    assert sampled.success_high < 0.6 and greedy.success_high < 0.7
    assert sampled.format_errors < 0.05
