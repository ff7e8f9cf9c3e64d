"""Importance weights for an engine whose arithmetic is not the learner's.

Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragen_lite.algorithms.options import BadOption

Array = NDArray[np.float64]


class Correction(Protocol):
    """What an entry of the table makes, once its options are set."""

    @property
    def active(self) -> bool:
        """Whether it does anything; it then costs one more forward pass a step."""

    def __call__(self, gaps: Array) -> Array:
        """Importance weights of a sample's trained tokens, (N,).

        ``gaps`` are the log-probs of the learner less those of the engine, in nats; 0 where no
        engine sampled. Multiplied with the advantages, the weights make up for the difference; all
        are 1 where the log-probs are equal.
        """


@dataclass(frozen=True)
class NoCorrection:
    """None: the ratio of the loss starts from the engine's own log-probs."""

    @property
    def active(self) -> bool:
        """See Correction."""
        return False

    def __call__(self, gaps: Array) -> Array:
        """See Correction."""
        return np.ones_like(gaps)


@dataclass(frozen=True)
class _Truncated:
    truncation: float = 2.0
    """The largest importance weight."""

    def __post_init__(self) -> None:
        if not self.truncation >= 1:
            raise BadOption("truncation", f"{self.truncation}: it must be 1 or more")

    @property
    def active(self) -> bool:
        """See Correction."""
        return True

    def truncated(self, gaps: Array) -> Array:
        """The weights of these differences, none above the truncation."""
        # Cut before the exponential, so that a large gap cannot overflow.
        weights: Array = np.exp(np.minimum(gaps, np.log(self.truncation)))
        return weights


@dataclass(frozen=True)
class TokenWeights(_Truncated):
    """Each token its own weight.

    >>> TokenWeights()(np.log([0.5 / 0.4, 0.9 / 0.3])).round(3).tolist()
    [1.25, 2.0]
    """

    def __call__(self, gaps: Array) -> Array:
        """See Correction."""
        return self.truncated(gaps)


@dataclass(frozen=True)
class SequenceWeights(_Truncated):
    """All tokens the weight of the whole sample.

    >>> SequenceWeights()(np.log([0.5 / 0.4, 0.3 / 0.5])).round(3).tolist()
    [0.75, 0.75]
    """

    def __call__(self, gaps: Array) -> Array:
        """See Correction."""
        return self.truncated(np.full_like(gaps, gaps.sum()))


@dataclass(frozen=True)
class _Masked:
    lowest: float = 0.5
    """The smallest importance weight that counts; a smaller one is 0."""
    highest: float = 5.0
    """The largest importance weight that counts; a larger one is 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.lowest <= 1:
            raise BadOption("lowest", f"{self.lowest}: it must be from 0 to 1")
        if not self.highest >= 1:
            raise BadOption("highest", f"{self.highest}: it must be 1 or more")

    @property
    def active(self) -> bool:
        """See Correction."""
        return True

    def masked(self, gaps: Array) -> Array:
        """The weights of these differences, 0 outside the bounds."""
        # Cut before the exponential, so that a large gap cannot overflow.
        weights: Array = np.exp(np.minimum(gaps, np.log(self.highest) + 1))
        inside = (weights >= self.lowest) & (weights <= self.highest)
        return np.where(inside, weights, 0.0)


@dataclass(frozen=True)
class TokenMask(_Masked):
    """Each token its own weight, and none where it is too large or too small (IcePop).

    >>> TokenMask()(np.log([2.5, 1.0, 0.4])).round(3).tolist()
    [2.5, 1.0, 0.0]
    """

    def __call__(self, gaps: Array) -> Array:
        """See Correction."""
        return self.masked(gaps)


@dataclass(frozen=True)
class SequenceMask(_Masked):
    """All tokens the weight of the whole sample, and none where it is too large or too small.

    >>> SequenceMask()(np.log([2.5, 0.5])).round(3).tolist()
    [1.25, 1.25]
    """

    def __call__(self, gaps: Array) -> Array:
        """See Correction."""
        return self.masked(np.full_like(gaps, gaps.sum()))
