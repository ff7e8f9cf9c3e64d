"""Filters: which groups of a step are learnt from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.options import not_negative, share


class Filter(Protocol):
    """What an entry of the table makes, once its options are set."""

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """Whether each group of the step is kept."""


@dataclass(frozen=True)
class _Refilled:
    refill: int = 0
    """Times that as many new instances are played where fewer groups than train.groups passed, at
    most (DAPO's dynamic sampling); what is over is not learnt from."""

    def __post_init__(self) -> None:
        not_negative("refill", self.refill)


@dataclass(frozen=True)
class MixedOutcomes(_Refilled):
    """Groups of which some members succeeded and some did not (DAPO, arXiv:2503.14476).

    Where returns differ by step penalties alone, the group teaches to do nothing.
    """

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        return [len({t.success for t in group.trajectories}) == 2 for group in groups]


@dataclass(frozen=True)
class Spread(_Refilled):
    """Groups whose returns differ at all."""

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        return [len({t.returns for t in group.trajectories}) > 1 for group in groups]


@dataclass(frozen=True)
class KeepAll:
    """Every group."""

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        return [True] * len(groups)


def spread_of(group: Group) -> float:
    """The sample standard deviation of a group's returns; 0 where there is but one."""
    returns = [trajectory.returns for trajectory in group.trajectories]
    return float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0


def widest_first(groups: Sequence[Group]) -> list[tuple[int, float]]:
    """Places and spreads of the groups whose returns differ, the widest first; ties by place."""
    spreads = [(i, spread_of(group)) for i, group in enumerate(groups)]
    return sorted([pair for pair in spreads if pair[1] > 0], key=lambda pair: (-pair[1], pair[0]))


def kept(groups: Sequence[Group], places: Sequence[int]) -> list[bool]:
    """Whether each group's place is among those given."""
    chosen = set(places)
    return [i in chosen for i in range(len(groups))]


@dataclass(frozen=True)
class TopK:
    """The groups whose returns differ most (RAGEN, arXiv:2504.20073)."""

    share: float = 0.25
    """Share of the step's groups that is kept, rounded up."""

    def __post_init__(self) -> None:
        share("share", self.share)

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        count = math.ceil(self.share * len(groups))
        return kept(groups, [i for i, _ in widest_first(groups)[:count]])


@dataclass(frozen=True)
class TopP:
    """The fewest groups that hold a share of all the spread of returns (RAGEN-2's top-p)."""

    share: float = 0.9
    """Share of the sum of the groups' standard deviations."""

    def __post_init__(self) -> None:
        share("share", self.share)

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        ordered = widest_first(groups)
        # RAGEN's slack, so that a sum that rounding has made too small is enough.
        wanted = self.share * sum(spread for _, spread in ordered) - 0.01
        places = []
        held = 0.0
        for i, spread in ordered:
            if held >= wanted:
                break
            places.append(i)
            held += spread
        return kept(groups, places)


@dataclass(frozen=True)
class MinP:
    """Groups whose returns differ by at least a share of the widest group's spread."""

    share: float = 0.1
    """Share of the widest group's standard deviation."""

    def __post_init__(self) -> None:
        share("share", self.share)

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        ordered = widest_first(groups)
        least = self.share * ordered[0][1] if ordered else 0.0
        return kept(groups, [i for i, spread in ordered if spread >= least])
