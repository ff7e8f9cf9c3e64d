"""Critics: where the value head sits, how it learns, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ragen_lite.algorithms.options import above_zero, not_negative


class Critic(Protocol):
    """What an entry of the table makes, once its options are set."""

    @property
    def active(self) -> bool:
        """Whether there is one."""


@dataclass(frozen=True)
class NoCritic:
    """None: the credit compares returns."""

    @property
    def active(self) -> bool:
        """See Critic."""
        return False


@dataclass(frozen=True)
class ValueCritic:
    """The options of every critic, and its loss."""

    shared = False

    lr_ratio: float = 10.0
    """The critic's learning rate, in those of the policy, whose schedule it follows (RAGEN: 10)."""
    clip: float = 0.0
    """How far a value may move from the one the credit was given by, in units of the return; 0: as
    far as it likes. verl's is 0.5, which holds a critic back where returns are about 10."""
    warmup: int = 0
    """Iterations at the start in which the critic alone learns."""

    def __post_init__(self) -> None:
        above_zero("lr_ratio", self.lr_ratio)
        not_negative("clip", self.clip)
        not_negative("warmup", self.warmup)

    @property
    def active(self) -> bool:
        """See Critic."""
        return True

    @property
    def weight(self) -> float:
        """Of the critic's loss beside the policy's."""
        return 1.0

    def loss(self, values: Tensor, old: Tensor, targets: Tensor) -> Tensor:
        """Half the squared error of each token, (N,): the larger of free and clipped (PPO's).

        >>> numbers = torch.tensor([[0.9], [0.2], [1.0]])  # value, old value, target
        >>> ValueCritic(clip=0.5).loss(*numbers).round(decimals=3).tolist()
        [0.045]
        """
        error = (values - targets).square()
        if self.clip:
            bound = old + (values - old).clamp(-self.clip, self.clip)
            error = torch.maximum(error, (bound - targets).square())
        return error / 2


@dataclass(frozen=True)
class OwnCritic(ValueCritic):
    """A value head on a copy of the starting model, which learns beside the policy."""


@dataclass(frozen=True)
class SharedCritic(ValueCritic):
    """A value head on the policy's own hidden states, which it moves too."""

    shared = True

    coef: float = 0.1
    """Weight of the critic's loss in the policy's (TRL's is 0.1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero("coef", self.coef)

    @property
    def weight(self) -> float:
        """See ValueCritic."""
        return self.coef
