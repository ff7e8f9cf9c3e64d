"""Filters: which groups of a step are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ragen_lite.agents.trajectory import Group


class Filter(Protocol):
    """What an entry of the table makes, once its options are set."""

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """Whether each group of the step is kept."""


@dataclass(frozen=True)
class MixedOutcomes:
    """Groups of which some members succeeded and some did not (DAPO, arXiv:2503.14476).

    Where returns differ by step penalties alone, the group teaches to do nothing.
    """

    def __call__(self, groups: Sequence[Group]) -> list[bool]:
        """See Filter."""
        return [len({t.success for t in group.trajectories}) == 2 for group in groups]


@dataclass(frozen=True)
class Spread:
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
