"""From trajectories to tensors: the only place where masks are built and rows are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_PADDING = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory with its credit, ready for the loss; every array has one entry a token.

    Example: ``Sample([5, 6, 7, 2], trained=[0, 0, 1, 1], behaviour=[0, 0, -.5, -.1], advantages=[0, 0, 1, 1])``.
    ``behaviour`` is nan at a trained token that no engine sampled (only with the turn mask off).
    """

    token_ids: Sequence[int]
    trained: NDArray[np.bool_]
    behaviour: NDArray[np.float64]
    advantages: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: B rows of T tokens, and N trained tokens in flat arrays."""

    token_ids: Tensor  # (B, T) long
    position_ids: Tensor  # (B, T) long, counted within each trajectory
    mask: Tensor | None  # (B, 1, T, T) bool for packed rows; None: causal, pads only at the right
    predictors: Tensor  # (N,) index into B*T of the token *before* each trained one
    targets: Tensor  # (N,) the trained token ids
    behaviour: Tensor  # (N,)
    advantages: Tensor  # (N,)
    weights: Tensor  # (N,)
    tokens: int  # tokens that are no padding

    @property
    def padding(self) -> int:
        return self.token_ids.numel() - self.tokens


Rows = list[list[int]]  # each row: the samples that stand in it, one behind the other


def plan(lengths: Sequence[int], budget: int, packed: bool) -> list[Rows]:
    """Divide samples into micro-batches of at most ``budget`` tokens, padding included.

    Padded: one sample a row, sorted by length, a new micro-batch wherever padding would pass 5%. Packed: several
    samples a row, first fit by decreasing length. A sample longer than the budget gets a micro-batch of its own.

    >>> plan([5, 2, 5, 3], budget=10, packed=False)
    [[[0], [2]], [[3]], [[1]]]
    >>> plan([5, 2, 5, 3], budget=10, packed=True)
    [[[0, 2]], [[3, 1]]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: Rows = [[i] for i in order]
    if packed:
        room = min(budget, max(4 * (sum(lengths) // max(1, len(lengths))), max(lengths, default=1)))
        rows = []
        free: list[int] = []
        for i in order:
            fits = next((r for r, left in enumerate(free) if lengths[i] <= left), None)
            if fits is None:
                rows.append([i])
                free.append(room - lengths[i])
            else:
                rows[fits].append(i)
                free[fits] -= lengths[i]
    width = [sum(lengths[i] for i in row) for row in rows]
    batches: list[Rows] = []
    for r in sorted(range(len(rows)), key=lambda r: (-width[r], r)):
        if batches:
            held = [sum(lengths[i] for i in row) for row in batches[-1]]
            area = (len(held) + 1) * max(held)
            if area <= budget and (sum(held) + width[r]) / area >= 1 - MOST_PADDING:
                batches[-1].append(rows[r])
                continue
        batches.append([rows[r]])
    return batches


def collate(samples: Sequence[Sample], weights: Sequence[float], rows: Rows, pad_id: int, dtype: torch.dtype) -> Batch:
    """The tensors of one micro-batch; ``weights`` holds one number a sample, the weight of each of its trained tokens.

    A token is trained at the position before it, whose output predicts it; a first token never is.
    """
    width = max(sum(len(samples[i].token_ids) for i in row) for row in rows)
    token_ids = np.full((len(rows), width), pad_id)
    position_ids = np.zeros((len(rows), width), dtype=np.int64)
    segments = np.full((len(rows), width), -1)
    flat: list[tuple[NDArray[np.int64], Sample, float]] = []
    for r, row in enumerate(rows):
        start = 0
        for i in row:
            sample, stop = samples[i], start + len(samples[i].token_ids)
            token_ids[r, start:stop] = sample.token_ids
            position_ids[r, start:stop] = np.arange(stop - start)
            segments[r, start:stop] = i
            flat.append((r * width + start + np.flatnonzero(sample.trained), sample, weights[i]))
            start = stop
    where = np.concatenate([at for at, _, _ in flat])
    mask = None
    if any(len(row) > 1 for row in rows):
        s = torch.from_numpy(segments)
        mask = ((s[:, :, None] == s[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril())[:, None]
    return Batch(
        token_ids=torch.from_numpy(token_ids),
        position_ids=torch.from_numpy(position_ids),
        mask=mask,
        predictors=torch.from_numpy(where - 1),
        targets=torch.from_numpy(token_ids.ravel()[where]),
        behaviour=torch.tensor(np.concatenate([s.behaviour[s.trained] for _, s, _ in flat]), dtype=dtype),
        advantages=torch.tensor(np.concatenate([s.advantages[s.trained] for _, s, _ in flat]), dtype=dtype),
        weights=torch.tensor(np.concatenate([np.full(int(s.trained.sum()), w) for _, s, w in flat]), dtype=dtype),
        tokens=int((segments >= 0).sum()),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``."""
    values = {name: getattr(batch, name) for name in Batch.__slots__}
    moved: dict[str, Any] = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
    return Batch(**moved)
