"""Curricula: which kinds of instance a step is played on, where a task tells how hard one is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.options import above_zero, share


class Curriculum(Protocol):
    """What an entry of the table makes, once its options are set.

    A kind of instance is a task at a difficulty; ``values`` holds a number for each, which is
    ``first`` in the beginning.
    """

    active: bool
    first: float

    def shares(self, values: Mapping[str, float]) -> dict[str, float]:
        """The probability that an instance of each kind is drawn."""

    def learnt(
        self, values: Mapping[str, float], groups: Mapping[str, Sequence[Group]]
    ) -> dict[str, float]:
        """The values after a step whose groups, by kind, were these."""


@dataclass(frozen=True)
class AsDrawn:
    """Instances come as the task draws them."""

    active = False
    first = 0.0

    def shares(self, values: Mapping[str, float]) -> dict[str, float]:
        """See Curriculum; it chooses nothing."""
        return {}

    def learnt(
        self, values: Mapping[str, float], groups: Mapping[str, Sequence[Group]]
    ) -> dict[str, float]:
        """See Curriculum."""
        return dict(values)


@dataclass(frozen=True)
class SEC:
    """Self-Evolving Curriculum: kinds that teach more are drawn more, as by a bandit.

    What a group teaches is its members' mean absolute advantage, that of success: 1 where half of
    them succeed, 0 where all or none do. A kind begins at the most it could teach, so that each is
    tried (the source begins at 0). Where the task tells no difficulty, nothing is chosen.
    Source: arXiv:2505.14970.
    """

    rate: float = 0.5
    """Weight of the newest step in a kind's value."""
    temperature: float = 0.2
    """Of the softmax over the values: the lower, the rarer what teaches little."""

    active = True
    first = 1.0

    def __post_init__(self) -> None:
        share("rate", self.rate)
        above_zero("temperature", self.temperature)

    def shares(self, values: Mapping[str, float]) -> dict[str, float]:
        """See Curriculum."""
        # The largest exponent is 0, whatever the temperature.
        most = max(values.values(), default=0.0)
        weights = {k: math.exp((value - most) / self.temperature) for k, value in values.items()}
        whole = sum(weights.values())
        return {kind: weight / whole for kind, weight in weights.items()}

    def learnt(
        self, values: Mapping[str, float], groups: Mapping[str, Sequence[Group]]
    ) -> dict[str, float]:
        """See Curriculum."""
        found = dict(values)
        for kind, played in groups.items():
            taught = sum(absolute_advantage(group) for group in played) / len(played)
            found[kind] = (1 - self.rate) * found[kind] + self.rate * taught
        return found


def absolute_advantage(group: Group) -> float:
    """The mean absolute advantage of a group's members by success, divided by its spread.

    With a share p of successes it is 2p(1 - p) / sqrt(p(1 - p)).
    """
    wins = [trajectory.success for trajectory in group.trajectories]
    p = sum(wins) / len(wins)
    return 2 * math.sqrt(p * (1 - p))
