"""What losses and penalties are given of each token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossInputs:
    """One entry a trained token, all of shape (N,); a micro-batch's share of an optimiser step.

    Attributes:
        logprobs: the learner's, in nats, with gradient.
        behaviour_logprobs: the engine's, that the tokens were drawn with.
        reference_logprobs: the frozen reference model's, where there is one.
        entropy: of the learner's distribution, in nats.
        advantages: from the credit.
        weights: the aggregation over the whole optimiser step, so that shares add up whatever the
            number of micro-batches.
        sequences: which sample of the micro-batch a token belongs to, from 0; a sample is whole in
            its micro-batch.
        share: 1 / trained tokens of the whole step: a metric's weight.
    """

    logprobs: Tensor
    behaviour_logprobs: Tensor
    reference_logprobs: Tensor | None
    entropy: Tensor
    advantages: Tensor
    weights: Tensor
    sequences: Tensor
    share: float


def ratio_of(tokens: LossInputs) -> Tensor:
    """The importance ratio of each token, policy over behaviour, (N,)."""
    return torch.exp(tokens.logprobs - tokens.behaviour_logprobs)
