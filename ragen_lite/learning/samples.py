"""From trajectories to samples: the only place where masks are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragen_lite.agents.trajectory import Context, Trajectory

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

    ``sampled`` is ``loss_mask`` but where the turn mask is off: then observations are trained on
    too, which no engine sampled and which have no behaviour log-prob.
    """

    token_ids: Sequence[int]
    loss_mask: Mask
    behaviour_logprobs: Array
    advantages: Array
    sampled: Mask

    @property
    def trained(self) -> int:
        """The number of tokens that are trained on."""
        return int(self.loss_mask.sum())


def to_samples(
    trajectory: Trajectory, advantages: Sequence[Array], turn_mask: bool = True
) -> list[Sample]:
    """A trajectory's contexts with their credit, ready for the loss.

    Args:
        trajectory: of one or more contexts.
        advantages: one array a context, one entry a token.
        turn_mask: train on sampled tokens only; else on all that follows a context's first prompt.
    """
    samples = []
    for number, (context, array) in enumerate(zip(trajectory.contexts, advantages, strict=True)):
        turns = trajectory.turns_of(number)
        first = turns[0][1].start if turns else len(context.token_ids)
        samples.append(_sample(context, array, None if turn_mask else first))
    return samples


def _sample(context: Context, advantages: Array, train_from: int | None) -> Sample:
    sampled = np.array(context.loss_mask)
    behaviour = np.array(context.behaviour_logprobs)
    # With the turn mask the two are the same: what was sampled is what is trained on.
    loss_mask = sampled
    if train_from is not None:
        loss_mask = np.arange(len(sampled)) >= train_from
    return Sample(context.token_ids, loss_mask, behaviour, advantages, sampled)


def demonstration(token_ids: Sequence[int], loss_mask: Sequence[bool] | Mask) -> Sample:
    """A sample that nobody drew: it has no log-probs and no credit."""
    nothing = np.zeros(len(token_ids))
    nowhere = np.zeros(len(token_ids), dtype=bool)
    return Sample(token_ids, np.array(loss_mask), nothing, nothing, nowhere)
