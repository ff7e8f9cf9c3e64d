"""A step's groups with their credit: which are learnt from, and by which advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragen_lite.agents.trajectory import Group, Trajectory
from ragen_lite.algorithms.advantages import Advantage, Array
from ragen_lite.algorithms.filters import Filter
from ragen_lite.learning.samples import Sample, to_samples


@dataclass(frozen=True, slots=True)
class Credited:
    """A trajectory with its advantages, one array a context.

    ``kept`` is whether its group passed the filter.
    """

    trajectory: Trajectory
    advantages: list[Array]
    kept: bool

    def samples(self, turn_mask: bool) -> list[Sample]:
        """What is trained on, one sample a context.

        A context without a trained token (the first prompt did not fit) has none.
        """
        samples = to_samples(self.trajectory, self.advantages, turn_mask)
        return [sample for sample in samples if sample.trained]


def give_credit(groups: Sequence[Group], credit: Advantage, passes: Filter) -> list[Credited]:
    """Every trajectory of a step with its credit, which the filter does not change."""
    # The credit gives one array a context, in the order of the groups and their members.
    arrays = iter(credit(groups))
    credited = []
    for group, kept in zip(groups, passes(groups), strict=True):
        for trajectory in group.trajectories:
            advantages = [next(arrays) for _ in trajectory.contexts]
            credited.append(Credited(trajectory, advantages, kept))
    return credited


def kept_share(credited: Sequence[Credited]) -> float:
    """Share of the step's groups that passed the filter."""
    kept = {c.trajectory.group: c.kept for c in credited}
    return sum(kept.values()) / max(1, len(kept))
