"""From trajectories to tensors: the only place where masks are built and rows are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.trajectory import Group
from ragen_lite.config import AlgoConfig
from ragen_lite.loss import CREDITS, Array, truncated_weights

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


def to_samples(group: Group, algo: AlgoConfig) -> list[Sample]:
    """Trajectories with their credit, ready for the loss. The turn mask is ``Trajectory.sampled``."""
    samples = []
    for t, advantages in zip(group.trajectories, CREDITS[algo.credit](group, algo.normalize), strict=True):
        trained, behaviour = np.array(t.sampled), np.array(t.logprobs)
        if not algo.turn_mask:
            # Everything behind the first prompt, observations too; no engine sampled those, hence nan.
            behaviour = np.where(trained, behaviour, np.nan)
            trained = np.arange(len(trained)) >= (t.turns[0].start if t.turns else len(trained))
        samples.append(Sample(t.token_ids, trained, behaviour, advantages))
    return samples


def correct(samples: Sequence[Sample], scores: Sequence[Array], level: str) -> tuple[list[Sample], dict[str, float]]:
    """Samples whose ratio starts from the learner's own log-probs (``scores``, of the trained tokens), and whose
    advantages carry truncated importance weights for the engine's difference; and the metrics of that difference."""
    corrected, gaps, all_weights = [], [], []
    for sample, learner in zip(samples, scores, strict=True):
        engine = sample.behaviour[sample.trained]
        weights = truncated_weights(learner, engine, level)
        behaviour, advantages = sample.behaviour.copy(), sample.advantages.copy()
        behaviour[sample.trained] = learner
        advantages[sample.trained] *= weights
        corrected.append(replace(sample, behaviour=behaviour, advantages=advantages))
        gaps.append(np.nan_to_num(learner - engine, nan=0.0))
        all_weights.append(weights)
    gap = np.concatenate(gaps)
    return corrected, {
        "train/logprob_gap": float(np.abs(gap).max()),
        "train/mismatch_kl": float((np.expm1(gap) - gap).mean()),
        "train/correction": float(np.concatenate(all_weights).mean()),
    }


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: B rows of T tokens, and N trained tokens in flat arrays."""

    token_ids: Tensor  # (B, T) long, padded at the right
    predictors: Tensor  # (N,) index into B*T of the token *before* each trained one
    targets: Tensor  # (N,) the trained token ids
    behaviour: Tensor  # (N,)
    advantages: Tensor  # (N,)
    weights: Tensor  # (N,)
    tokens: int  # tokens that are no padding

    @property
    def padding(self) -> int:
        return self.token_ids.numel() - self.tokens


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divide samples into micro-batches of at most ``budget`` tokens, padding included: one sample a row.

    Sorted by length, with a new micro-batch wherever padding would pass 5%. A sample longer than the budget gets one of
    its own.

    >>> plan([5, 2, 5, 3], budget=10)
    [[0, 2], [3], [1]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            held = [lengths[j] for j in batches[-1]]
            area = (len(held) + 1) * held[0]
            if area <= budget and (sum(held) + lengths[i]) / area >= 1 - MOST_PADDING:
                batches[-1].append(i)
                continue
        batches.append([i])
    return batches


def collate(
    samples: Sequence[Sample], weights: Sequence[float], part: Sequence[int], pad_id: int, dtype: torch.dtype
) -> Batch:
    """The tensors of one micro-batch; ``weights`` holds one number a sample, the weight of each of its trained tokens.

    A token is trained at the position before it, whose output predicts it; a first token never is.
    """
    chosen = [samples[i] for i in part]
    width = max(len(s.token_ids) for s in chosen)
    token_ids = np.full((len(chosen), width), pad_id)
    for row, sample in enumerate(chosen):
        token_ids[row, : len(sample.token_ids)] = sample.token_ids
    where = np.concatenate([row * width + np.flatnonzero(s.trained) for row, s in enumerate(chosen)])
    shares = np.concatenate([np.full(int(samples[i].trained.sum()), weights[i]) for i in part])
    return Batch(
        token_ids=torch.from_numpy(token_ids),
        predictors=torch.from_numpy(where - 1),
        targets=torch.from_numpy(token_ids.ravel()[where]),
        behaviour=torch.tensor(np.concatenate([s.behaviour[s.trained] for s in chosen]), dtype=dtype),
        advantages=torch.tensor(np.concatenate([s.advantages[s.trained] for s in chosen]), dtype=dtype),
        weights=torch.tensor(shares, dtype=dtype),
        tokens=sum(len(s.token_ids) for s in chosen),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``."""
    values = {name: getattr(batch, name) for name in Batch.__slots__}
    moved: dict[str, Any] = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()}
    return Batch(**moved)
