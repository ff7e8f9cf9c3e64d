"""Losses, credits and corrections against TRL's own code, on random batches, to 1e-6.

TRL's formulas stand inside its trainers: the losses in ``_compute_loss``, the advantages and the
corrections in ``_generate_and_score_completions``. conftest.py calls both as they are, on a
stand-in for the trainer whose model, sampler and rewards hand out given numbers.

Left out, since the two differ by design: RLOO's loss, which sums a reply's log-ratios (but for
replies of one token), and its ``normalize_advantages``, over the batch; ``scale_rewards="batch"``;
under GSPO, weights by token and ``use_bias_correction_kl``; a ``delta`` within the clip; GMPO's
value with a sample that has no trained token. TRL adds 1e-4 to the spread of rewards where we add
1e-6: rewards here are too large to show it. TRL has no MaxRL, DPPO, GAE, REINFORCE++ or GiGPO, no
k1 or k2 in GRPO, and no GSPO by token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ragen_lite.agents.trajectory import Group, Outcome
from ragen_lite.algorithms.advantages import GRPO, RLOO, Advantage, DrGRPO
from ragen_lite.algorithms.batch_credit import BatchMean
from ragen_lite.algorithms.corrections import SequenceMask, SequenceWeights, TokenMask, TokenWeights
from ragen_lite.algorithms.kl import K3
from ragen_lite.algorithms.losses import PPO, Loss, LossInputs, Reinforce, token_weights
from ragen_lite.algorithms.ratio_losses import CISPO, GMPO, GSPO, SAPO
from tests.fixtures.making import trajectory, turn

pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed")
pytestmark = [pytest.mark.pretrained, pytest.mark.filterwarnings("ignore::UserWarning")]

Three = tuple[Tensor, Tensor, Any]  # a loss, its gradient, the share of clipped tokens
Theirs = Callable[..., Three]
Scored = Callable[..., dict[str, Tensor]]
SEEDS = range(5)
ROWS = 8
BUDGET = 12  # the constant of Dr. GRPO


# ---- what both are given ----


@dataclass
class Batch:
    """Replies as rows, padded; ``trained`` is true on what was sampled, with gaps as of turns."""

    completion: Tensor
    trained: Tensor
    new: Tensor
    old: Tensor
    reference: Tensor
    engine: Tensor
    advantages: Tensor

    def part(self, rows: slice) -> Batch:
        return Batch(**{name: value[rows] for name, value in vars(self).items()})


def drawn(seed: int, longest: int = 9) -> Batch:
    """A random batch, whose ratios spread widely: every clip is met on both sides."""
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (ROWS, 1), generator=source)
    completion = torch.arange(int(lengths.max())) < lengths
    sampled = torch.rand(completion.shape, generator=source) < 0.7
    sampled[:, 0] = True

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(completion.shape, generator=source)

    new = -torch.rand(completion.shape, generator=source) - 0.1
    old = new + noise(0.7)
    return Batch(
        completion=completion.long(),
        trained=completion & sampled,
        new=new,
        old=old,
        reference=new + noise(0.5),
        engine=old + noise(0.5),
        advantages=torch.randn(ROWS, generator=source),
    )


def equal(ours: Any, theirs: Any) -> None:
    a = torch.as_tensor(ours)
    torch.testing.assert_close(a, torch.as_tensor(theirs), rtol=0, atol=1e-6, check_dtype=False)


def agree(ours: Three, theirs: Three) -> None:
    """Value and gradient are the same, and so are the clipped tokens where both count them."""
    equal(ours[0], theirs[0])
    equal(ours[1], theirs[1])
    if theirs[2] is not None:
        equal(ours[2], theirs[2])
    assert ours[1].abs().max() > 1e-3  # there was something to compare


# ---- ours ----


def loss_inputs(batch: Batch, logprobs: Tensor, weights: Tensor, factors: Tensor) -> LossInputs:
    mask = batch.trained
    rows = torch.arange(ROWS)[:, None].expand(mask.shape)[mask]
    return LossInputs(
        logprobs=logprobs[mask],
        behaviour_logprobs=batch.old[mask],
        reference_logprobs=batch.reference[mask],
        entropy=torch.zeros(len(rows)),
        advantages=batch.advantages[rows] * factors,
        weights=weights[rows],
        sequences=rows,
        share=1 / len(rows),
    )


def ours(
    batch: Batch, loss: Loss, constant: int = BUDGET, kl: K3 | None = None, factors: Any = 1.0
) -> Three:
    """The loss, its gradient by row and token, and the share of tokens that are clipped."""
    lengths = [int(n) for n in batch.trained.sum(1)]
    weights = torch.tensor(token_weights(lengths, loss.aggregation, constant))
    logprobs = batch.new.clone().requires_grad_()
    tokens = loss_inputs(batch, logprobs, weights, torch.as_tensor(factors))
    output = loss(tokens)
    per_token = output.per_token
    if kl is not None:
        per_token = per_token + kl.coef * kl.estimate(tokens)
    value = (tokens.weights * per_token).sum()
    (gradient,) = torch.autograd.grad(value, logprobs)
    clipped = output.metrics.get("train/clip_fraction", torch.zeros(1)).mean()
    return value.detach(), gradient, clipped


# ---- losses ----

CUT = {"epsilon_low": 0.2, "epsilon_high": 0.28}
GATE = {"sapo_temperature_pos": 0.9, "sapo_temperature_neg": 1.2}
# Ours, and TRL's name and options for it.
WHOLE_STEP: list[tuple[Loss, str, dict[str, Any]]] = [
    (PPO(aggregation="sequence"), "grpo", CUT),
    (PPO(aggregation="token"), "dapo", CUT),
    (PPO(aggregation="constant"), "dr_grpo", {**CUT, "max_completion_length": BUDGET}),
    (PPO(dual_clip=1.5), "dapo", {**CUT, "delta": 1.5}),
    (Reinforce(), "dapo", {"epsilon_low": 9e9, "epsilon_high": 9e9}),
    (CISPO(clip_max=1.5), "cispo", {"epsilon_high": 1.5}),
    (SAPO("sequence", temperature_up=0.9, temperature_down=1.2), "sapo", GATE),
]
# bnpo weighs the tokens of each micro-batch alike, not those of the step.
BY_TOKEN = [*WHOLE_STEP, (PPO(aggregation="token"), "bnpo", CUT)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kl", [None, K3(coef=0.3), K3(coef=0.3, unbiased=True)])
@pytest.mark.parametrize(("loss", "name", "options"), BY_TOKEN)
def test_by_token(
    theirs: Theirs, seed: int, kl: K3 | None, loss: Loss, name: str, options: dict[str, Any]
) -> None:
    batch = drawn(seed)
    its = {"loss_type": name, "beta": 0.3 if kl else 0.0, **options}
    if kl:
        its["use_bias_correction_kl"] = kl.unbiased
    agree(ours(batch, loss, kl=kl), theirs(batch, **its))
    batch.trained[-1] = False  # a sample without a trained token still counts as one
    agree(ours(batch, loss, kl=kl), theirs(batch, **its))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("loss", "name", "options"), WHOLE_STEP)
def test_micro_batches_add_up(
    theirs: Theirs, seed: int, loss: Loss, name: str, options: dict[str, Any]
) -> None:
    batch = drawn(seed)
    given = {"num_items_in_batch": batch.trained.sum()}
    accumulation = {"current_gradient_accumulation_steps": 2, "steps_per_generation": 2}
    halves = [
        theirs(batch.part(rows), given=given, loss_type=name, **accumulation, **options)
        for rows in (slice(0, 4), slice(4, 8))
    ]
    value = halves[0][0] + halves[1][0]
    gradient = torch.cat([halves[0][1], halves[1][1]])
    agree(ours(batch, loss), (value, gradient, None))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "aggregation", "constant"),
    [
        ("grpo", "sequence", BUDGET),
        ("dapo", "token", BUDGET),
        ("dr_grpo", "constant", BUDGET),
        ("luspo", "constant", 1),
    ],
)
def test_gspo(theirs: Theirs, seed: int, name: str, aggregation: str, constant: int) -> None:
    batch = drawn(seed)
    loss = GSPO(aggregation, clip_low=0.2, clip_high=0.28)
    level = {"importance_sampling_level": "sequence", "max_completion_length": BUDGET}
    for beta, kl in ((0.0, None), (0.3, K3(coef=0.3))):
        found = ours(batch, loss, constant, kl)
        assert 0 < found[2] < 1
        # TRL's share is of sequences, ours of tokens.
        agree(found, (*theirs(batch, loss_type=name, beta=beta, **level, **CUT)[:2], None))


@pytest.mark.parametrize("seed", SEEDS)
def test_gmpo(theirs: Theirs, seed: int) -> None:
    batch = drawn(seed)
    cut = {"epsilon_low": 0.4, "epsilon_high": 0.4}
    loss = GMPO("sequence", clip=0.4)
    agree(ours(batch, loss), theirs(batch, "GMPOTrainer", **cut))
    found = ours(batch, loss, kl=K3(coef=0.3))
    agree(found, theirs(batch, "GMPOTrainer", beta=0.3, **cut))


@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_on_replies_of_one_token(theirs: Theirs, seed: int) -> None:
    batch = drawn(seed, longest=1)
    agree(ours(batch, PPO(aggregation="sequence")), theirs(batch, "RLOOTrainer", **CUT))


# ---- corrections ----


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("mode", "correction", "bounds"),
    [
        ("token_truncate", TokenWeights(1.4), (None, 1.4)),
        ("sequence_truncate", SequenceWeights(1.4), (None, 1.4)),
        ("token_mask", TokenMask(0.6, 1.6), (0.6, 1.6)),
        ("sequence_mask", SequenceMask(0.6, 1.6), (0.6, 1.6)),
    ],
)
def test_corrections(
    theirs: Theirs, scored: Scored, seed: int, mode: str, correction: Any, bounds: Any
) -> None:
    batch = drawn(seed)
    gaps = batch.old - batch.engine
    rows = zip(gaps, batch.trained, strict=True)
    factors = torch.tensor(np.concatenate([correction(g[t].numpy()) for g, t in rows]))
    options = {
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_min": bounds[0],
        "vllm_importance_sampling_clip_max": bounds[1],
        "num_generations": ROWS,
    }
    given = scored(batch, torch.zeros(ROWS, 2), use_vllm=True, **options)
    weights = given["importance_sampling_ratio"].expand(gaps.shape)[batch.trained]
    equal(factors, weights)
    bound = (factors == 0) | torch.isclose(factors, torch.tensor(bounds[1]))
    assert bound.any() and not bound.all()
    given["advantages"] = batch.advantages
    found = theirs(batch, given=given, use_vllm=True, loss_type="dapo", **CUT)
    # A weight of 0 takes a token from our share of clipped ones, not from TRL's.
    agree(ours(batch, PPO(), factors=factors), (*found[:2], None))


# ---- credits ----


def group_of(rewards: Tensor) -> Group:
    """Two turns a trajectory, that earn these; one whose rewards are no numbers failed to run."""
    members = []
    for first, second in rewards.tolist():
        if not np.isnan(first):
            turns = [turn(2, 4, first), turn(5, 8, second)]
            members.append(trajectory(turns, 8, Outcome.FAILURE))
    return Group(tuple(members))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("credit", "trainer", "members", "scale"),
    [
        (GRPO(), "GRPOTrainer", 4, "group"),
        (GRPO(normalize=False), "GRPOTrainer", 4, "none"),
        (DrGRPO(), "GRPOTrainer", 4, "none"),
        (BatchMean(), "GRPOTrainer", ROWS, "none"),
        (RLOO(), "RLOOTrainer", 4, "none"),
    ],
)
def test_credits(
    scored: Scored, seed: int, credit: Advantage, trainer: str, members: int, scale: str
) -> None:
    source = torch.Generator().manual_seed(seed)
    # So large that what is added to their spread, 1e-4 or 1e-6, makes no difference.
    rewards = torch.randint(-(10**6), 10**6, (ROWS, 2), generator=source).double()
    rewards[1] = torch.nan
    rewards[4:] = rewards[4:] if seed else 7  # with seed 0 a group of equals
    given = scored(drawn(seed), rewards, trainer, num_generations=members, scale_rewards=scale)
    kept = ~rewards.isnan().any(1)
    groups = [group_of(rewards[first : first + members]) for first in range(0, ROWS, members)]
    mine = np.stack(credit(groups))
    assert np.abs(mine).max() > 0.1
    equal(mine, given["advantages"][kept, None].expand(mine.shape))
