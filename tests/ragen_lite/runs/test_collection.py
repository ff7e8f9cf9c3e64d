"""Which weights sample which batch, whoever is faster; and what a checkpoint keeps of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.trajectory import (
    Context,
    Outcome,
    Progress,
    Sampling,
    Start,
    Trajectory,
    Turn,
    no_progress,
)
from ragen_lite.algorithms.curriculum import AsDrawn
from ragen_lite.algorithms.filters import KeepAll
from ragen_lite.config.stages import Stage
from ragen_lite.runs.collection import Collector, Plan, overlap
from ragen_lite.runs.instances import Instances

STAGES = [Stage(start=1, max_tokens=8, groups=2, group_size=2)]


def trajectory(start: Start, version: int) -> Trajectory:
    """One turn, which says with which weights it was sampled."""
    turn = Turn(
        start=1,
        stop=2,
        observation="é",
        reply=str(version),
        reward=0.1 + version,
        reply_tokens=1,
        actions=("Up",),
        regret=math.inf,
        info={"a": [1, None]},
    )
    context = Context((5, 7), (False, True), (0.0, -0.1 - version))
    return Trajectory(
        env_id="x",
        seed=start.seed,
        group=start.group,
        member=start.member,
        turns=(turn,),
        contexts=(context,),
        outcome=Outcome.SUCCESS,
    )


class Player:
    """Plays with the weights it was given last, as slowly as it is told."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.spec = EnvSpec("x")
        self.version = 0
        self.seconds = seconds
        self.slept = 0

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> list[Trajectory]:
        begun = self.version
        time.sleep(self.seconds)
        assert self.version == begun, "new weights amid a batch"
        return [trajectory(start, begun) for start in starts]

    def hand_over(self, version: int) -> float:
        self.version = version
        return 0.0

    def sleep(self) -> None:
        self.slept += 1

    def metrics(self) -> dict[str, float]:
        return {"rollout/prefix_hits": 0.5}

    def reset_metrics(self) -> None:
        """There is nothing to count."""

    def close(self) -> None:
        """Nothing is open."""


def collector(player: Player, staleness: int, steps: int = 6) -> Collector:
    instances = Instances(player.spec, AsDrawn(), 0, lambda text: None)
    plan = Plan(
        instances=instances,
        steps=steps,
        stages=STAGES,
        temperature=1.0,
        filter=KeepAll(),
        staleness=staleness,
    )
    return Collector(player, plan, lambda text: None, no_progress, lambda: None)


def run(made: Collector, first: int, last: int, update: float = 0.0) -> list[Any]:
    """Steps of a run: the weights that sampled, the age that is told, and all trajectories."""
    seen = []
    for step in range(first, last + 1):
        with made.batch(step) as batch:
            time.sleep(update)
            versions = {int(t.turns[0].reply) for t in batch.trajectories}
            seen.append((versions, batch.age, batch.trajectories))
        made.player.hand_over(step)
    return seen


@pytest.mark.parametrize("staleness", [0, 1, 2, 3])
@pytest.mark.parametrize(("sampling", "update"), [(0.0, 0.02), (0.02, 0.0)])
def test_the_age_of_the_weights_is_fixed_on_fast_and_slow_sides(
    staleness: int, sampling: float, update: float
) -> None:
    seen = run(collector(Player(sampling), staleness), 1, 6, update)
    wanted = [max(0, k - 1 - staleness) for k in range(1, 7)]
    assert [versions for versions, _, _ in seen] == [{version} for version in wanted]
    assert [age for _, age, _ in seen] == [k - 1 - v for k, v in enumerate(wanted, start=1)]
    # The instances are those of the step, however early they were played.
    starts = collector(Player(), 0).plan.starts(4)
    assert [t.seed for t in seen[3][2]] == [start.seed for start in starts]


def test_only_a_player_that_waits_for_the_learner_sleeps() -> None:
    apart, waiting = Player(), Player()
    run(collector(apart, 1), 1, 3)
    run(collector(waiting, 0), 1, 3)
    assert (apart.slept, waiting.slept) == (0, 3)


@pytest.mark.parametrize("staleness", [1, 2])
def test_a_run_goes_on_from_what_its_checkpoint_kept(tmp_path: Path, staleness: int) -> None:
    whole = run(collector(Player(), staleness), 1, 6)
    first = collector(Player(), staleness)
    run(first, 1, 3)
    kept = first.ahead()
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "ahead.json").write_text(kept() or "")
    player = Player()
    player.hand_over(3)
    again = collector(player, staleness)
    again.restore(tmp_path)
    assert run(again, 4, 6) == whole[3:]


def test_a_step_that_fails_leaves_what_was_sampled_ahead_as_it_was() -> None:
    made = collector(Player(), 1)
    run(made, 1, 2)
    before = made.ahead()()
    with pytest.raises(RuntimeError, match="amid the step"), made.batch(3):
        raise RuntimeError("amid the step")
    assert made.ahead()() == before
    # What is kept is as it was when it was asked for.
    kept = made.ahead()
    run(made, 3, 3)
    assert kept() == before != made.ahead()()


class Endless(Player):
    """Plays the first batches at once, and later ones until its progress is stopped."""

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> list[Trajectory]:
        while self.version:
            on_progress(0, 0)
            time.sleep(0.01)
        return super().play(starts, sampling)


def test_a_failing_step_leaves_nobody_with_the_players() -> None:
    made = collector(Endless(), 1)
    run(made, 1, 1)
    with pytest.raises(KeyError), made.batch(2):
        raise KeyError
    # The thread is free again.
    assert made._thread is not None
    assert made._thread.submit(lambda: 5).result(timeout=10) == 5


def test_a_stop_is_looked_for_between_steps_only_where_one_is_sampled_ahead() -> None:
    asked = []
    plan = collector(Player(), 1).plan

    class Watching(Player):
        def play(self, starts: Any, sampling: Any, on_progress: Any = no_progress) -> Any:
            on_progress(1, 1)
            return super().play(starts, sampling)

    made = Collector(
        Watching(), plan, lambda text: None, no_progress, lambda: asked.append(len(asked))
    )
    # The first batch is waited for; the second one is sampled while the learner works.
    with made.batch(1):
        pass
    assert asked == [0]


def test_without_staleness_a_checkpoint_keeps_nothing(tmp_path: Path) -> None:
    made = collector(Player(), 0)
    assert made.ahead()() is None
    made.restore(None)
    made.restore(tmp_path)
    assert run(made, 1, 1)[0][1] == 0


def test_what_fails_ahead_fails_the_next_step() -> None:
    class Failing(Player):
        def play(self, starts: Any, sampling: Any, on_progress: Any = no_progress) -> Any:
            if self.version:
                raise RuntimeError("the player is gone")
            return super().play(starts, sampling)

    made = collector(Failing(), 1)
    # The step during which it failed is whole, and can be saved; the next one does not begin.
    run(made, 1, 2)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the player is gone"), made.batch(3):
            pass
    assert json.loads(made.ahead()() or "") == {"batches": [], "instances": {}}


def test_no_batch_is_sampled_that_no_step_will_learn_from() -> None:
    played = []

    class Counting(Player):
        def play(self, starts: Any, sampling: Any, on_progress: Any = no_progress) -> Any:
            played.append(len(starts))
            return super().play(starts, sampling)

    run(collector(Counting(), 2, steps=3), 1, 3)
    assert played == [4, 4, 4]
    assert json.loads(collector(Player(), 2).ahead()() or "")["batches"] == []


def test_overlap_is_what_both_sides_worked_at_once() -> None:
    assert overlap(4.0, 4.0, 5.0) == {
        "time/overlap_s": 3.0,
        "time/player_idle": pytest.approx(0.2),
        "time/learner_idle": pytest.approx(0.2),
    }
    assert overlap(2.0, 3.0, 5.0)["time/overlap_s"] == 0.0
