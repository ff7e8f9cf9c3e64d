"""python -m ragen_lite.sft: supervised learning on demonstrations, loss on the replies only.

With recipe=tiny it makes the embedded model; with demos=FILE it learns from trajectories, a run's
or anybody's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ragen_lite.algorithms.losses import Loss, LossInputs, LossOutput, token_weights
from ragen_lite.config.command_line import command
from ragen_lite.config.schema import Config, ConfigError, TrainConfig
from ragen_lite.learning import generation
from ragen_lite.models.loading import demonstrated_in, load_policy
from ragen_lite.opening import open_run, open_session
from ragen_lite.runs.demonstrations import (
    Demonstration,
    Source,
    drawn_ahead,
    make_source,
    note_difficulty,
)
from ragen_lite.runs.display import Display
from ragen_lite.runs.evaluation import make_spec
from ragen_lite.runs.folder import run_slug
from ragen_lite.runs.interruption import StopSignal
from ragen_lite.runs.report import write_report
from ragen_lite.runs.session import Session


@dataclass(frozen=True)
class NegativeLogLikelihood(Loss):
    """Cross-entropy of the demonstrated replies."""

    def __call__(self, tokens: LossInputs) -> LossOutput:
        """See Loss."""
        return LossOutput(-tokens.logprobs)


@dataclass(frozen=True, slots=True)
class SupervisedTrainer:
    """What a step of supervised learning needs."""

    session: Session
    source: Source
    hardest: dict[str, float]
    sizes: TrainConfig
    evaluate_every: int
    save_every: int
    display: Display
    stop: StopSignal


def sft(config: Config) -> None:
    """Fit a policy to demonstrations. Raises ConfigError for input that cannot work."""
    with open_trainer(config) as trainer:
        trainer.session.player.sleep()
        sizes = trainer.sizes
        steps = range(trainer.session.run.start + 1, sizes.steps + 1)
        drawn = drawn_ahead(trainer.source, steps, sizes.groups * sizes.group_size)
        # Closed however the run ends, so that those who draw end too.
        with contextlib.closing(drawn):
            for step in steps:
                began = time.perf_counter()
                demonstrations = next(drawn)
                waited = {"time/rollout_s": time.perf_counter() - began}
                finish_step(trainer, step, waited | learn_step(trainer, step, demonstrations))
        write_report(trainer.session.run)
        folder = trainer.session.run.folder / "checkpoints" / f"step-{sizes.steps}"
        trainer.display.note(f"model: {folder}")


@contextlib.contextmanager
def open_trainer(config: Config) -> Iterator[SupervisedTrainer]:
    """A trainer for a configuration; however it ends, it says where the last checkpoint is."""
    engine = generation.resolve(config.engine, config.model.dtype)
    config = replace(config, engine=engine.config)
    spec = make_spec(config.env)
    policy = load_policy(config.model, config.seed, config.engine.max_model_len)
    run, wandb = open_run(config, run_slug(spec.id, "sft", config.run.name))
    with run.beginning(), Display(run, config.train, wandb) as display:
        display.notes([engine.note, *run.notes])
        session = open_session(config, policy, spec, run, display.note)
        # What was shown before a run was stopped counts too.
        hardest = policy.demonstrated | (demonstrated_in(run.checkpoint) if run.checkpoint else {})
        policy.note_demonstrated(hardest)
        longest = policy.max_model_len
        source = make_source(config.demos, spec, policy.chat, config.seed, longest)
        trainer = SupervisedTrainer(
            session=session,
            source=source,
            hardest=hardest,
            sizes=config.train,
            evaluate_every=config.eval.every,
            save_every=config.run.save_every,
            display=display,
            stop=StopSignal(),
        )
        session.listen(trainer.stop, display.rollout)
        with session.ending(trainer.stop, write_report):
            yield trainer


def learn_step(
    trainer: SupervisedTrainer, step: int, demonstrations: Sequence[Demonstration]
) -> dict[str, float]:
    """Make the optimiser steps on demonstrations; returns the metrics of the last."""
    session = trainer.session
    sizes = trainer.sizes
    metrics: dict[str, float] = {}
    began = time.perf_counter()
    session.learner.begin_iteration(step, sizes.epochs * sizes.mini_batches)
    for demonstration in demonstrations:
        note_difficulty(demonstration, trainer.hardest)
    for part in np.array_split(np.arange(len(demonstrations)), sizes.mini_batches):
        samples = [demonstrations[i].sample for i in part]
        longest = max(len(sample.token_ids) for sample in samples)
        if longest > session.policy.max_model_len:
            raise ConfigError(
                f"a demonstration has {longest} tokens; the model takes "
                f"{session.policy.max_model_len}"
            )
        weights = token_weights([sample.trained for sample in samples], "token")
        metrics = session.learner.step(samples, weights, NegativeLogLikelihood())
    session.learner.version = step
    for name in ("train/logprob_gap", "train/mismatch_kl"):  # there is no engine to differ from
        del metrics[name]
    return metrics | {"time/update_s": time.perf_counter() - began}


def finish_step(trainer: SupervisedTrainer, step: int, metrics: dict[str, float]) -> None:
    """Save, watch and log; a stop during the evaluation loses that alone. Raises Interrupted."""
    session = trainer.session
    last = step == trainer.sizes.steps
    row: dict[str, Any] = {"step": step, **metrics}
    session.finish(step)
    if last or step % trainer.save_every == 0:
        session.save()
    due = trainer.evaluate_every and step % trainer.evaluate_every == 0
    try:
        if (last or due) and not trainer.stop.requested:
            session.hand_over(step)
            row |= session.watch()
            session.player.sleep()
    finally:
        session.run.log(row)
        trainer.display.step(row)
    trainer.stop.check()


if __name__ == "__main__":
    command("sft", "Fit a language model to demonstrations; loss on the replies only.", sft)
