"""Shards: the same trajectories whoever plays them, and the same tokens however they are cut."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start, Trajectory
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning.generation import start_engine
from ragen_lite.learning.players import LocalPlayer, copy_weights, shards
from ragen_lite.models.loading import Policy, load_policy

SPEC = EnvSpec("ragen_lite/FrozenLake-v0")
STARTS = [Start(seed, "train", group=seed, member=m) for seed in range(3) for m in range(3)]
SAMPLING = Sampling(1.0, 40)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelConfig())


def player(policy: Policy, shard: int | None, **more: Any) -> LocalPlayer:
    engine, sync = start_engine(EngineConfig("torch"), policy, 1.0)
    rollout = Rollout(engine, policy.chat, SPEC, 0)
    return LocalPlayer(rollout, sync, shard, **more)


def plain(played: list[Trajectory]) -> list[dict[str, Any]]:
    return [asdict(trajectory) for trajectory in played]


def test_shards_cover_all_starts_in_order() -> None:
    assert [len(part) for part in shards(STARTS, 4)] == [4, 4, 1]
    assert [start for part in shards(STARTS, 4) for start in part] == STARTS
    assert shards(STARTS, None) == [STARTS] and shards([], None) == []


def test_a_shard_is_the_same_bytes_wherever_it_is_played(policy: Policy) -> None:
    whole = player(policy, 4).play(STARTS, SAMPLING)
    # The last shard first, with another player, whose cache is another's size.
    last = player(policy, None).play(STARTS[8:], SAMPLING)
    middle = player(policy, None).play(STARTS[4:8], SAMPLING)
    assert plain(whole[8:]) == plain(last) and plain(whole[4:8]) == plain(middle)


def test_shards_change_no_token_and_log_probs_by_rounding_only(policy: Policy) -> None:
    one = player(policy, None).play(STARTS, SAMPLING)
    cut = player(policy, 2).play(STARTS, SAMPLING)
    for a, b in zip(one, cut, strict=True):
        assert [c.token_ids for c in a.contexts] == [c.token_ids for c in b.contexts]
        for x, y in zip(a.contexts, b.contexts, strict=True):
            assert np.allclose(x.behaviour_logprobs, y.behaviour_logprobs, atol=1e-5)


def test_progress_counts_all_shards(policy: Policy) -> None:
    seen: list[tuple[int, int]] = []
    played = player(policy, 4).play(STARTS, SAMPLING, lambda n, tokens: seen.append((n, tokens)))
    sampled = sum(turn.reply_tokens for trajectory in played for turn in trajectory.turns)
    assert seen == sorted(seen) and seen[-1] == (len(STARTS), sampled)


def test_weights_of_a_learner_elsewhere_are_fetched(policy: Policy) -> None:
    other = load_policy(ModelConfig("scratch:96x4x3"), seed=3)
    asked = []

    def fetch() -> Any:
        asked.append(True)
        return other.model.named_parameters()

    own = load_policy(ModelConfig("scratch:96x4x3"), seed=4)
    remote = player(own, None, fetch=fetch)
    assert remote.hand_over(7) < 1e-5 and asked == [True]
    first = remote.play(STARTS[:2], Sampling(1.0, 8))
    assert plain(first) == plain(player(other, None).play(STARTS[:2], Sampling(1.0, 8)))
    assert remote.rollout.engine.version == 7


def test_a_name_that_no_parameter_has_is_an_error(policy: Policy) -> None:
    with pytest.raises(KeyError, match="nobody"):
        copy_weights(policy.model, [("nobody", next(policy.model.parameters()))])
