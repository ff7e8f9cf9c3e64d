"""Several players as one: the same trajectories whoever plays, dies, or comes back stale."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest

from ragen_lite.agents.contexts import FullContext
from ragen_lite.agents.engines.protocol import EngineFailure, StaleWeights
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import PromptTooLong, Rollout
from ragen_lite.agents.trajectory import Completion, Sampling, Start, Stop, Trajectory
from ragen_lite.cluster.hosts import WorkerLost
from ragen_lite.cluster.players import Players, PlayerSetup, PlayerWorker, probe_gap
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning.generation import start_engine
from ragen_lite.learning.players import LocalPlayer
from ragen_lite.learning.scoring import scorer
from ragen_lite.learning.sync import Probe
from ragen_lite.models.loading import Policy, load_policy
from tests.fixtures.hosts import LocalHost

SETUP = PlayerSetup(
    model=ModelConfig("scratch:32x1x4"),
    engine=EngineConfig("torch"),
    seed=0,
    temperature=1.0,
    spec=EnvSpec("ragen_lite/Bandit-v0"),
    contexts=FullContext(),
    threads=1,
    tolerance=1e-4,
)
STARTS = [Start(seed, "train", group=seed, member=m) for seed in range(4) for m in range(3)]
SAMPLING = Sampling(1.0, 12)


@pytest.fixture(scope="module")
def learner() -> Policy:
    """Other weights than the players begin with."""
    return load_policy(SETUP.model, seed=5)


Make = Callable[..., Players]


@pytest.fixture
def make(learner: Policy) -> Make:
    def made(host: LocalHost, count: int, **more: Any) -> Players:
        source = SimpleNamespace(
            tensors=learner.model.named_parameters, score=scorer(learner.model, 1.0)
        )
        given: dict[str, Any] = {"shard": 5, "restarts": 3, "note": lambda text: None} | more
        setup = given.pop("setup", SETUP)
        return Players(host, setup, count, given.pop("source", source), **given)

    return made


@pytest.fixture(scope="module")
def expected(learner: Policy) -> list[dict[str, Any]]:
    """What a player of this process plays."""
    engine, sync = start_engine(SETUP.engine, learner, 1.0)
    rollout = Rollout(engine, learner.chat, SETUP.spec, SETUP.seed)
    return plain(LocalPlayer(rollout, sync, 5).play(STARTS, SAMPLING))


def plain(played: list[Trajectory]) -> list[dict[str, Any]]:
    return [asdict(trajectory) for trajectory in played]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_players_plays_what_a_local_one_does(
    make: Make, expected: list[dict[str, Any]], count: int
) -> None:
    players = make(LocalHost(), count)
    assert 0 < players.hand_over(1) < 1e-5
    seen: list[int] = []
    played = players.play(STARTS, SAMPLING, lambda finished, tokens: seen.append(finished))
    assert plain(played) == expected
    assert seen == sorted(seen) and seen[-1] == len(STARTS)


def test_whoever_dies_and_whenever_the_trajectories_are_the_same(
    make: Make, expected: list[dict[str, Any]]
) -> None:
    draw = random.Random(0)
    for _ in range(8):
        # Calls 0 and 1 hand the weights over; one of the further ones kills its worker.
        host = LocalHost(deaths=[draw.randrange(6)])
        notes: list[str] = []
        players = make(host, 2, note=notes.append)
        players.hand_over(1)
        assert plain(players.play(STARTS, SAMPLING)) == expected
        players.metrics()
        assert len(host.started) == 3 and "it is started again" in notes[0]
        assert players.metrics()["rollout/lost_players"] == 1


def test_deaths_are_counted_and_the_last_one_ends_the_run(make: Make) -> None:
    # It dies while it plays, and again while it takes the weights.
    players = make(LocalHost(deaths=[1, 2]), 1, restarts=1)
    players.hand_over(1)
    with pytest.raises(EngineFailure, match="engine 0 of 1 was lost .* engine.restarts=1 were"):
        players.play(STARTS, SAMPLING)


def test_after_the_end_nobody_is_started_again(make: Make) -> None:
    host = LocalHost()
    players = make(host, 2)
    players.hand_over(1)
    players.close()
    with pytest.raises(WorkerLost):
        players.play(STARTS, SAMPLING)
    assert host.started == [0, 1]


def test_a_stale_engine_is_named(
    make: Make, learner: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    players = make(LocalHost(), 2)
    worker: Any = players._workers[1]
    monkeypatch.setattr(worker._inner.sync, "load", lambda engine, version: None)
    with pytest.raises(StaleWeights, match="engine 1 of 2 has the weights of step 0"):
        players.hand_over(1)
    # One that says it has the weights, and has not.
    monkeypatch.setattr("ragen_lite.cluster.players.copy_weights", lambda model, tensors: None)
    players = make(LocalHost(), 2)
    with pytest.raises(StaleWeights, match="engine 0 of 2 and the learner differ by"):
        players.hand_over(1)


def test_one_that_comes_back_with_other_weights_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    players = make(LocalHost(deaths=[1]), 1)
    players.hand_over(1)
    monkeypatch.setattr("ragen_lite.cluster.players.copy_weights", lambda model, tensors: None)
    with pytest.raises(StaleWeights, match="does not have the weights of the others"):
        players.play(STARTS, SAMPLING)


def test_what_a_player_meets_is_said_by_the_run(make: Make) -> None:
    short = replace(SETUP, engine=EngineConfig("torch", max_model_len=40))
    players = make(LocalHost(), 1, setup=short)
    with pytest.raises(PromptTooLong, match="does not fit engine.max_model_len=40"):
        players.play(STARTS, SAMPLING)


def test_what_engines_note_and_measure_reaches_the_run(make: Make) -> None:
    notes: list[str] = []
    players = make(LocalHost(), 2, note=notes.append)
    for number, shell in enumerate(players._workers):
        worker: PlayerWorker = shell._inner
        worker.notes.append(f"note {number}")
        worker.engine.metrics = lambda n=number: {"rollout/prefix_hits": float(n)}  # type: ignore[method-assign,misc]
    assert players.metrics() == {"rollout/prefix_hits": 0.5}
    assert notes == ["engine 0: note 0", "engine 1: note 1"] and players.metrics()
    assert len(notes) == 2


def test_probes_are_compared_up_to_where_they_part() -> None:
    def probe(tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> Probe:
        return Probe(1, ((1,),), (Completion(tokens, logprobs, Stop.LENGTH),))

    one = probe((4, 5, 6), (-1.0, -2.0, -3.0))
    assert probe_gap(one, probe((4, 5, 6), (-1.0, -2.5, -3.0))) == 0.5
    assert probe_gap(one, probe((4, 5, 9), (-1.25, -2.0, -9.0))) == 0.25
    assert probe_gap(one, one) == 0.0
    # One that draws other tokens from the start is another model.
    assert probe_gap(one, probe((4, 9, 6), (-1.0, -9.0, -9.0))) == math.inf
