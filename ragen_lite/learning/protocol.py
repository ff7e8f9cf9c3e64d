"""What a learner is to a run; and what it asks of those beside it: a critic, a reference model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.advantages import Values
from ragen_lite.algorithms.critics import ValueCritic
from ragen_lite.algorithms.losses import Loss
from ragen_lite.learning.batches import Batch, Sample

# Gives the reference model, or its forward pass, for as long as the context is open.
Reference = Callable[[], AbstractContextManager[Any]]


class Learning(Protocol):
    """What a run asks of its learner: one of this process, or several that learn as one."""

    version: int
    """The iteration whose weights these are."""

    @property
    def updates(self) -> int:
        """Optimiser steps that moved the weights, in this process."""

    def begin_iteration(self, iteration: int, optimiser_steps: int) -> None:
        """See Learner."""

    def step(
        self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss, moves: bool = True
    ) -> dict[str, float]:
        """See Learner."""

    @property
    def score(self) -> Callable[[Sequence[Sample]], list[NDArray[np.float64]]]:
        """The policy's log-probs of each sample's trained tokens, in nats."""

    def reference_gap(self, samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
        """See Learner."""

    def values(self, groups: Sequence[Group]) -> Values | None:
        """See Learner."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See Learner."""


class Critic(Protocol):
    """Says what a state is worth: the return still to come, read before each sampled token."""

    options: ValueCritic

    def score(self, groups: Sequence[Group]) -> Values:
        """The values of all sampled tokens, one array a context, 0 where nothing was sampled."""

    def loss(
        self, batch: Batch, hidden: Tensor, share: float, frozen: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Its part of a micro-batch's loss, and its metrics; ``frozen`` spares the policy.

        Args:
            batch: whose trained tokens are valued.
            hidden: the policy's hidden states there, (N, hidden size).
            share: the weight of a token: all of the optimiser step's are alike.
            frozen: whether nothing but the critic may get a gradient.
        """

    def clip(self, grad_clip: float) -> float:
        """Clip its gradient to a norm; returns the norm before."""

    def step(self, lr: float) -> None:
        """One optimiser step, where the policy's learning rate is ``lr``."""

    def forget(self) -> None:
        """Drop the gradients."""

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser, by name, for a checkpoint."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take a checkpoint's ``state``. Raises KeyError where a weight is missing."""
