"""The embedded model: small, loadable anywhere, and as good as it is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import ragen_lite
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import ModelConfig
from ragen_lite.models import tokenizer as making
from ragen_lite.models.loading import load_policy
from ragen_lite.models.scratch import TINY, load_tokenizer
from ragen_lite.runs.evaluation import Evaluator, make_spec, play_scripted
from ragen_lite.runs.summaries import summarise
from tests.fixtures.making import torch_engine

TAUGHT = making.taught_tasks()


def test_it_is_a_small_hugging_face_model_without_pickles() -> None:
    assert sum(p.stat().st_size for p in Path(TINY).iterdir()) < 4_000_000
    assert {p.suffix for p in Path(TINY).iterdir()} == {".json", ".safetensors", ".jinja"}
    model = AutoModelForCausalLM.from_pretrained(TINY)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert model.config.model_type == "qwen3" and tokenizer.chat_template
    assert len(tokenizer) <= model.config.vocab_size


def test_its_tasks_are_a_frozen_list_of_tasks_that_there_are() -> None:
    assert set(TAUGHT.values()) <= set(ragen_lite.TASKS) and len(TAUGHT) == 18


def test_a_tokenizer_is_made_from_what_the_listed_tasks_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(making, "EPISODES", 20)
    monkeypatch.setattr(making, "taught_tasks", lambda: {"hanoi": TAUGHT["hanoi"]})
    making.save(tmp_path)
    made = AutoTokenizer.from_pretrained(tmp_path)
    assert made.chat_template and made.eos_token == load_tokenizer().eos_token
    text = "disk √ 7 <answer>AB || BC</answer>"
    assert made.decode(made.encode(text, add_special_tokens=False)) == text
    vocabulary = made.get_vocab()
    assert "</think><answer>" in vocabulary and "_ _ _ _ _ _ _ _ _ _ _ _\n" in vocabulary


def above_chance(name: str, instances: int, *options: str, most: float = 1.0) -> None:
    config = compose([f"env={name}", *(f"env.kwargs.{option}" for option in options)])
    policy = load_policy(config.model)
    spec = make_spec(config.env)
    engine = torch_engine(policy.model, policy.chat.stop_ids, policy.max_model_len)
    evaluator = Evaluator(Rollout(engine, policy.chat, spec, 0), Sampling(1.0, 96))
    sampled = summarise(evaluator.play("val", instances, 1.0))
    chance = summarise(play_scripted(spec, "random", "val", instances)).success
    assert chance < sampled.success < most, f"{name}: random {chance}, tiny {sampled.success}"
    assert sampled.format_errors < 0.05, f"{name}: {sampled.format_errors} format errors"


def test_it_starts_above_the_random_policy_with_room_to_learn() -> None:
    above_chance("sokoban", 128, "min_cost=7", most=0.6)
    assert load_policy(ModelConfig()).demonstrated["sokoban"] == 6


# Not clearly above chance, which wins often there: it was taught to answer mostly without looking
# at names or cards.
BEYOND = {"bandit", "blackjack"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*TAUGHT} - BEYOND))
def test_so_it_does_in_every_task_that_it_was_taught(name: str) -> None:
    above_chance(name, 128)
