"""From trajectories to samples: the only place where masks are built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ragen_lite.agents.trajectory import Context, Group, Trajectory, Turn
from ragen_lite.learning.batches import Array, Mask, Sample


def to_samples(
    trajectory: Trajectory,
    advantages: Sequence[Array],
    turn_mask: bool = True,
    trains: Callable[[Turn], bool] = lambda turn: True,
) -> list[Sample]:
    """A trajectory's contexts with their credit, ready for the loss.

    Args:
        trajectory: of one or more contexts.
        advantages: one array a context, one entry a token.
        turn_mask: train on sampled tokens only; else on all that follows a context's first prompt.
        trains: whether a turn's reply is trained on.
    """
    samples = []
    for number, (context, array) in enumerate(zip(trajectory.contexts, advantages, strict=True)):
        turns = trajectory.turns_of(number)
        first = turns[0][1].start if turns else len(context.token_ids)
        sample = _sample(context, array, None if turn_mask else first)
        for _, turn in turns:
            if not trains(turn):
                sample.loss_mask[turn.start : turn.stop] = False
        samples.append(sample)
    return samples


def _sample(context: Context, advantages: Array, train_from: int | None) -> Sample:
    sampled = np.array(context.loss_mask, dtype=bool)
    behaviour = np.array(context.behaviour_logprobs)
    # With the turn mask the two are the same: what was sampled is what is trained on.
    loss_mask = sampled.copy()
    if train_from is not None:
        loss_mask = np.arange(len(sampled)) >= train_from
    return Sample(context.token_ids, loss_mask, behaviour, advantages, sampled)


def blank(context: Context) -> Sample:
    """A context's sampled tokens before anybody has given them credit."""
    return _sample(context, np.zeros(len(context.token_ids)), None)


def placed(samples: Sequence[Sample], numbers: Iterable[Array]) -> list[Array]:
    """Numbers of trained tokens where these stand among all of a sample's; 0 elsewhere.

    ``numbers`` are those of the samples that have a trained token, in order.
    """
    given = iter(numbers)
    arrays = []
    for sample in samples:
        array = np.zeros(len(sample.token_ids))
        if sample.trained:
            array[sample.loss_mask] = next(given)
        arrays.append(array)
    return arrays


def blanks(groups: Sequence[Group]) -> list[Sample]:
    """One blank sample a context, in nested order of groups and trajectories."""
    return [blank(c) for group in groups for t in group.trajectories for c in t.contexts]


def demonstration(token_ids: Sequence[int], loss_mask: Sequence[bool] | Mask) -> Sample:
    """A sample that nobody drew: it has no log-probs and no credit."""
    nothing = np.zeros(len(token_ids))
    nowhere = np.zeros(len(token_ids), dtype=bool)
    return Sample(token_ids, np.array(loss_mask), nothing, nothing, nowhere)
