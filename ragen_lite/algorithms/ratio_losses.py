"""Losses beside PPO's: other trust regions, by sequence, by weight or by probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ragen_lite.algorithms.losses import Loss, LossInputs, LossOutput, clipped, ratio_of
from ragen_lite.algorithms.options import BadOption, above_zero, not_negative


def sequence_means(values: Tensor, sequences: Tensor) -> Tensor:
    """Each sequence's mean, at each of its tokens, (N,).

    >>> sequence_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])).tolist()
    [2.0, 2.0, 5.0]
    """
    count = int(sequences.max()) + 1 if len(sequences) else 0
    sums = values.new_zeros(count).index_add(0, sequences, values)
    lengths = values.new_zeros(count).index_add(0, sequences, torch.ones_like(values))
    return (sums / lengths.clamp(min=1))[sequences]


def log_ratio(tokens: LossInputs) -> Tensor:
    """The log of the importance ratio of each token, (N,)."""
    return tokens.logprobs - tokens.behaviour_logprobs


@dataclass(frozen=True)
class GSPO(Loss):
    """PPO's clip on a sequence's mean ratio, the same for all its tokens (arXiv:2507.18071).

    Take ``loss.aggregation=sequence``, as ``algo=gspo`` does.
    """

    clip_low: float = 3e-4
    """Lower clip ratio of the sequence."""
    clip_high: float = 4e-4
    """Upper clip ratio of the sequence."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("clip_low", self.clip_low)
        not_negative("clip_high", self.clip_high)

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        mean = sequence_means(log_ratio(tokens), tokens.sequences)
        # The sequence's ratio is a number; the gradient is that of the token's own log-prob.
        own = torch.exp(tokens.logprobs - tokens.logprobs.detach())
        ratio = torch.exp(mean).detach() * own
        least, outside = clipped(ratio, tokens.advantages, self.clip_low, self.clip_high)
        return LossOutput(-least, {"train/clip_fraction": outside})


@dataclass(frozen=True)
class CISPO(Loss):
    """Policy gradient with a clipped importance weight, which no token loses (arXiv:2506.13585)."""

    clip_min: float = 0.0
    """The smallest importance weight."""
    clip_max: float = 5.0
    """The largest importance weight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("clip_min", self.clip_min)
        if not self.clip_max >= max(1.0, self.clip_min):
            raise BadOption(
                "clip_max", f"{self.clip_max}: it must be 1 or more, and above clip_min"
            )

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        ratio = ratio_of(tokens).detach()
        weight = ratio.clamp(self.clip_min, self.clip_max)
        outside = (weight != ratio).to(ratio.dtype)
        per_token = -weight * tokens.advantages * tokens.logprobs
        return LossOutput(per_token, {"train/clip_fraction": outside})


@dataclass(frozen=True)
class SAPO(Loss):
    """A soft gate on the ratio in place of a clip (arXiv:2511.20347)."""

    temperature_up: float = 1.0
    """Steepness of the gate where the advantage is above 0."""
    temperature_down: float = 1.05
    """Steepness where it is not: steeper, since such tokens unsettle more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero("temperature_up", self.temperature_up)
        above_zero("temperature_down", self.temperature_down)

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        up = torch.full_like(tokens.advantages, self.temperature_up)
        down = torch.full_like(tokens.advantages, self.temperature_down)
        steepness = torch.where(tokens.advantages > 0, up, down)
        gate = torch.sigmoid(steepness * (ratio_of(tokens) - 1))
        return LossOutput(-tokens.advantages * gate * 4 / steepness)


@dataclass(frozen=True)
class DPPO(Loss):
    """A trust region on probabilities, not on their ratio (arXiv:2602.04879).

    A token that moved its way by more than the limit is left out; the weight of the others is the
    ratio, capped.
    """

    limit_down: float = 0.2
    """How far a probability may have fallen."""
    limit_up: float = 0.2
    """How far it may have risen."""
    cap: float = 20.0
    """The largest importance weight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero("limit_down", self.limit_down)
        above_zero("limit_up", self.limit_up)
        above_zero("cap", self.cap)

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        moved = torch.exp(tokens.logprobs.detach()) - torch.exp(tokens.behaviour_logprobs)
        rising = tokens.advantages > 0
        too_far = torch.where(rising, moved > self.limit_up, moved < -self.limit_down)
        weight = ratio_of(tokens).detach().clamp(max=self.cap)
        per_token = -tokens.advantages * weight * tokens.logprobs * ~too_far
        return LossOutput(per_token, {"train/clip_fraction": too_far.to(weight.dtype)})


@dataclass(frozen=True)
class GMPO(Loss):
    """The geometric mean of a sequence's ratios, each clipped in the log (arXiv:2507.20673).

    Take ``loss.aggregation=sequence``, as ``algo=gmpo`` does.
    """

    clip: float = 0.4
    """How far the log of a ratio counts, on the side where the objective would earn from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero("clip", self.clip)

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        log = log_ratio(tokens)
        sign = torch.sign(tokens.advantages)
        free = sign * log
        bound = sign * log.clamp(-self.clip, self.clip)
        counted = sign * torch.minimum(free, bound)
        mean = sequence_means(counted, tokens.sequences)
        outside = (free > bound).to(log.dtype)
        return LossOutput(-tokens.advantages * torch.exp(mean), {"train/clip_fraction": outside})
