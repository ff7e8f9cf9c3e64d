"""Replies that were cut at their length, and those that come near it: what they earn and teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ragen_lite.agents.trajectory import Trajectory, Turn
from ragen_lite.algorithms.options import BadOption, not_negative


class Overlong(Protocol):
    """What an entry of the table makes, once its options are set."""

    def rewards(self, trajectory: Trajectory, max_tokens: int) -> list[float]:
        """What each turn counts in the credit; ``max_tokens`` is the longest reply."""

    def trains(self, turn: Turn) -> bool:
        """Whether the reply's tokens are trained on."""


@dataclass(frozen=True)
class KeepCut:
    """A cut reply counts like any other."""

    buffer: int = 0
    """The last tokens of the longest reply, over which a penalty grows from 0 (DAPO's soft
    overlong punishment, arXiv:2503.14476); 0: none."""
    penalty: float = 1.0
    """What a reply of the full length is charged."""

    def __post_init__(self) -> None:
        not_negative("buffer", self.buffer)
        not_negative("penalty", self.penalty)
        if self.penalty != 1.0 and not self.buffer:
            raise BadOption("penalty", f"{self.penalty}: it does nothing without overlong.buffer")

    def rewards(self, trajectory: Trajectory, max_tokens: int) -> list[float]:
        """See Overlong."""
        return [turn.reward - self._charge(turn, max_tokens) for turn in trajectory.turns]

    def _charge(self, turn: Turn, max_tokens: int) -> float:
        if not self.buffer:
            return 0.0
        over = turn.reply_tokens - (max_tokens - self.buffer)
        return self.penalty * max(0, over) / self.buffer

    def trains(self, turn: Turn) -> bool:
        """See Overlong."""
        return True


@dataclass(frozen=True)
class ZeroCut(KeepCut):
    """A trajectory with a cut reply earns nothing: its rewards above 0 count 0."""

    def rewards(self, trajectory: Trajectory, max_tokens: int) -> list[float]:
        """See Overlong."""
        cut = any(turn.cut for turn in trajectory.turns)
        rewards = [min(turn.reward, 0.0) if cut else turn.reward for turn in trajectory.turns]
        charges = [self._charge(turn, max_tokens) for turn in trajectory.turns]
        return [reward - charge for reward, charge in zip(rewards, charges, strict=True)]


@dataclass(frozen=True)
class MaskCut(KeepCut):
    """A cut reply is not trained on (DAPO's overlong filtering), but counts in the baseline."""

    def trains(self, turn: Turn) -> bool:
        """See Overlong."""
        return not turn.cut
