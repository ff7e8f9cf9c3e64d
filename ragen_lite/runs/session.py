"""What ``train`` and ``sft`` are made of: a run, a learner, an engine, and how they end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragen_lite.agents.episodes import error_summary
from ragen_lite.agents.trajectory import Episode, Progress, Trajectory
from ragen_lite.learning import checkpoint_files
from ragen_lite.learning.players import Player
from ragen_lite.learning.prompt_information import prompt_information
from ragen_lite.learning.protocol import Learning
from ragen_lite.models.loading import Policy
from ragen_lite.runs.evaluation import WATCHED, Evaluator, val_baselines, val_metrics
from ragen_lite.runs.folder import Run
from ragen_lite.runs.interruption import Interrupted, StopSignal
from ragen_lite.runs.summaries import as_measurement

Note = Callable[[str], None]


@dataclass(slots=True)
class Session:
    """A run under way.

    ``write`` makes a checkpoint and ``release`` ends the processes of learners, where there are
    any. ``done`` is the last step that is finished, ``saved`` the last that is on disk;
    ``baselines`` are the eval/ metrics of the scripted policies, once they were needed; ``ahead``
    gives what was sampled for the steps after ``done``, as a checkpoint keeps it; ``evaluating``
    are the seconds of measuring that are in no metric yet.
    """

    run: Run
    policy: Policy
    learner: Learning
    player: Player
    evaluator: Evaluator
    instances: int
    note: Note
    write: Callable[[Path, int, str | None], Path]
    release: Callable[[], None]
    done: int = 0
    saved: int = 0
    baselines: dict[str, float] | None = None
    ahead: Callable[[], str | None] = lambda: None
    evaluating: float = 0.0
    _updates: int = 0

    def finish(self, step: int, ahead: Callable[[], str | None] = lambda: None) -> None:
        """A step is finished: its weights are those of the learner now; see ``ahead``."""
        self.done = step
        self.ahead = ahead
        self._updates = self.learner.updates

    @property
    def whole(self) -> bool:
        """Whether the learner's weights are those of ``done``, and not amid an update."""
        return self.learner.updates == self._updates

    def hand_over(self, step: int) -> dict[str, float]:
        """Give the player the weights of a step. Raises StaleWeights, EngineFailure."""
        began = time.perf_counter()
        gap = self.player.hand_over(step)
        return {"train/probe_gap": gap, "time/sync_s": time.perf_counter() - began}

    def save(self) -> None:
        """Write a checkpoint of the finished steps, if there are new ones."""
        if self.done > self.saved:
            self.write(self.run.folder / "checkpoints", self.done, self.ahead())
            self.saved = self.done

    def watch(self) -> dict[str, float]:
        """The eval/ metrics of the present policy, the random one and the solver."""
        # They do not change while the policy learns, so they are played once.
        if self.baselines is None:
            self.baselines = val_baselines(self.player.spec, self.instances)
        played = self._play("val", min(WATCHED, self.instances))
        sampled = [episode for episode in played["sampled"] if isinstance(episode, Trajectory)]
        information = prompt_information(sampled, self.learner.score)
        told = {} if information is None else {"eval/prompt_information": information}
        found = val_metrics(played, self.policy.demonstrated) | told | self.baselines
        seconds, self.evaluating = self.evaluating, 0.0
        return found | {"time/eval_s": seconds}

    def measure(self) -> dict[str, Any]:
        """What the present policy does on the test split, as JSON."""
        return as_measurement(self._play("test", self.instances), self.policy.demonstrated)

    def _play(self, split: str, instances: int) -> dict[str, list[Episode]]:
        """The policy's episodes, sampled and greedy; failed environments are said."""
        began = time.perf_counter()
        played = self.evaluator.both(split, instances)
        self.evaluating += time.perf_counter() - began
        failures = error_summary([e for episodes in played.values() for e in episodes])
        if failures:
            self.note(f"measuring on {split}: failed environments: {failures}")
        return played

    def listen(self, stop: StopSignal, progress: Progress) -> None:
        """Let an evaluation tell how far it is, and be stopped by a signal between two tokens."""

        def on_progress(finished: int, tokens: int) -> None:
            progress(finished, tokens)
            stop.check()

        self.evaluator.on_progress = on_progress

    @contextlib.contextmanager
    def ending(self, stop: StopSignal, report: Callable[[Run], None]) -> Iterator[None]:
        """However what happens within it ends, the finished steps are saved.

        A stop that was asked for leaves a report too, and ends the process as a signal does.
        """
        try:
            yield
        except Interrupted:
            if self.whole:
                self.save()
            report(self.run)
            self.note(self.farewell())
            stop.leave()
        except BaseException:
            # Whatever ends a run, the steps that were finished stay.
            self.rescue()
            raise
        finally:
            self.close()

    def rescue(self) -> None:
        """Save the finished steps after a failure, if that can still be done, and say so.

        A device that is gone takes the weights with it; the failure itself is what is raised.
        """
        try:
            if self.whole:
                self.save()
            elif self.done > self.saved:
                self.note(f"amid an update, so steps {self.saved + 1} to {self.done} are not saved")
        except Exception as error:
            self.note(f"step {self.done} could not be saved: {error}")
        self.note(self.farewell())

    def farewell(self) -> str:
        """What a run says that ends early."""
        folder = self.run.folder / "checkpoints"
        newest = checkpoint_files.steps(folder)
        if not newest:
            return "stopped before the first step was done: there is nothing to go on from"
        return f"stopped; the last checkpoint is {newest[0][1]}; go on with run.resume=auto"

    def close(self) -> None:
        """End the environments, the engine and the learners."""
        try:
            self.player.close()
        finally:
            self.release()
