"""Penalties that are added to a loss: the KL to a frozen reference model.

Source of the estimators k1, k2 and k3: http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ragen_lite.algorithms.inputs import LossInputs, ratio_of
from ragen_lite.algorithms.options import BadOption, above_zero

PLACES = ("loss", "reward")


def k1(gap: Tensor) -> Tensor:
    """The k1 estimate of KL(p || q) from tokens of p; ``gap`` is log p - log q."""
    return gap


def k2(gap: Tensor) -> Tensor:
    """The k2 estimate: half the square; biased, with little variance."""
    return gap.square() / 2


def k3(gap: Tensor) -> Tensor:
    """The k3 estimate: unbiased, and never below 0."""
    # expm1 keeps the digits where the two models are nearly the same.
    return torch.expm1(-gap) + gap


class Penalty(Protocol):
    """What an entry of the table makes, once its options are set."""

    @property
    def needs_reference(self) -> bool:
        """Whether a frozen copy of the starting model is kept."""

    def coef_in_loss(self, iteration: int) -> float:
        """Its weight in the loss of an iteration, from 1."""

    def coef_in_reward(self, iteration: int) -> float:
        """What a nat costs in the reward of an iteration, from 1."""

    def estimate(self, tokens: LossInputs) -> Tensor:
        """The KL of each token, (N,), in nats."""


@dataclass(frozen=True)
class NoKL:
    """No KL term, and no reference model."""

    @property
    def needs_reference(self) -> bool:
        """See Penalty."""
        return False

    def coef_in_loss(self, iteration: int) -> float:
        """See Penalty."""
        return 0.0

    def coef_in_reward(self, iteration: int) -> float:
        """See Penalty."""
        return 0.0

    def estimate(self, tokens: LossInputs) -> Tensor:
        """See Penalty."""
        return torch.zeros_like(tokens.logprobs)


@dataclass(frozen=True)
class _KL:
    coef: float = 0.001
    """Weight of the KL."""
    place: str = "loss"
    """loss, or reward: a turn's reward is less by coef times the log-ratios of its tokens, summed;
    that is k1, whichever estimator is chosen, since the others are biased there."""
    start: int = 1
    """The first iteration with the penalty; before it the policy is free."""
    unbiased: bool = False
    """Times the importance ratio, with its gradient: the estimate of the present policy's KL, whose
    gradient is right for every estimator (arXiv:2512.02556)."""

    def __post_init__(self) -> None:
        if not self.coef > 0:
            raise BadOption("coef", f"{self.coef}: it must be above 0; kl=off takes the KL away")
        if self.place not in PLACES:
            raise BadOption("place", f"{self.place!r}: choose one of {', '.join(PLACES)}")
        if self.place == "reward" and self.unbiased:
            raise BadOption("unbiased", "true: it does nothing with kl.place=reward")
        above_zero("start", self.start)

    @property
    def needs_reference(self) -> bool:
        """See Penalty."""
        return True

    def coef_in_loss(self, iteration: int) -> float:
        """See Penalty."""
        return self.coef if self.place == "loss" and iteration >= self.start else 0.0

    def coef_in_reward(self, iteration: int) -> float:
        """See Penalty."""
        return self.coef if self.place == "reward" and iteration >= self.start else 0.0

    def gap(self, tokens: LossInputs) -> Tensor:
        """log policy - log reference, (N,)."""
        assert tokens.reference_logprobs is not None
        return tokens.logprobs - tokens.reference_logprobs

    def weighted(self, estimates: Tensor, tokens: LossInputs) -> Tensor:
        """The estimates, as unbiased as they are asked to be."""
        return ratio_of(tokens) * estimates if self.unbiased else estimates


@dataclass(frozen=True)
class K1(_KL):
    """The KL by k1, whose gradient is zero in expectation."""

    def estimate(self, tokens: LossInputs) -> Tensor:
        """See Penalty."""
        return self.weighted(k1(self.gap(tokens)), tokens)


@dataclass(frozen=True)
class K2(_KL):
    """The KL by k2, whose gradient is that of KL(policy || reference)."""

    def estimate(self, tokens: LossInputs) -> Tensor:
        """See Penalty."""
        return self.weighted(k2(self.gap(tokens)), tokens)


@dataclass(frozen=True)
class K3(_KL):
    """The KL by k3, whose gradient is that of KL(reference || policy)."""

    def estimate(self, tokens: LossInputs) -> Tensor:
        """See Penalty."""
        return self.weighted(k3(self.gap(tokens)), tokens)
