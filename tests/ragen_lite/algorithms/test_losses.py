"""Every loss against numbers worked by hand, finite differences, and what they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ragen_lite.agents.trajectory import Group, Outcome
from ragen_lite.algorithms.corrections import SequenceMask, TokenMask
from ragen_lite.algorithms.filters import MinP, TopK, TopP
from ragen_lite.algorithms.kl import K1, K2, K3
from ragen_lite.algorithms.losses import PPO, Loss, LossInputs, Reinforce, token_weights
from ragen_lite.algorithms.options import BadOption
from ragen_lite.algorithms.ratio_losses import CISPO, DPPO, GMPO, GSPO, SAPO, sequence_means
from ragen_lite.algorithms.tables import CORRECTIONS, LOSSES
from ragen_lite.envs.names import resolve
from tests.fixtures.making import trajectory as made
from tests.fixtures.making import turn

# Two sequences: two tokens with advantage 1, three with -1.
OLD = (0.3, 0.5, 0.6, 0.5, 0.1)
NEW = (0.45, 0.45, 0.3, 0.55, 0.4)
SIGNS = (1.0, 1.0, -1.0, -1.0, -1.0)
SEQUENCES = (0, 0, 1, 1, 1)


def inputs(
    new: Sequence[float] = NEW,
    old: Sequence[float] = OLD,
    aggregation: str = "token",
    reference: float | None = None,
) -> LossInputs:
    lengths = [SEQUENCES.count(s) for s in (0, 1)]
    weights = token_weights(lengths, aggregation)
    logprobs = torch.tensor(new, dtype=torch.float64).log().requires_grad_()
    return LossInputs(
        logprobs=logprobs,
        behaviour_logprobs=torch.tensor(old, dtype=torch.float64).log(),
        reference_logprobs=None
        if reference is None
        else torch.full((5,), math.log(reference), dtype=torch.float64),
        entropy=torch.zeros(5, dtype=torch.float64),
        advantages=torch.tensor(SIGNS, dtype=torch.float64),
        weights=torch.tensor([weights[s] for s in SEQUENCES], dtype=torch.float64),
        sequences=torch.tensor(SEQUENCES),
        share=0.2,
    )


def total(loss: Loss, tokens: LossInputs) -> Tensor:
    return (tokens.weights * loss(tokens).per_token).sum()


def mean(loss: Loss, aggregation: str) -> float:
    return float(total(loss, inputs(aggregation=aggregation)).detach())


def per_token(loss: Loss) -> list[float]:
    return loss(inputs()).per_token.detach().tolist()


def test_ppo_by_hand() -> None:
    plain = PPO(clip_high=0.2)
    assert per_token(plain) == pytest.approx([-1.2, -0.9, 0.8, 1.1, 4])
    assert mean(plain, "token") == pytest.approx(0.76)
    assert mean(plain, "sequence") == pytest.approx(0.458333, abs=1e-6)
    dual = PPO(clip_high=0.2, dual_clip=3)
    assert per_token(dual)[-1] == 3
    assert mean(dual, "token") == pytest.approx(0.56)
    assert mean(dual, "sequence") == pytest.approx(0.291667, abs=1e-6)
    assert mean(PPO(dual_clip=3), "token") == pytest.approx(0.544)


@pytest.mark.parametrize(
    ("loss", "token", "sequence"),
    [
        (GSPO(clip_low=0.2, clip_high=0.2), None, 0.069348),
        (GSPO(), None, 0.150096),
        (CISPO(clip_min=0.8, clip_max=1.2), -0.208696, -0.034175),
        (CISPO(), -0.601670, -0.341690),
        (SAPO(), 0.536735, 0.081452),
        (DPPO(), -0.481273, -0.241359),
        (GMPO(), None, 0.137686),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Loss) else "",
)
def test_losses_by_hand(loss: Loss, token: float | None, sequence: float) -> None:
    assert mean(loss, "sequence") == pytest.approx(sequence, abs=1e-6)
    if token is not None:
        assert mean(loss, "token") == pytest.approx(token, abs=1e-6)


def test_tokens_by_hand() -> None:
    assert per_token(CISPO(clip_min=0.8, clip_max=1.2)) == pytest.approx(
        [0.958209, 0.718657, -0.963178, -0.657621, -1.099549], abs=1e-6
    )
    assert per_token(SAPO()) == pytest.approx(
        [-2.489837, -1.900083, 1.415938, 2.004670, 3.652986], abs=1e-6
    )
    assert sequence_means(torch.tensor([1.0, 3, 5, 5, 8]), torch.tensor(SEQUENCES)).tolist() == [
        2,
        2,
        6,
        6,
        6,
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_at_a_ratio_of_1_every_gradient_is_the_policy_gradient(name: str) -> None:
    tokens = inputs(old=NEW, aggregation="sequence")
    total(resolve(LOSSES[name])(), tokens).backward()  # type: ignore[no-untyped-call]
    expected = -tokens.advantages * tokens.weights
    assert tokens.logprobs.grad is not None
    assert torch.allclose(tokens.logprobs.grad, expected)


# What a loss holds fixed in its gradient: the clipped weight, or the sequence's ratio.
SURROGATES = {"cispo", "dppo", "gspo"}


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in SURROGATES])
def test_gradients_are_finite_differences(name: str) -> None:
    loss = resolve(LOSSES[name])()
    tokens = inputs(aggregation="sequence")
    total(loss, tokens).backward()
    assert tokens.logprobs.grad is not None
    step = 1e-6
    for i in range(5):
        sides = []
        for sign in (1, -1):
            moved = list(NEW)
            moved[i] = math.exp(math.log(NEW[i]) + sign * step)
            sides.append(float(total(loss, inputs(new=moved, aggregation="sequence")).detach()))
        slope = (sides[0] - sides[1]) / (2 * step)
        assert float(tokens.logprobs.grad[i]) == pytest.approx(slope, abs=1e-6)


def test_gradients_of_the_others_by_hand() -> None:
    def gradient(loss: Loss) -> list[float]:
        tokens = inputs()
        loss(tokens).per_token.sum().backward()  # type: ignore[no-untyped-call]
        assert tokens.logprobs.grad is not None
        return tokens.logprobs.grad.tolist()

    # Minus the clipped weight times the advantage; nothing where DPPO left a token out.
    assert gradient(CISPO(clip_min=0.8, clip_max=1.2)) == pytest.approx([-1.2, -0.9, 0.8, 1.1, 1.2])
    assert gradient(DPPO()) == pytest.approx([-1.5, -0.9, 0, 1.1, 4])
    # Minus the sequence's ratio times the advantage.
    assert gradient(GSPO(clip_low=1, clip_high=1)) == pytest.approx(
        [-1.161895] * 2 + [1.300591] * 3, abs=1e-6
    )


def test_gspo_with_one_token_a_sequence_is_ppo() -> None:
    base = inputs()
    alone = LossInputs(
        **{f: getattr(base, f) for f in base.__slots__} | {"sequences": torch.arange(5)}
    )
    ours = GSPO(clip_low=0.2, clip_high=0.28)(alone).per_token
    assert torch.allclose(ours, PPO()(alone).per_token)


def test_length_counts_as_the_aggregation_says() -> None:
    # Doubling a wrong reply's length halves its tokens' weight, or leaves it.
    assert token_weights([4, 4], "sequence")[1] == 2 * token_weights([4, 8], "sequence")[1]
    assert token_weights([4, 4], "constant", 16)[1] == token_weights([4, 8], "constant", 16)[1]


def test_an_unbiased_kl_has_the_right_gradient_for_every_estimator() -> None:
    """Softmax of three tokens, drawn from the policy itself: the sum over tokens of p times the estimate's gradient."""
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = {True: [-0.188597, -0.112169, 0.300767], False: None}
    for penalty in (K1(unbiased=True), K2(), K3(unbiased=True)):
        logits = torch.tensor([0.2, -0.3, 0.5], dtype=torch.float64, requires_grad=True)
        logprobs = torch.log_softmax(logits, 0)
        tokens = LossInputs(
            logprobs=logprobs, behaviour_logprobs=logprobs.detach(), reference_logprobs=reference.log(),
            entropy=logprobs, advantages=logprobs, weights=logprobs, sequences=torch.arange(3), share=1.0,
        )  # fmt: skip
        (logprobs.detach().exp() * penalty.estimate(tokens)).sum().backward()
        assert logits.grad is not None
        assert logits.grad.tolist() == pytest.approx(expected[True], abs=1e-6)


def test_masked_corrections() -> None:
    gaps = np.log([2.5, 1.0, 0.4])
    assert TokenMask()(gaps).tolist() == pytest.approx([2.5, 1, 0])
    assert TokenMask(lowest=0.3, highest=2)(gaps).tolist() == pytest.approx([0, 1, 0.4])
    assert SequenceMask()(gaps).tolist() == pytest.approx([1, 1, 1])
    assert SequenceMask(highest=1)(np.log([2.0, 2.0])).tolist() == [0, 0]
    assert np.isfinite(SequenceMask()(np.full(3, 1e4))).all()
    for name in CORRECTIONS:
        assert resolve(CORRECTIONS[name])()(np.zeros(3)).tolist() == [1, 1, 1]


def group(*returns: float) -> Group:
    return Group(tuple(made([turn(1, 2, r)], 2, Outcome.FAILURE) for r in returns))


def test_filters_by_the_spread_of_returns() -> None:
    # Spreads 0.5, 0.4, 0.1 and 0.
    step = [group(0, 0.1 * 2**0.5), group(0, 0.5 * 2**0.5), group(1, 1), group(0, 0.4 * 2**0.5)]
    assert TopP(share=0.9)(step) == [False, True, False, True]
    assert TopP(share=1)(step) == [True, True, False, True]
    assert TopK(share=0.25)(step) == [False, True, False, False]
    assert TopK(share=0.6)(step) == [True, True, False, True]
    assert MinP(share=0.5)(step) == [False, True, False, True]
    for passes in (TopP(), TopK(), MinP()):
        assert passes([group(1, 1), group(0, 0)]) == [False, False] and passes([]) == []


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PPO(dual_clip=0.5), "dual_clip: 0.5: it must be above 1, or 0"),
        (lambda: CISPO(clip_max=0.5), "clip_max"),
        (lambda: SAPO(temperature_up=0), "temperature_up: 0: it must be above 0"),
        (lambda: GMPO(clip=0), "clip: 0"),
        (lambda: TokenMask(lowest=2), "lowest: 2"),
        (lambda: TopP(share=2), "share: 2: it must be from 0 to 1"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(make: Any, match: str) -> None:
    with pytest.raises(BadOption, match=match):
        make()


def test_reinforce_is_minus_a_times_the_ratio() -> None:
    assert per_token(Reinforce()) == pytest.approx([-1.5, -0.9, 0.5, 1.1, 4])
