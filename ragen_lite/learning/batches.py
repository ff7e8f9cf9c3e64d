"""From samples to tensors: which rows make a micro-batch, and how they are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_PADDING = 0.05
PASS_FLOPS = 4e12  # what a GPU could do while it is kept waiting for one more pass's launches
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sample:
    """One context with its credit, ready for the loss; every array has one entry a token.

    Example, two tokens of a prompt and a reply of two::

        Sample(
            token_ids=[5, 6, 7, 2],
            loss_mask=[0, 0, 1, 1],
            behaviour_logprobs=[0, 0, -.5, -.1],
            advantages=[0, 0, 1, 1],
            sampled=[0, 0, 1, 1],
        )

    ``values`` and ``returns`` are a critic's: what it said, and what it should have said.
    ``sampled`` is ``loss_mask`` but where the turn mask is off: then observations are trained on
    too, which no engine sampled and which have no behaviour log-prob.
    """

    token_ids: Sequence[int]
    loss_mask: Mask
    behaviour_logprobs: Array
    advantages: Array
    sampled: Mask
    values: Array | None = None
    returns: Array | None = None

    @property
    def trained(self) -> int:
        """The number of tokens that are trained on."""
        return int(self.loss_mask.sum())


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


def free_padding(parameters: int, device: torch.device) -> int:
    """Padding tokens of a micro-batch that cost less than one more forward and backward pass.

    On a CPU none. A GPU is kept waiting by the launches of a pass however short that is: some tens
    of milliseconds, in which a small model could have read many tokens.
    """
    return 0 if device.type == "cpu" else int(PASS_FLOPS / (6 * parameters))


def plan(lengths: Sequence[int], budget: int, free: int = 0) -> list[list[int]]:
    """Divide samples into micro-batches of at most ``budget`` tokens, padding included.

    Sorted by length, one sample a row, with a new micro-batch wherever padding would pass 5% and
    ``free`` tokens. A sample longer than the budget gets one of its own.

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
            padding = area - sum(held) - lengths[i]
            if area <= budget and padding <= max(free, MOST_PADDING * area):
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
        part: the samples of this micro-batch; none: a row of one token, which is not trained.
        pad_id: fills the rows up.
        dtype: of the floating-point tensors.
    """
    if not part:
        return _nothing(dtype)
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


def _nothing(dtype: torch.dtype) -> Batch:
    """A micro-batch without a trained token: it takes part in a forward pass, and adds nothing."""
    numbers = torch.zeros(0, dtype=dtype)
    places = torch.zeros(0, dtype=torch.long)
    return Batch(
        token_ids=torch.zeros((1, 1), dtype=torch.long),
        predictors=places,
        targets=places,
        rows=places,
        behaviour_logprobs=numbers,
        advantages=numbers,
        weights=numbers,
        sampled=torch.zeros(0, dtype=torch.bool),
        values=numbers,
        returns=numbers,
        tokens=0,
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``."""
    values = {name: getattr(batch, name) for name in Batch.__slots__}
    moved: dict[str, Any] = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in values.items()
    }
    return Batch(**moved)
