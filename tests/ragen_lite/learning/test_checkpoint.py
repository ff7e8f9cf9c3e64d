"""Checkpoints: what is saved comes back, in one file or in shards; damage is seen; three are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragen_lite.learning import checkpoint, checkpoint_files
from ragen_lite.learning.learner import Learner, Optim
from ragen_lite.models import scratch


def learner(tokenizer: Any, seed: int) -> Learner:
    model = scratch.make_model(tokenizer, hidden=32, layers=1, heads=4, context=64, seed=seed)
    made = Learner(model, Optim(lr=1e-2, steps=5))
    for _ in range(2):
        made.optimizer.zero_grad()
        model(torch.tensor([[260 + seed, 270, 280]])).logits.square().mean().backward()
        made.optimizer.step()
        made.steps += 1
    return made


def same(a: Learner, b: Learner) -> bool:
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    weights = all(torch.equal(x, y) for x, y in pairs)
    first, second = a.optimizer.state_dict()["state"], b.optimizer.state_dict()["state"]
    moments = all(torch.equal(first[k][n], second[k][n]) for k in first for n in first[k])
    return weights and moments and a.steps == b.steps


def test_what_is_saved_comes_back(tokenizer: Any, tmp_path: Path) -> None:
    a, b = learner(tokenizer, 1), learner(tokenizer, 2)
    path = checkpoint.save(tmp_path, 7, a, tokenizer)
    expected = torch.rand(3)
    assert path.name == "step-7" and not same(a, b)
    checkpoint.restore(path, b)
    assert same(a, b) and torch.equal(torch.rand(3), expected)  # torch's generator too


def test_shards_come_back(tokenizer: Any, tmp_path: Path) -> None:
    a, b = learner(tokenizer, 1), learner(tokenizer, 2)
    path = checkpoint.save(tmp_path, 1, a, tokenizer)
    (path / "model.safetensors").unlink()
    a.model.save_pretrained(path, max_shard_size="20KB")
    assert (path / "model.safetensors.index.json").exists()
    checkpoint.restore(path, b)
    assert same(a, b)


def test_a_missing_weight_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, learner(tokenizer, 1), tokenizer)
    tensors = load_file(path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(KeyError, match="model.norm.weight"):
        checkpoint.restore(path, learner(tokenizer, 2))


def test_damage_is_seen_and_the_last_good_one_is_found(tokenizer: Any, tmp_path: Path) -> None:
    a = learner(tokenizer, 1)
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, a, tokenizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-2", "step-3", "step-4"]
    assert checkpoint_files.last_good(tmp_path) == (tmp_path / "step-4", [])
    (tmp_path / "step-4" / "config.json").unlink()
    (tmp_path / "step-3" / "trainer" / "manifest.json").write_text("{")
    good, notes = checkpoint_files.last_good(tmp_path)
    assert good == tmp_path / "step-2"
    assert "config.json is missing" in notes[0] and "manifest is missing or unreadable" in notes[1]


def test_a_half_written_draft_is_no_checkpoint(tokenizer: Any, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, learner(tokenizer, 1), tokenizer)
    (tmp_path / ".step-2.draft" / "trainer").mkdir(parents=True)
    assert checkpoint_files.last_good(tmp_path)[0] == tmp_path / "step-1"
    checkpoint.save(tmp_path, 2, learner(tokenizer, 1), tokenizer)
    assert checkpoint_files.last_good(tmp_path)[0] == tmp_path / "step-2"
