"""Credit and loss: small pure functions in two tables, blind to the model.

Sources: GRPO, arXiv:2402.03300; Dr. GRPO (no division by the spread, constant aggregation), arXiv:2503.20783; RLOO,
arXiv:2402.14740; clip-higher, token aggregation and the mixed-outcome filter, DAPO arXiv:2503.14476; the k1, k2, k3
estimators of the KL, http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.trajectory import Group, Trajectory

Array = NDArray[np.float64]
EPSILON = 1e-6  # verl's, added to the spread before dividing by it


# ---- credit: a group -> one advantage a token, for each of its trajectories ----


def standardise(values: Array, divide: bool) -> Array:
    """Values less their mean, divided by their sample standard deviation where asked; all zero where all are equal.

    >>> standardise(np.array([1.0, 3.0]), divide=False).tolist()
    [-1.0, 1.0]
    """
    if len(values) < 2 or values.max() == values.min():
        return np.zeros(len(values))
    centred: Array = values - values.mean()
    spread: Array = values.std(ddof=1) + EPSILON
    return np.divide(centred, spread) if divide else centred


def _spread_out(trajectory: Trajectory, per_turn: Array) -> Array:
    """Per-token advantages from per-turn ones: turn k's holds from where the last reply ended to its own end."""
    tokens = np.zeros(len(trajectory.token_ids))
    start = 0
    for turn, value in zip(trajectory.turns, per_turn, strict=True):
        tokens[start : turn.stop] = value
        start = turn.stop
    return tokens


def grpo(group: Group, divide: bool) -> list[Array]:
    """One advantage a trajectory: its return, standardised in the group."""
    members = group.trajectories
    advantages = standardise(np.array([t.reward for t in members]), divide)
    return [_spread_out(t, np.full(len(t.turns), a)) for t, a in zip(members, advantages, strict=True)]


def rloo(group: Group, divide: bool) -> list[Array]:
    """One advantage a trajectory: its return less the mean of the others', over the spread of all where asked."""
    members = group.trajectories
    size = len(members)
    scale = size / (size - 1) if size > 1 else 1.0
    advantages = standardise(np.array([t.reward for t in members]), divide) * scale
    return [_spread_out(t, np.full(len(t.turns), a)) for t, a in zip(members, advantages, strict=True)]


def turn(group: Group, divide: bool) -> list[Array]:
    """One advantage a turn: the return from that turn on, standardised among the members that reached the turn."""
    members = group.trajectories
    to_go = [np.cumsum([x.reward for x in t.turns][::-1])[::-1] for t in members]
    per_turn = [np.zeros(len(t.turns)) for t in members]
    for k in range(max((len(t.turns) for t in members), default=0)):
        reached = [i for i, t in enumerate(members) if len(t.turns) > k]
        for i, value in zip(reached, standardise(np.array([to_go[i][k] for i in reached]), divide), strict=True):
            per_turn[i][k] = value
    return [_spread_out(t, values) for t, values in zip(members, per_turn, strict=True)]


CREDITS: dict[str, Callable[[Group, bool], list[Array]]] = {"grpo": grpo, "rloo": rloo, "turn": turn}


# ---- which groups teach something ----


def mixed_outcomes(group: Group) -> bool:
    """Whether some members succeeded and some did not: a spread of step penalties alone teaches to do nothing."""
    return len({t.success for t in group.trajectories}) == 2


def any_spread(group: Group) -> bool:
    """Whether the returns differ at all."""
    return len({t.reward for t in group.trajectories}) > 1


def everything(group: Group) -> bool:
    return True


FILTERS: dict[str, Callable[[Group], bool]] = {"outcome": mixed_outcomes, "spread": any_spread, "none": everything}


# ---- between engine and learner ----

TRUNCATION = 2.0  # of the importance weights, as in their source


def truncated_weights(learner: Array, engine: Array, level: str) -> Array:
    """Truncated importance weights of one trajectory's tokens, (N,): min(learner / engine, 2), without a gradient.

    ``token``: each token its own ratio. ``sequence``: all tokens the ratio of the whole trajectory. Multiplied with the
    advantages they make up for an engine whose arithmetic is not the learner's; all 1 where the log-probs are equal,
    and where no engine sampled (nan). Source: Yao et al. 2025, "Your efficient RL framework secretly brings you
    off-policy RL training".

    >>> truncated_weights(np.log([0.5, 0.9]), np.log([0.4, 0.3]), "token").round(3).tolist()
    [1.25, 2.0]
    >>> truncated_weights(np.log([0.5, 0.3]), np.log([0.4, 0.5]), "sequence").round(3).tolist()
    [0.75, 0.75]
    """
    nobody = np.isnan(engine)
    gap = np.where(nobody, 0.0, learner - engine)
    if level == "sequence":
        gap = np.where(nobody, 0.0, gap.sum())
    weights: Array = np.exp(np.minimum(gap, np.log(TRUNCATION)))
    return weights


# ---- loss: flat per-token tensors -> scalar and metrics ----


@dataclass(frozen=True, slots=True)
class LossInputs:
    """One entry a trained token, all of shape (N,); a micro-batch's share of an optimiser step.

    ``weights`` hold the aggregation over the whole step, so that shares add up whatever the number of micro-batches.
    """

    logprobs: Tensor  # of the learner, with gradient
    behaviour: Tensor  # the engine's, that the tokens were drawn with
    reference: Tensor | None  # of the frozen reference model
    entropy: Tensor  # of the learner's distribution, nats
    advantages: Tensor
    weights: Tensor
    share: float  # 1 / trained tokens of the whole step: a metric's weight


@dataclass(frozen=True, slots=True)
class LossOptions:
    """The numbers a loss reads."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: str = "off"
    kl_coef: float = 0.0
    entropy_coef: float = 0.0


def clip(x: LossInputs, options: LossOptions) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped objective with separate lower and upper clip ratios (DAPO's clip-higher)."""
    ratio = torch.exp(x.logprobs - x.behaviour)
    clipped = ratio.clamp(1 - options.clip_low, 1 + options.clip_high)
    objective = torch.minimum(ratio * x.advantages, clipped * x.advantages)
    outside = (ratio * x.advantages > clipped * x.advantages).to(ratio.dtype)
    return -objective, {"train/clip_fraction": outside}


def reinforce(x: LossInputs, options: LossOptions) -> tuple[Tensor, dict[str, Tensor]]:
    """Importance-weighted policy gradient without clipping."""
    return -torch.exp(x.logprobs - x.behaviour) * x.advantages, {}


LOSSES: dict[str, Callable[[LossInputs, LossOptions], tuple[Tensor, dict[str, Tensor]]]] = {
    "clip": clip,
    "reinforce": reinforce,
}


def k3(gap: Tensor) -> Tensor:
    """The k3 estimate of KL(p || q) from tokens of p, where ``gap`` is log q - log p; never below 0."""
    return torch.expm1(gap) - gap


def kl_estimate(kind: str, logprobs: Tensor, reference: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens of the policy: k1, k2 or k3."""
    gap = logprobs - reference
    if kind == "k1":
        return gap
    if kind == "k2":
        return gap.square() / 2
    return k3(-gap)


def policy_loss(name: str, x: LossInputs, options: LossOptions) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of a loss from LOSSES, the KL to the reference and the entropy bonus; and metrics.

    The metrics are shares too: summed over micro-batches they are means over the step's tokens.
    """
    per_token, extra = LOSSES[name](x, options)
    if x.reference is not None:
        kl = kl_estimate(options.kl, x.logprobs, x.reference)
        per_token = per_token + options.kl_coef * kl
        extra["train/kl"] = kl
    if options.entropy_coef:
        per_token = per_token - options.entropy_coef * x.entropy
    loss = (x.weights * per_token).sum()
    extra["train/entropy"] = x.entropy
    return loss, {name: (x.share * value).sum().detach() for name, value in extra.items()}


AGGREGATIONS = ("token", "sequence", "constant")


def token_weights(lengths: list[int], aggregation: str, constant: int | None = None) -> list[float]:
    """The weight of each trained token, by trajectory, from the numbers of trained tokens of a whole optimiser step.

    ``token``: every token the same, 1 / all. ``sequence``: every trajectory the same. ``constant``: 1 / (trajectories
    x constant), Dr. GRPO's.

    >>> token_weights([1, 3], "token"), token_weights([1, 4], "sequence"), token_weights([1, 4], "constant", 10)
    ([0.25, 0.25], [0.5, 0.125], [0.05, 0.05])
    """
    if aggregation == "token":
        return [1 / max(1, sum(lengths))] * len(lengths)
    if aggregation == "sequence":
        return [1 / (len(lengths) * max(1, length)) for length in lengths]
    assert constant is not None
    return [1 / (len(lengths) * constant)] * len(lengths)
