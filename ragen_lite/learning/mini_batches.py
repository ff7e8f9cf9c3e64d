"""How a step's samples become optimiser steps, and what their metrics add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ragen_lite.algorithms.losses import token_weights
from ragen_lite.learning.batches import Sample


@dataclass(frozen=True, slots=True)
class MiniBatches:
    """How samples are cut.

    Attributes:
        epochs: passes over the samples.
        count: optimiser steps a pass.
        aggregation: how tokens are weighted within one.
        constant: the number of tokens of the aggregation ``constant``.
        seed: owns the order of the samples, with the number of the epoch.
    """

    epochs: int
    count: int
    aggregation: str
    constant: int
    seed: tuple[int, ...]


def optimiser_steps(
    trajectories: Sequence[Sequence[Sample]], cut: MiniBatches
) -> Iterator[tuple[list[Sample], list[float]]]:
    """The mini-batches of all epochs, each with the weights of its samples' tokens.

    The samples of a trajectory, one a context, stay together, and its length is that of all.
    """
    if not trajectories:
        return
    for epoch in range(cut.epochs):
        # A generator of its own, so that nothing drawn elsewhere changes the order.
        order = np.random.default_rng([*cut.seed, epoch]).permutation(len(trajectories))
        for part in np.array_split(order, min(cut.count, len(trajectories))):
            chosen = [trajectories[i] for i in part]
            lengths = [sum(sample.trained for sample in own) for own in chosen]
            per_trajectory = token_weights(lengths, cut.aggregation, cut.constant)
            batch: list[Sample] = []
            weights: list[float] = []
            for own, weight in zip(chosen, per_trajectory, strict=True):
                batch += own
                weights += [weight] * len(own)
            yield batch, weights


def average_metrics(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """The train/ metrics of a step's optimiser steps.

    Means; of the first one, before any update, the difference to the engine; the number skipped.
    """
    if not metrics:
        return {}
    found = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
    for name in ("train/logprob_gap", "train/mismatch_kl"):
        found[name] = metrics[0][name]
    found["train/skipped"] = sum(m["train/skipped"] for m in metrics)
    return found
