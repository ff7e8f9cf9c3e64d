"""Samples whose ratio starts from the learner's own log-probs, with importance weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragen_lite.algorithms.corrections import Array, Correction
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.scoring import Score


def apply_correction(
    samples: Sequence[Sample], scores: Sequence[Array], correction: Correction
) -> tuple[list[Sample], dict[str, float]]:
    """Samples whose ratio starts from the learner's own log-probs, and the difference's metrics.

    Their advantages carry importance weights for what the engine's log-probs differ by.

    Args:
        samples: of one step.
        scores: the learner's log-probs of each sample's trained tokens.
        correction: gives the weights.
    """
    results = []
    all_gaps = []
    all_weights = []
    for sample, learner in zip(samples, scores, strict=True):
        mask = sample.loss_mask
        drawn = sample.sampled[mask]
        gaps = np.where(drawn, learner - sample.behaviour_logprobs[mask], 0.0)
        weights = np.where(drawn, correction(gaps), 1.0)
        behaviour = sample.behaviour_logprobs.copy()
        # The loss's ratio is then 1 before the first update, and the weights carry the engine's
        # share.
        behaviour[mask] = learner
        advantages = sample.advantages.copy()
        advantages[mask] *= weights
        results.append(
            replace(sample, behaviour_logprobs=behaviour, advantages=advantages, sampled=mask)
        )
        all_gaps.append(gaps)
        all_weights.append(weights)
    gap = np.concatenate(all_gaps)
    return results, {
        "train/logprob_gap": float(np.abs(gap).max()),
        "train/mismatch_kl": float((np.expm1(gap) - gap).mean()),
        "train/correction": float(np.concatenate(all_weights).mean()),
    }


def correct_all(
    by_trajectory: Sequence[Sequence[Sample]], score: Score, correction: Correction
) -> tuple[list[list[Sample]], dict[str, float]]:
    """As ``apply_correction``, of the samples of each trajectory; ``score`` is the learner's."""
    samples = [sample for own in by_trajectory for sample in own]
    corrected, metrics = apply_correction(samples, score(samples), correction)
    given = iter(corrected)
    return [[next(given) for _ in own] for own in by_trajectory], metrics
