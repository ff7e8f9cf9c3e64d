"""What ``train`` and ``sft`` are made of: a run, a learner, an engine, and how they end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import error_summary
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Episode, Trajectory
from ragen_lite.algorithms.critics import ValueCritic
from ragen_lite.algorithms.kl import NoKL, Penalty
from ragen_lite.config.schema import TrainConfig
from ragen_lite.learning import checkpoint, checkpoint_files, generation
from ragen_lite.learning.critic import ValueHead
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.prompt_information import prompt_information
from ragen_lite.learning.protocol import Reference
from ragen_lite.learning.scoring import casting
from ragen_lite.learning.sync import WeightSync
from ragen_lite.models.loading import Policy
from ragen_lite.runs.evaluation import WATCHED, Evaluator, val_baselines, val_metrics
from ragen_lite.runs.folder import Run
from ragen_lite.runs.interruption import Interrupted, StopSignal
from ragen_lite.runs.settings import Settings
from ragen_lite.runs.summaries import as_measurement

Note = Callable[[str], None]


@dataclass(slots=True)
class Session:
    """A run under way.

    ``done`` is the last step that is finished, ``saved`` the last that is on disk; ``baselines``
    are the eval/ metrics of the scripted policies, once they were needed.
    """

    run: Run
    policy: Policy
    learner: Learner
    sync: WeightSync
    rollout: Rollout
    evaluator: Evaluator
    instances: int
    note: Note
    done: int = 0
    saved: int = 0
    baselines: dict[str, float] | None = None
    _updates: int = 0

    def finish(self, step: int) -> None:
        """A step is finished: its weights are those of the learner now."""
        self.done = step
        self._updates = self.learner.updates

    @property
    def whole(self) -> bool:
        """Whether the learner's weights are those of ``done``, and not amid an update."""
        return self.learner.updates == self._updates

    def hand_over(self, step: int) -> dict[str, float]:
        """Wake the engine and give it the weights of a step. Raises StaleWeights, EngineFailure."""
        began = time.perf_counter()
        self.rollout.engine.wake()
        self.sync(self.rollout.engine, step)
        return {"train/probe_gap": self.sync.gap, "time/sync_s": time.perf_counter() - began}

    def save(self) -> None:
        """Write a checkpoint of the finished steps, if there are new ones."""
        if self.done > self.saved:
            folder = self.run.folder / "checkpoints"
            checkpoint.save(folder, self.done, self.learner, self.policy.tokenizer)
            self.saved = self.done

    def watch(self) -> dict[str, float]:
        """The eval/ metrics of the present policy, the random one and the solver."""
        # They do not change while the policy learns, so they are played once.
        if self.baselines is None:
            self.baselines = val_baselines(self.rollout.spec, self.instances)
        played = self._play("val", min(WATCHED, self.instances))
        sampled = [episode for episode in played["sampled"] if isinstance(episode, Trajectory)]
        information = prompt_information(sampled, self.learner.score)
        told = {} if information is None else {"eval/prompt_information": information}
        return val_metrics(played) | told | self.baselines

    def measure(self) -> dict[str, Any]:
        """What the present policy does on the test split, as JSON."""
        return as_measurement(self._play("test", self.instances))

    def _play(self, split: str, instances: int) -> dict[str, list[Episode]]:
        """The policy's episodes, sampled and greedy; failed environments are said."""
        played = self.evaluator.both(split, instances)
        failures = error_summary([e for episodes in played.values() for e in episodes])
        if failures:
            self.note(f"measuring on {split}: failed environments: {failures}")
        return played

    @contextlib.contextmanager
    def ending(self, stop: StopSignal, report: Callable[[Run], None]) -> Iterator[None]:
        """However what happens within it ends, the finished steps are saved.

        A stop that was asked for leaves a report too, and ends the process as a signal does.
        """
        try:
            yield
        except Interrupted:
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
        """End the environments and the engine."""
        self.rollout.close()
        self.rollout.engine.close()


def optim_of(config: TrainConfig) -> Optim:
    """How the learner steps, from the configuration of a run; schedules go by optimiser steps."""
    # Keys count iterations; an iteration makes this many optimiser steps.
    per_step = config.epochs * config.mini_batches
    return Optim(
        lr=config.lr,
        steps=config.steps * per_step,
        warmup=config.warmup * per_step,
        schedule=config.schedule,
        weight_decay=config.weight_decay,
        grad_clip=config.grad_clip,
        microbatch_tokens=config.microbatch_tokens,
    )


def open_session(
    policy: Policy,
    spec: EnvSpec,
    run: Run,
    settings: Settings,
    note: Note,
    penalty: Penalty | None = None,
    reference: Reference | None = None,
    critic: ValueCritic | None = None,
) -> Session:
    """Learner, engine and rollout of a run, with the weights of its checkpoint if it is resumed.

    Args:
        policy: to be trained.
        spec: the task.
        run: its folder.
        settings: how it samples, learns and is measured.
        note: takes what a user should know.
        penalty: the KL to ``reference``, if any.
        reference: gives the starting model, where the penalty needs it.
        critic: the options of a critic, where there is one.

    Raises:
        StaleWeights: the engine does not take the weights.
    """
    # torch's generator is used by dropout only; every other draw has a key or a generator of its
    # own.
    torch.manual_seed(settings.seed)
    optim = optim_of(settings.train)
    head = None
    if critic is not None:
        cast = casting(policy.model, policy.autocast)
        head = ValueHead(policy.model, critic, cast, optim.microbatch_tokens)
    learner = Learner(
        policy.model,
        optim,
        settings.sampling.temperature,
        penalty or NoKL(),
        reference,
        policy.autocast,
        policy.adapter,
        head,
    )
    # Before the engine is made: its first weights are already those of the checkpoint.
    if run.checkpoint is not None:
        checkpoint.restore(run.checkpoint, learner)
    engine, sync = generation.start_engine(
        settings.engine,
        policy,
        settings.sampling.temperature,
        lambda: learner.version,
        sleeping=True,
        note=note,
    )
    rollout = Rollout(engine, policy.chat, spec, settings.seed, settings.contexts)
    evaluator = Evaluator(rollout, settings.sampling)
    session = Session(run, policy, learner, sync, rollout, evaluator, settings.instances, note)
    session.finish(run.start)
    session.saved = run.start
    return session
