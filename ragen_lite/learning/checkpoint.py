"""Checkpoints: a Hugging Face folder plus ``trainer/``, written atomically, checked before it is
trusted.

``from_pretrained`` and ``vllm serve`` load the folder as it is. Everything is safetensors or JSON;
nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ragen_lite.agents.errors import UserError
from ragen_lite.learning.checkpoint_files import digest, steps
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.memory import is_count, saved
from ragen_lite.learning.ranks import copy_into, part_of, whole
from ragen_lite.models.lora import restore_adapter

KEEP = 3


class NotSaved(UserError, OSError):
    """A checkpoint could not be written; the older ones are as they were."""


def save(
    folder: Path, step: int, learner: Learner, tokenizer: Any, ahead: str | None = None
) -> Path:
    """Write ``folder/step-N``: model, tokenizer, optimiser, counters and torch's generator.

    It is written beside its place and renamed when whole, so a kill at any moment leaves the older
    ones as they were. Only the newest three are kept. ``ahead`` is what was sampled for later
    steps, as JSON. Raises NotSaved where the disk does not take it.
    """
    final = folder / f"step-{step}"
    # What lies in parts on several ranks is brought together by all of them; one writes it. The
    # weights come first: that puts a model that was left whole by a forward pass in parts again.
    weights = _weights(learner)
    trainer = {"optimizer": _optimizer_tensors(learner)}
    if learner.critic is not None:
        trainer["critic"] = learner.critic.state()
    if not learner.ranks.first:
        return final
    draft = folder / f".step-{step}.draft"
    if final.exists():  # a damaged one, passed over at the start of this run
        shutil.rmtree(final)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        (draft / "trainer").mkdir(parents=True)
        for name, tensors in trainer.items():
            save_file(tensors, draft / "trainer" / f"{name}.safetensors")
        if ahead is not None:
            (draft / "trainer" / "ahead.json").write_text(ahead)
        _write(draft, step, learner, tokenizer, weights)
        draft.rename(final)
    except (OSError, SafetensorError) as error:
        # Half a checkpoint is of no use, and may be what fills the disk.
        shutil.rmtree(draft, ignore_errors=True)
        older = steps(folder)
        whole = f"{older[0][1]} is the newest whole one" if older else "there is none yet"
        raise NotSaved(
            f"the checkpoint of step {step} could not be written: {error}; {whole}; make room and "
            "go on with run.resume=auto"
        ) from error
    # Only now, with the new one whole.
    for _, old in steps(folder)[KEEP:]:
        shutil.rmtree(old)
    return final


def _write(
    draft: Path, step: int, learner: Learner, tokenizer: Any, weights: dict[str, torch.Tensor]
) -> None:
    """The rest of a checkpoint's files, and all of them on disk."""
    if learner.adapter is None:
        learner.model.save_pretrained(draft, state_dict=weights)
    else:
        learner.adapter.save_pretrained(draft, state_dict=weights, save_embedding_layers=False)
    tokenizer.save_pretrained(draft)
    state = {"step": step, "learner_steps": learner.steps, "skipped": learner.skipped}
    (draft / "trainer" / "state.json").write_text(json.dumps(state, indent=1))
    files = sorted(p for p in draft.rglob("*") if p.is_file())
    sums = {str(p.relative_to(draft)): digest(p) for p in files}
    (draft / "trainer" / "manifest.json").write_text(json.dumps(sums, indent=1))
    # Renaming is atomic, writing is not: the bytes must be on disk before the name is.
    for path in [*files, draft / "trainer" / "manifest.json"]:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())


def _weights(learner: Learner) -> dict[str, torch.Tensor]:
    """The state of the model, or of its adapter, whole; tied weights are one tensor."""
    owner = learner.model if learner.adapter is None else learner.adapter
    state = owner.state_dict(keep_vars=True)
    unique = {id(tensor): tensor.detach() for tensor in state.values()}
    known = _gathered(learner, unique)
    return {name: known[id(tensor)] for name, tensor in state.items() if known}


def _optimizer_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in learner.model.named_parameters():
        for key, value in learner.optimizer.state.get(parameter, {}).items():
            found[f"{name}/{key}"] = saved(value)
    copies = _gathered(learner, found)
    tensors = {name: tensor.clone().contiguous() for name, tensor in copies.items()}
    return {"rng": torch.get_rng_state()} | tensors


def _gathered(learner: Learner, parts: dict[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
    """Tensors whole, on the CPU, one after the other; all ranks take part, and one keeps them."""
    kept = {}
    for name, part in parts.items():
        tensor = whole(part)
        if learner.ranks.first:
            kept[name] = tensor.cpu()
    return kept


def restore(path: Path, learner: Learner) -> None:
    """Give the learner the checkpoint's weights, optimiser and counters. Raises KeyError where a
    weight is missing."""
    own = dict(learner.model.named_parameters())
    if learner.adapter is None:
        _restore_weights(path, learner.model, own)
    else:
        restore_adapter(learner.adapter, load_file(path / "adapter_model.safetensors"))
    tensors = load_file(path / "trainer" / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("rng"))
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = own[name]
        state_of = learner.optimizer.state.setdefault(parameter, {})
        state_of[slot] = tensor.item() if is_count(tensor) else part_of(tensor, parameter)
    if learner.critic is not None:
        learner.critic.restore(load_file(path / "trainer" / "critic.safetensors"))
    state = json.loads((path / "trainer" / "state.json").read_text())
    learner.version = state["step"]
    learner.steps = state["learner_steps"]
    learner.skipped = state["skipped"]


def _restore_weights(path: Path, model: Any, own: dict[str, torch.nn.Parameter]) -> None:
    """Copy a checkpoint's weights into a model."""
    single = path / "model.safetensors"
    weights = load_file(single) if single.exists() else _shards(path)
    # A mixture of experts is packed in memory and lies in pieces on disk, under other names: only
    # transformers knows how they go together.
    if own.keys() - weights.keys():
        stored, found = type(model).from_pretrained(
            path, dtype=next(model.parameters()).dtype, output_loading_info=True
        )
        if found["missing_keys"]:
            raise KeyError(min(found["missing_keys"]))
        weights = {name: parameter.detach() for name, parameter in stored.named_parameters()}
    for name, parameter in own.items():  # tied weights are named, and stored, once
        copy_into(parameter, weights[name])


def _shards(path: Path) -> dict[str, torch.Tensor]:
    index = json.loads((path / "model.safetensors.index.json").read_text())
    parts = [load_file(path / name) for name in sorted(set(index["weight_map"].values()))]
    return {name: tensor for part in parts for name, tensor in part.items()}
