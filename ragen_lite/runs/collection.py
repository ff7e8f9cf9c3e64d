"""The batch of each step, sampled when the step begins, or while earlier ones are learnt from."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragen_lite.agents.records import restored
from ragen_lite.agents.trajectory import Progress, Sampling, Start, Trajectory, group_by_instance
from ragen_lite.algorithms.filters import Filter
from ragen_lite.config.stages import Stage, stage_at
from ragen_lite.learning.players import Player
from ragen_lite.runs import notices
from ragen_lite.runs.instances import Instances


@dataclass(frozen=True, slots=True)
class Batch:
    """What was sampled for a step.

    Attributes:
        trajectories: in the order of their starts.
        metrics: the engine's figures.
        seconds: it took.
        age: steps between the weights it was sampled with and those that learn from it.
    """

    trajectories: list[Trajectory]
    metrics: dict[str, float]
    seconds: float
    age: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which trajectories a run plays.

    Attributes:
        instances: the seeds of the groups.
        steps: of the run.
        stages: groups, group size and reply length by step.
        temperature: that replies are sampled at.
        filter: drops groups, and may ask for more.
        staleness: how many steps ahead of the learner a batch is sampled.
    """

    instances: Instances
    steps: int
    stages: Sequence[Stage]
    temperature: float
    filter: Filter
    staleness: int = 0

    def starts(self, step: int, first: int = 0) -> list[Start]:
        """The members of a step's groups, from number ``first`` on, as many as the stage has."""
        stage = stage_at(self.stages, step)
        # Curricula go by this share: 0 at the first step, just under 1 at the last.
        progress = (step - 1) / self.steps
        seeds = self.instances.seeds(step, first, stage.groups, progress)
        return [
            Start(seed, "train", group, member, progress)
            for group, seed in enumerate(seeds, first)
            for member in range(stage.group_size)
        ]


class Abandoned(Exception):
    """The step during which a later one's batch was sampled has failed."""


class Collector:
    """Has the player sample the batch of each step.

    With a staleness of S the batch of step k is sampled with the weights of step max(0, k - 1 - S),
    always: it begins when the learner begins step k - S, and step k - S ends when both are done. So
    which weights sample what does not depend on who is faster.

    Args:
        player: has the learner's weights whenever a step begins.
        plan: which trajectories.
        note: takes what a user should know.
        show: is called while playing.
        check: too, but not while a learner is at work; what it raises ends the run.
    """

    def __init__(
        self,
        player: Player,
        plan: Plan,
        note: Callable[[str], None],
        show: Progress,
        check: Callable[[], None],
    ) -> None:
        self.player = player
        self.plan = plan
        self.note = note
        self.show = show
        self.check = check
        self.seconds = 0.0  # that sampling took in the last step
        self._ahead: deque[Batch] = deque()
        self._thread = ThreadPoolExecutor(1) if plan.staleness else None
        self._abandoned = False
        self._failure: BaseException | None = None

    @contextlib.contextmanager
    def batch(self, step: int) -> Iterator[Batch]:
        """The batch of a step; one for a later step may be sampled within the context."""
        if self._failure is not None:
            raise self._failure
        if self._thread is None:
            batch = self.collect(step, step)
            # What a local engine holds is the learner's until it gets new weights.
            self.player.sleep()
            self.seconds = batch.seconds
            yield batch
            return
        while len(self._ahead) < min(self.plan.staleness, self.plan.steps - step + 1):
            self._ahead.append(self.collect(step + len(self._ahead), step))
        later = step + self.plan.staleness
        sampling: Future[Batch] | None = None
        if later <= self.plan.steps:
            sampling = self._thread.submit(self.collect, later, step)
        try:
            yield self._ahead[0]
        except BaseException:
            # The players end next, and nobody may be with them then.
            self._abandoned = True
            wait([sampling] if sampling else [])
            raise
        # Only now, so that a step that fails leaves what was sampled as it was.
        self._ahead.popleft()
        self.seconds = 0.0
        if sampling is None:
            return
        # Told when the next step begins: this one is learnt, and is not lost for it.
        self._failure = sampling.exception()
        if self._failure is None:
            self._ahead.append(sampling.result())
            self.seconds = self._ahead[-1].seconds

    def collect(self, step: int, now: int) -> Batch:
        """Sample a step's batch: train.groups instances, and more where the filter asks for them.

        ``now`` is the step under way, before which the player got its weights.
        """
        began = time.perf_counter()
        # An evaluation may have run since the last step; its figures are not this step's.
        self.player.reset_metrics()
        stage = stage_at(self.plan.stages, step)
        passes = self.plan.filter
        sampling = Sampling(self.plan.temperature, stage.max_tokens)
        played: list[Trajectory] = []

        def progress(finished: int, tokens: int) -> None:
            self.show(finished, tokens)
            if now == step:
                self.check()
            elif self._abandoned:
                raise Abandoned

        for number in range(1 + getattr(passes, "refill", 0)):
            # Which instances are next depends on how many were played, never on how they went.
            begin = self.plan.starts(step, number * stage.groups)
            played += self.player.play(begin, sampling, progress)
            if sum(passes(group_by_instance(played))) >= stage.groups:
                break
        for notice in notices.of_rollout(played):
            self.note(f"step {step}: {notice}")
        notices.refuse_failures(self.player.spec.id, step, played)
        self.plan.instances.learn(played)
        metrics = self.player.metrics()
        return Batch(played, metrics, time.perf_counter() - began, step - now)

    def ahead(self) -> Callable[[], str | None]:
        """Gives what later steps go on from, for a checkpoint: what is sampled for them by now, and
        the curriculum's values. None where there never is any."""
        values = self.plan.instances.values
        if self._thread is None and not values:
            return lambda: None
        batches = tuple(self._ahead)

        def told() -> str:
            kept: dict[str, Any] = {"batches": [asdict(batch) for batch in batches]}
            return json.dumps(kept | {"instances": values})

        return told

    def restore(self, checkpoint: Path | None) -> None:
        """Take what a checkpoint kept of ``ahead``."""
        path = None if checkpoint is None else checkpoint / "trainer" / "ahead.json"
        if path is None or not path.exists():
            return
        told = json.loads(path.read_text())
        if isinstance(told, list):  # of a version without curricula
            told = {"batches": told, "instances": {}}
        self.plan.instances.restore(told["instances"])
        for kept in told["batches"]:
            played = [restored(record) for record in kept["trajectories"]]
            self._ahead.append(Batch(**{**kept, "trajectories": played}))


def overlap(sampling: float, update: float, whole: float) -> dict[str, float]:
    """How long both sides worked at once, and the share of a step in which each did not.

    Args:
        sampling: seconds of the players' work in the step.
        update: seconds of the learner's.
        whole: seconds of the step.
    """
    return {
        "time/overlap_s": max(0.0, sampling + update - whole),
        "time/player_idle": max(0.0, 1 - sampling / whole),
        "time/learner_idle": max(0.0, 1 - update / whole),
    }
