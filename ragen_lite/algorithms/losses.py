"""Losses: from log-probs and advantages to one number a token, to be minimised.

A loss is a frozen dataclass. Its fields are its options, and calling it is the algorithm. The
options that all losses share say which tokens count, and how much.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ragen_lite.algorithms.inputs import LossInputs as LossInputs
from ragen_lite.algorithms.inputs import ratio_of as ratio_of
from ragen_lite.algorithms.options import BadOption, not_negative

AGGREGATIONS = ("token", "sequence", "constant")


@dataclass(frozen=True, slots=True)
class LossOutput:
    """What a loss says of each token.

    Attributes:
        per_token: (N,), before the aggregation's weights.
        metrics: (N,) each, by the names of metrics.jsonl; logged as means over the tokens.
    """

    per_token: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss(ABC):
    """What an entry of the table is made from: the options of every loss, and its call."""

    aggregation: str = "token"
    """Weight of a token: token (all of an optimiser step alike), sequence (all trajectories alike),
    constant (1 over sample.max_tokens, Dr. GRPO's)."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    turn_mask: bool = True
    """Train on sampled tokens only; false trains on observations too, to show what that breaks."""

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            allowed = ", ".join(AGGREGATIONS)
            raise BadOption("aggregation", f"{self.aggregation!r}: choose one of {allowed}")
        not_negative("entropy_coef", self.entropy_coef)

    @abstractmethod
    def __call__(self, tokens: LossInputs) -> LossOutput:
        """The loss of each token."""


def clipped(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO's objective, the smaller of free and clipped, and where it is clipped, each (N,)."""
    free = ratio * advantages
    bound = ratio.clamp(1 - low, 1 + high) * advantages
    # Where the clipped objective is the smaller one, the gradient is zero.
    outside = (free > bound).to(ratio.dtype)
    return torch.minimum(free, bound), outside


@dataclass(frozen=True)
class PPO(Loss):
    """PPO's clipped objective, with a lower and an upper clip ratio (DAPO, arXiv:2503.14476)."""

    clip_low: float = 0.2
    """Lower clip ratio: a ratio below 1 - clip_low earns no more."""
    clip_high: float = 0.28
    """Upper clip ratio: a ratio above 1 + clip_high earns no more (DAPO's clip-higher)."""
    dual_clip: float = 0.0
    """Where the advantage is below 0, the ratio counts up to this (verl's is 3); 0: without end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("clip_low", self.clip_low)
        not_negative("clip_high", self.clip_high)
        if self.dual_clip and not self.dual_clip > 1:
            raise BadOption("dual_clip", f"{self.dual_clip}: it must be above 1, or 0")

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        ratio = ratio_of(tokens)
        least, outside = clipped(ratio, tokens.advantages, self.clip_low, self.clip_high)
        if self.dual_clip:
            floor = self.dual_clip * tokens.advantages
            least = torch.where(tokens.advantages < 0, torch.maximum(least, floor), least)
        return LossOutput(-least, {"train/clip_fraction": outside})


@dataclass(frozen=True)
class Reinforce(Loss):
    """Importance-weighted policy gradient without clipping (Williams 1992)."""

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        return LossOutput(-ratio_of(tokens) * tokens.advantages)


def token_weights(lengths: list[int], aggregation: str, constant: int | None = None) -> list[float]:
    """The weight of each trained token, by sample.

    Args:
        lengths: trained tokens of each sample of a whole optimiser step.
        aggregation: ``token``: every token the same, 1 / all. ``sequence``: every sample the same.
            ``constant``: 1 / (samples x constant).
        constant: the number of tokens of the last.

    >>> token_weights([1, 3], "token"), token_weights([1, 4], "sequence")
    ([0.25, 0.25], [0.5, 0.125])
    >>> token_weights([1, 4], "constant", 10)
    [0.05, 0.05]
    """
    if aggregation == "token":
        return [1 / max(1, sum(lengths))] * len(lengths)
    if aggregation == "sequence":
        return [1 / (len(lengths) * max(1, length)) for length in lengths]
    assert constant is not None
    # A token's weight does not depend on how long any reply is.
    return [1 / (len(lengths) * constant)] * len(lengths)
