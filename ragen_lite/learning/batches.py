"""From samples to tensors: which rows make a micro-batch, and how they are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragen_lite.learning.samples import Sample

MOST_PADDING = 0.05


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: B rows of T tokens, and N trained tokens in flat arrays.

    Attributes:
        token_ids: (B, T) long, padded at the right.
        predictors: (N,) index into B*T of the token *before* each trained one.
        targets: (N,) the trained token ids.
        rows: (N,) the row of each trained token.
        behaviour_logprobs, advantages, weights: (N,) each.
        values, returns: (N,) each, a critic's old values and targets; 0 without one.
        sampled: (N,) whether an engine drew the token.
        tokens: tokens that are no padding.
    """

    token_ids: Tensor
    predictors: Tensor
    targets: Tensor
    rows: Tensor
    behaviour_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    sampled: Tensor
    values: Tensor
    returns: Tensor
    tokens: int

    @property
    def padding(self) -> int:
        """Positions that are computed for nothing."""
        return self.token_ids.numel() - self.tokens


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divide samples into micro-batches of at most ``budget`` tokens, padding included.

    Sorted by length, one sample a row, with a new micro-batch wherever padding would pass 5%. A
    sample longer than the budget gets one of its own.

    >>> plan([5, 2, 5, 3], budget=10)
    [[0, 2], [3], [1]]
    """
    batches: list[list[int]] = []
    # The longest first, so that a micro-batch's width is that of its first sample; ties go by
    # number, so that the order does not depend on the sort.
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            held = [lengths[j] for j in batches[-1]]
            area = (len(held) + 1) * held[0]
            full = (sum(held) + lengths[i]) / area
            if area <= budget and full >= 1 - MOST_PADDING:
                batches[-1].append(i)
                continue
        batches.append([i])
    return batches


def collate(
    samples: Sequence[Sample],
    weights: Sequence[float],
    part: Sequence[int],
    pad_id: int,
    dtype: torch.dtype,
) -> Batch:
    """The tensors of one micro-batch.

    A token is trained at the position before it, whose output predicts it; a first token never is.

    Args:
        samples: of the whole optimiser step.
        weights: one number a sample, the weight of each of its trained tokens.
        part: the samples of this micro-batch.
        pad_id: fills the rows up.
        dtype: of the floating-point tensors.
    """
    rows = [samples[i] for i in part]
    width = max(len(sample.token_ids) for sample in rows)
    token_ids = np.full((len(rows), width), pad_id)
    for row, sample in enumerate(rows):
        token_ids[row, : len(sample.token_ids)] = sample.token_ids
    # Positions in the flattened rows.
    places = [row * width + np.flatnonzero(sample.loss_mask) for row, sample in enumerate(rows)]
    where = np.concatenate(places)
    row_weights = [np.full(samples[i].trained, weights[i]) for i in part]

    def trained(name: str) -> Any:
        return np.concatenate([getattr(sample, name)[sample.loss_mask] for sample in rows])

    def valued(name: str) -> Any:
        return trained(name) if rows[0].values is not None else np.zeros(len(where))

    return Batch(
        token_ids=torch.from_numpy(token_ids),
        predictors=torch.from_numpy(where - 1),
        targets=torch.from_numpy(token_ids.ravel()[where]),
        rows=torch.from_numpy(where // width),
        behaviour_logprobs=torch.tensor(trained("behaviour_logprobs"), dtype=dtype),
        advantages=torch.tensor(trained("advantages"), dtype=dtype),
        weights=torch.tensor(np.concatenate(row_weights), dtype=dtype),
        sampled=torch.from_numpy(trained("sampled")),
        values=torch.tensor(valued("values"), dtype=dtype),
        returns=torch.tensor(valued("returns"), dtype=dtype),
        tokens=sum(len(sample.token_ids) for sample in rows),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``."""
    values = {name: getattr(batch, name) for name in Batch.__slots__}
    moved: dict[str, Any] = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in values.items()
    }
    return Batch(**moved)
