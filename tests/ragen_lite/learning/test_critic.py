"""The critic learns, waits, spares or moves the policy, and goes on from a checkpoint to the byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ragen_lite.agents.trajectory import Group, Outcome
from ragen_lite.algorithms.critics import OwnCritic, SharedCritic, ValueCritic
from ragen_lite.algorithms.losses import PPO
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.critic import ValueHead
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.scoring import casting
from tests.fixtures.commands import run
from tests.fixtures.making import trajectory, turn
from tests.fixtures.runs import SMALL, contents, folder

CRITICS = (OwnCritic(lr_ratio=100), SharedCritic(lr_ratio=100))


def learner(critic: ValueCritic, microbatch_tokens: int = 64) -> Learner:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).double()
    optim = Optim(lr=1e-4, steps=100, microbatch_tokens=microbatch_tokens)
    head = ValueHead(model, critic, casting(model, False), microbatch_tokens)
    return Learner(model, optim, critic=head)


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for length in (6, 9, 7):
        mask = np.arange(length) >= 3
        found.append(
            Sample(
                token_ids=rng.integers(1, 40, length).tolist(),
                loss_mask=mask,
                behaviour_logprobs=-3.7 * mask,
                advantages=rng.normal(size=length) * mask,
                sampled=mask,
                values=np.zeros(length),
                returns=2.0 * mask,
            )
        )
    return found


def steps(of: Learner, count: int, first: int = 1) -> list[dict[str, float]]:
    found = []
    for i in range(first, first + count):
        of.begin_iteration(i, 1)
        found.append(of.step(samples(), [0.05] * 3, PPO()))
    return found


def trunk(of: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in of.model.parameters()])


@pytest.mark.parametrize("critic", CRITICS, ids=["own", "shared"])
def test_it_learns_what_it_should_have_said(critic: ValueCritic) -> None:
    of = learner(critic)
    assert isinstance(of.critic, ValueHead)
    group = Group((trajectory([turn(2, 4, 0.0)], 5, Outcome.FAILURE),))
    # Of a head of zeros.
    assert [values.tolist() for values in of.critic.score([group])] == [[0.0] * 5]
    losses = [row["train/value_loss"] for row in steps(of, 60)]
    assert losses[0] == pytest.approx(2.0) and losses[-1] < 0.5
    (values,) = of.critic.score([group])
    assert (values != 0).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("critic", CRITICS, ids=["own", "shared"])
def test_the_gradient_does_not_depend_on_the_micro_batches(critic: ValueCritic) -> None:
    heads = []
    for tokens in (64, 9):
        of = learner(critic, tokens)
        assert isinstance(of.critic, ValueHead)
        steps(of, 3)
        heads.append(torch.cat([p.detach().flatten() for p in of.critic.named.values()]))
    assert torch.allclose(*heads, atol=1e-9)


def test_only_a_shared_trunk_moves_the_policy() -> None:
    alone = learner(OwnCritic())
    alone.critic = None
    moved = []
    for of in (alone, learner(OwnCritic()), learner(SharedCritic())):
        steps(of, 2)  # in the first the head is zero, and moves nothing below it
        moved.append(trunk(of))
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], moved[2])


@pytest.mark.parametrize(
    "critic", [OwnCritic(warmup=2), SharedCritic(warmup=2)], ids=["own", "shared"]
)
def test_in_the_warm_up_the_critic_learns_alone(critic: ValueCritic) -> None:
    of = learner(critic)
    assert isinstance(of.critic, ValueHead)
    before = trunk(of)
    steps(of, 2)
    assert torch.equal(trunk(of), before) and of.critic.head.bias.item() != 0
    steps(of, 1, first=3)
    assert not torch.equal(trunk(of), before)


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("critic", ["own", "shared"])
def test_going_on_from_a_checkpoint_equals_never_stopping(critic: str, tmp_path: Path) -> None:
    line = [*SMALL, "algo=ppo", f"critic={critic}", "critic.warmup=1", "train.steps=3"]
    line += ["env=bandit", "model.path=scratch:32x1x4", "eval.instances=1"]
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        result = run("train", *line, "eval.every=0", cwd=tmp_path / name)
        assert result.returncode == 0, result.stderr
    whole, cut = folder(tmp_path / "whole"), folder(tmp_path / "cut")
    for step in (2, 3):
        shutil.rmtree(cut / "checkpoints" / f"step-{step}")
    result = run("train", *line, "eval.every=0", "run.resume=auto", cwd=tmp_path / "cut")
    assert result.returncode == 0 and "after step 1" in result.words
    again = contents(cut, 3)
    assert again == contents(whole, 3)
    assert "trainer/critic.safetensors" in again["weights"]


def test_a_credit_and_its_critic_belong_together(tmp_path: Path) -> None:
    for words, why in (
        (("credit=gae",), "credit=gae reads a critic's values: take critic=own"),
        (("algo=ppo", "loss.turn_mask=false"), "a critic values the policy's own tokens"),
        (("critic=shared",), "critic=shared does nothing with credit=gigpo"),
        (("algo=ppo", "train.group_size=1", "filter=spread"), "a group of one has no baseline"),
    ):
        result = run("train", *words, cwd=tmp_path)
        assert result.returncode == 2 and why in result.stderr
