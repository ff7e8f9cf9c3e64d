"""Several ranks learn as one: the gradient, the scores and the values are the single learner's."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragen_lite.algorithms.critics import Critic, NoCritic, OwnCritic, SharedCritic
from ragen_lite.algorithms.kl import K3, NoKL, Penalty
from ragen_lite.algorithms.losses import PPO
from ragen_lite.algorithms.tables import LOSSES
from ragen_lite.cluster.fsdp import FSDPRanks, block_names, shares
from ragen_lite.cluster.hosts import ProcessHost
from ragen_lite.cluster.learners import Learners, LearnersLost
from ragen_lite.config.schema import ModelConfig
from ragen_lite.envs.names import resolve
from ragen_lite.learning import checkpoint
from ragen_lite.learning.batches import Batch, Sample, collate
from ragen_lite.learning.making import LearnerSetup, make_learner
from ragen_lite.learning.optim import Optim
from ragen_lite.models import scratch
from ragen_lite.models.loading import demonstrated_in, load_policy

LENGTHS = (30, 50, 12, 44, 20, 33, 41)


def setup(
    critic: Critic | None = None,
    penalty: Penalty | None = None,
    rank: int = 0,
    dtype: str = "float64",
) -> LearnerSetup:
    optim = Optim(lr=1e-3, steps=5, microbatch_tokens=128)
    model = ModelConfig("tiny" if rank else "scratch:32x2x4", dtype=dtype, lora_rank=rank)
    return LearnerSetup(model, 0, optim, 1.0, penalty or NoKL(), critic or NoCritic())


def samples() -> list[Sample]:
    """Prompts of five tokens and replies, with advantages, values and returns out of a hat."""
    rng = np.random.default_rng(0)
    found = []
    for n in LENGTHS:
        mask = np.arange(n) >= 5
        draws = [np.where(mask, rng.normal(size=n), 0.0) for _ in range(3)]
        behaviour = np.where(mask, -1 - rng.random(n), 0.0)
        token_ids = tuple(rng.integers(5, 200, n).tolist())
        found.append(Sample(token_ids, mask, behaviour, draws[0], mask.copy(), *draws[1:]))
    return found


def test_samples_are_dealt_by_tokens() -> None:
    dealt = shares(LENGTHS, 2)
    assert sorted(i for own in dealt for i in own) == list(range(7))
    assert [sum(LENGTHS[i] for i in own) for own in dealt] == [113, 117]
    assert shares([3], 3) == [[0], [], []]


def test_blocks_are_those_that_transformers_names(model: Any) -> None:
    assert block_names(model) == {"Qwen3DecoderLayer"}


class Both:
    """A learner and what it came to, whichever kind it is."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        self.before = learner.score(samples())
        steps = [learner.step(samples(), [1 / 200] * 7, PPO(), moves=False)]
        steps += [learner.step(samples(), [1 / 200] * 7, PPO()) for _ in range(3)]
        self.metrics = [
            {name: value for name, value in row.items() if name != "train/padding"} for row in steps
        ]
        self.weights = {name: tensor.clone() for name, tensor in learner.tensors()}


def assert_alike(one: Both, other: Both, most: float) -> None:
    assert one.weights.keys() == other.weights.keys() and one.weights
    for name, weight in one.weights.items():
        assert (weight - other.weights[name]).abs().max() <= most, name
    for a, b in zip(one.metrics, other.metrics, strict=True):
        assert a.keys() == b.keys()
        assert all(abs(a[name] - b[name]) <= max(most, most * abs(a[name])) for name in a)
    for x, y in zip(one.before, other.before, strict=True):
        assert np.abs(x - y).max() <= most


def single(told: LearnerSetup) -> Any:
    return make_learner(told, load_policy(told.model, told.seed))


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(300)
def test_two_ranks_are_the_single_learner(tmp_path: Path) -> None:
    """Tied embeddings, both critics, a penalty, and one rank as well."""
    assert load_policy(setup().model, 0).model.config.tie_word_embeddings
    cases = [
        (1, setup()),
        (2, setup()),
        (2, setup(OwnCritic(), K3(coef=0.1))),
        (2, setup(SharedCritic())),
    ]
    for count, told in cases:
        host = ProcessHost()
        try:
            ranks = Learners(host, range(count), told, 1, None)
            learner = single(told)
            assert_alike(Both(learner), Both(ranks), 1e-12)
            ranks.save(tmp_path / str(count), 3, None, {"sokoban": 4.0})
        finally:
            host.close()
        assert demonstrated_in(tmp_path / str(count) / "step-3") == {"sokoban": 4.0}
        # Its checkpoint is a single learner's, and the other way round.
        again = single(told)
        checkpoint.restore(tmp_path / str(count) / "step-3", again)
        for (name, a), (_, b) in zip(learner.tensors(), again.tensors(), strict=True):
            assert (a - b).abs().max() < 1e-12, name
        last = [each.step(samples(), [1 / 200] * 7, PPO()) for each in (learner, again)]
        assert all(abs(last[0][name] - last[1][name]) < 1e-9 for name in last[0])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_lora_and_its_reference_are_the_same_in_two_ranks(tmp_path: Path) -> None:
    told = setup(penalty=K3(coef=0.1), rank=4)
    host = ProcessHost()
    try:
        ranks = Learners(host, range(2), told, 1, None)
        learner = single(told)
        one, other = Both(learner), Both(ranks)
        assert_alike(one, other, 1e-12)
        assert all(".lora_" in name for name in one.weights)
        gaps = zip(learner.reference_gap(samples()), ranks.reference_gap(samples()), strict=True)
        assert all(np.abs(a - b).max() < 1e-12 for a, b in gaps)
        ranks.save(tmp_path, 3, None)
    finally:
        host.close()
    again = single(told)
    checkpoint.restore(tmp_path / "step-3", again)
    host = ProcessHost()
    try:
        resumed = Learners(host, range(2), told, 1, tmp_path / "step-3")
        everyone = zip(learner.tensors(), again.tensors(), resumed.tensors(), strict=True)
        for (name, a), (_, b), (_, c) in everyone:
            assert (a - b).abs().max() < 1e-12 and (a - c).abs().max() < 1e-12, name
    finally:
        host.close()


class Breaking:
    """A rank that breaks alone, while the other one waits for it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def ask(self, method: str) -> None:
        if self.number:
            time.sleep(60)
        raise MemoryError("no room")


def test_a_rank_that_breaks_alone_is_told_and_the_others_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ragen_lite.cluster.learners.GRACE", 0.5)
    host = ProcessHost()
    try:
        ranks: Any = object.__new__(Learners)
        ranks.host = host
        ranks._ranks = [host.start(Breaking, number) for number in range(2)]
        with pytest.raises(MemoryError, match="no room"):
            ranks._ask("step")
        with pytest.raises(LearnersLost, match="a learner of 2 was lost"):
            ranks._ask("step")
    finally:
        host.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_go_on_from_a_single_learners_checkpoint(tmp_path: Path) -> None:
    told = setup(OwnCritic())
    policy = load_policy(told.model, told.seed)
    learner = make_learner(told, policy)
    learner.step(samples(), [1 / 200] * 7, PPO())
    path = checkpoint.save(tmp_path, 1, learner, policy.tokenizer)
    host = ProcessHost()
    try:
        ranks = Learners(host, range(2), told, 1, path)
        assert ranks.version == 1
        assert_alike(Both(learner), Both(ranks), 1e-12)
    finally:
        host.close()


def alone() -> FSDPRanks:
    """A group of one, in this process."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return FSDPRanks(0, 1, f"tcp://127.0.0.1:{port}")


def test_a_rank_of_one_has_all_micro_batches() -> None:
    ranks = alone()
    try:
        parts = ranks.share(LENGTHS, 128)
        assert sorted(i for part in parts for i in part) == list(range(7))
        assert ranks.total({"a": 1.5, "b": 2.0}) == {"a": 1.5, "b": 2.0}
        assert ranks.largest(3.25) == 3.25 and ranks.gather({4: "x"}) == {4: "x"}
        # Of three, the one with nothing to do makes as many forward passes as the others.
        ranks.count, ranks.rank = 3, 2
        assert ranks.share([100, 90], 128) == [[]]
    finally:
        torch.distributed.destroy_process_group()


def nothing() -> Batch:
    return collate(samples(), [1.0] * 7, [], 0, torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_a_micro_batch_without_tokens_adds_nothing_to_a_loss(name: str) -> None:
    """An empty one pads the ranks: no loss may make a nan of it."""
    told = setup()
    policy = load_policy(told.model, told.seed)
    learner = make_learner(told, policy)
    loss = resolve(LOSSES[name])(entropy_coef=0.1)
    tokens, _ = learner._forward(nothing(), 1.0, True)
    output = loss(tokens)
    value, metrics = learner._penalised(output, tokens, loss)
    value.backward()
    assert float(value.detach()) == 0.0 and all(len(each) == 0 for each in metrics.values())
    grads = [p.grad for p in learner.model.parameters() if p.grad is not None]
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in grads)


def test_the_embedded_shape_is_tied() -> None:
    model = scratch.make_model(scratch.load_tokenizer(), hidden=32, layers=1, heads=4)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
