"""TRL's side of the comparison: its trainers' own methods, on a stand-in for the trainer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

ARGS = {
    "delta": None,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing_kwargs": None,
    "per_device_train_batch_size": 8,
    "sapo_temperature_neg": 1.05,
    "sapo_temperature_pos": 1.0,
    "steps_per_generation": 1,
    "use_bias_correction_kl": False,
}
FIELDS = {
    "_entropy_bonus_enabled": False,
    "_pending_extra_logs": {},
    "_pending_metrics": {},
    "_tokenizer": SimpleNamespace(pad_token_id=0),
    "accelerator": SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        gather=lambda values: values,
        reduce=lambda values, reduction: values,
    ),
    "aux_loss_enabled": False,
    "beta": 0.0,
    "current_gradient_accumulation_steps": 1,
    "environment_factories": None,
    "environments": None,
    "importance_sampling_level": "token",
    "mask_truncated_completions": False,
    "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
    "multi_objective_aggregation": "sum_then_normalize",
    "normalize_advantages": False,
    "num_iterations": 1,
    "off_policy_mask_threshold": None,
    "pad_to_multiple_of": None,
    "reward_clip_range": None,
    "reward_func_names": ["first turn", "second turn"],
    "reward_weights": torch.ones(2, dtype=torch.float64),
    "scale_rewards": "group",
    "tools": [],
    "top_entropy_quantile": 1.0,
    "use_vllm": False,
    "vllm_importance_sampling_correction": True,
}


def stand_in(**options: Any) -> Any:
    """All that TRL's methods ask of their trainer, or of its args.

    What TRL would ask beyond it is an AttributeError, so nothing new in it goes unseen.
    """
    args = {name: options.pop(name, default) for name, default in ARGS.items()}
    return SimpleNamespace(
        args=SimpleNamespace(**args),
        _metrics={"train": defaultdict(list)},
        _logs=defaultdict(list, rewards=defaultdict(list)),
        **(FIELDS | options),
    )


def class_of(trainer: str) -> Any:
    if trainer == "GMPOTrainer":
        return pytest.importorskip("trl.experimental.gmpo").GMPOTrainer
    return getattr(pytest.importorskip("trl"), trainer)


def loss_of(
    batch: Any, trainer: str = "GRPOTrainer", given: dict[str, Tensor] | None = None, **options: Any
) -> tuple[Tensor, Tensor, float | None]:
    """The loss, its gradient by row and token, and the share of clipped tokens, or None."""
    logprobs = batch.new.clone().requires_grad_()
    scores = (logprobs, torch.zeros_like(batch.new), None)
    self = stand_in(_get_per_token_logps_and_entropies=lambda *_, **__: scores, **options)
    inputs = {
        "prompt_ids": batch.completion[:, :1],
        "prompt_mask": batch.completion[:, :1],
        "completion_ids": batch.completion,
        "completion_mask": batch.completion,
        "tool_mask": batch.trained.long(),
        "old_per_token_logps": batch.old,
        "old_logps": (batch.old * batch.trained).sum(1),
        "ref_per_token_logps": batch.reference,
        "advantages": batch.advantages,
        "num_items_in_batch": batch.trained.sum(),
    }
    value = class_of(trainer)._compute_loss(self, self.model, inputs | (given or {}))
    (gradient,) = torch.autograd.grad(value, logprobs)
    logged = self._metrics["train"].get("clip_ratio/region_mean", [None])
    return value.detach(), gradient, logged[0]


def listed(values: Tensor, lengths: Tensor) -> list[list[float]]:
    pairs = zip(values.tolist(), lengths.tolist(), strict=True)
    return [row[:length] for row, length in pairs]


def scores_of(
    batch: Any, rewards: Tensor, trainer: str = "GRPOTrainer", **options: Any
) -> dict[str, Tensor]:
    """What TRL makes of the batch's replies, whose turns, the columns, earned these rewards."""
    lengths = batch.completion.sum(1)
    replies = listed(batch.completion, lengths)
    masks = listed(batch.trained.long(), lengths)
    logprobs = listed(batch.engine, lengths)
    texts = [""] * len(rewards)
    generated: tuple[Any, ...] = (replies, replies, masks, texts, logprobs, {}, None, None)
    if trainer == "RLOOTrainer":
        generated = (replies, replies, texts)
    self = stand_in(
        _generate=lambda _: generated,
        _calculate_rewards=lambda *_: rewards,
        _get_per_token_logps_and_entropies=lambda *_, **__: (batch.old, None, None),
        **options,
    )
    asked = [{"prompt": ""} for _ in rewards]
    found: dict[str, Tensor] = class_of(trainer)._generate_and_score_completions(self, asked)
    return found


@pytest.fixture
def theirs() -> Callable[..., tuple[Tensor, Tensor, float | None]]:
    return loss_of


@pytest.fixture
def scored() -> Callable[..., dict[str, Tensor]]:
    return scores_of


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    """TRL makes tensors of the default type out of lists; here all are to be doubles."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
