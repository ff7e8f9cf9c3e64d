"""python -m ragen_lite.train: the whole algorithm as one loop.

rollout -> credit -> samples -> learner -> engine, once a step; around it evaluation, logs and
checkpoints.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.records import as_record
from ragen_lite.agents.trajectory import Sampling, Start, Trajectory, group_by_instance
from ragen_lite.config.command_line import command
from ragen_lite.config.groups import Algorithm, algorithm_of, name_of
from ragen_lite.config.schema import Config, ConfigError, TrainConfig
from ragen_lite.envs.splits import SPLITS, task_seed
from ragen_lite.learning import generation
from ragen_lite.learning.correction import apply_correction
from ragen_lite.learning.credit import Credited, give_credit, kept_share
from ragen_lite.learning.learner import Reference, frozen
from ragen_lite.learning.mini_batches import MiniBatches, average_metrics, optimiser_steps
from ragen_lite.learning.samples import Sample
from ragen_lite.models.loading import Policy, load_policy
from ragen_lite.models.lora import switched_off
from ragen_lite.opening import open_run, settings_of
from ragen_lite.runs import notices
from ragen_lite.runs.display import Display
from ragen_lite.runs.evaluation import baselines, check_splits, make_spec, play_scripted
from ragen_lite.runs.folder import Run, run_slug
from ragen_lite.runs.interruption import StopSignal
from ragen_lite.runs.metrics import rollout_metrics
from ragen_lite.runs.report import result_lines, write_report
from ragen_lite.runs.session import Session, open_session
from ragen_lite.runs.summaries import as_measurement, tokens_sampled


@dataclass(frozen=True, slots=True)
class Trainer:
    """What a step of training needs."""

    session: Session
    algorithm: Algorithm
    sizes: TrainConfig
    evaluate_every: int
    save_every: int
    sampling: Sampling
    seed: int
    display: Display
    stop: StopSignal

    def mini_batches(self, step: int) -> MiniBatches:
        """How a step's samples are cut into optimiser steps."""
        return MiniBatches(
            epochs=self.sizes.epochs,
            count=self.sizes.mini_batches,
            aggregation=self.algorithm.loss.aggregation,
            constant=self.sampling.max_tokens,
            seed=(self.seed, step),
        )

    def on_progress(self, finished: int, tokens: int) -> None:
        """Show how far a rollout has come, and end it where a stop was asked for."""
        self.display.rollout(finished, tokens)
        self.stop.check()


# ---- one step ----


def train_step(trainer: Trainer, step: int) -> dict[str, float]:
    """Sample, credit, learn. Returns the step's metrics; writes its trajectories."""
    session = trainer.session
    engine = session.rollout.engine
    # An evaluation may have run since the last step; its figures are not this step's.
    engine.reset_metrics()
    began = time.perf_counter()
    trajectories = session.rollout.play(
        starts(trainer, step), trainer.sampling, trainer.on_progress
    )
    for notice in notices.of_rollout(trajectories):
        session.note(f"step {step}: {notice}")
    notices.refuse_failures(session.rollout.spec.id, step, trajectories)
    sampled = time.perf_counter()

    # The figures are read before the engine sleeps: asleep, it gives its memory to the learner.
    engine_metrics = engine.metrics()
    engine.sleep()
    algorithm = trainer.algorithm
    groups = group_by_instance(trajectories)
    # Credit first, filter second: no advantage depends on what the filter drops.
    credited = give_credit(groups, algorithm.credit, algorithm.filter)
    samples = [s for c in credited if c.kept for s in c.samples(algorithm.loss.turn_mask)]
    if not samples:
        chosen = name_of("filter", algorithm.filter)
        session.note(f"step {step}: {notices.why_nothing_learnt(chosen, credited)}")
    metrics = []
    samples, mismatch = correct(trainer, samples)
    cut = trainer.mini_batches(step)
    session.learner.begin_iteration(step, cut.epochs * cut.count)
    for part, weights in optimiser_steps(samples, cut):
        metrics.append(session.learner.step(part, weights, algorithm.loss))
    # From here on the weights are those of this step, for the engine's version check.
    session.learner.version = step
    updated = time.perf_counter()

    write_trajectories(session.run, step, trajectories, credited)
    trainer.display.show_trajectory(step, trajectories)
    return {
        **rollout_metrics(trajectories),
        "rollout/kept_groups": kept_share(credited),
        "rollout/tokens_per_second": tokens_sampled(trajectories) / (sampled - began),
        **engine_metrics,
        **average_metrics(metrics),
        **mismatch,
        "time/rollout_s": sampled - began,
        "time/update_s": updated - sampled,
    }


def starts(trainer: Trainer, step: int) -> list[Start]:
    """The trajectories of one step: train.groups instances, train.group_size members each."""
    sizes = trainer.sizes
    # Curricula go by this share: 0 at the first step, just under 1 at the last.
    progress = (step - 1) / sizes.steps
    return [
        Start(task_seed(trainer.seed, step, group), "train", group, member, progress)
        for group in range(sizes.groups)
        for member in range(sizes.group_size)
    ]


def correct(trainer: Trainer, samples: list[Sample]) -> tuple[list[Sample], dict[str, float]]:
    """The samples with the correction's importance weights, and its metrics, where there is one."""
    correction = trainer.algorithm.correction
    if not samples or not correction.active:
        return samples, {}
    return apply_correction(samples, trainer.session.learner.score(samples), correction)


def write_trajectories(
    run: Run, step: int, trajectories: Sequence[Trajectory], credited: Sequence[Credited]
) -> None:
    """The step's records, with the advantages of what was learnt from."""
    advantages = {
        (c.trajectory.group, c.trajectory.member): [array.tolist() for array in c.advantages]
        for c in credited
        if c.kept
    }
    records = (as_record(t, advantages.get((t.group, t.member))) for t in trajectories)
    run.write_trajectories(step, records)


# ---- the loop ----


def train(config: Config) -> None:
    """Train a policy on a task. Raises ConfigError for input that cannot work."""
    with open_trainer(config) as trainer:
        measure_start(trainer)
        for step in range(trainer.session.run.start + 1, trainer.sizes.steps + 1):
            row = train_step(trainer, step)
            finish_step(trainer, step, row)
        conclude(trainer)


@contextlib.contextmanager
def open_trainer(config: Config) -> Iterator[Trainer]:
    """A trainer for a configuration; however it ends, the finished steps are saved."""
    engine = generation.resolve(config.engine, config.model.dtype)
    generation.check_correction(config.correction.name, engine)
    config = replace(config, engine=engine.config)
    algorithm = algorithm_of(config)
    spec = make_spec(config.env)
    check_splits(spec, *SPLITS)
    check_solver(spec, algorithm)
    policy = load_policy(config.model, config.seed, config.engine.max_model_len)
    run, wandb = open_run(config, run_slug(spec.id, "train", config.run.name))
    with run.beginning(), Display(run, config.train, wandb) as display:
        display.notes([engine.note, *run.notes])
        display.status("making the engine")
        session = open_session(
            policy,
            spec,
            run,
            settings_of(config),
            display.note,
            algorithm.kl,
            reference_of(config, algorithm, policy),
        )
        trainer = Trainer(
            session=session,
            algorithm=algorithm,
            sizes=config.train,
            evaluate_every=config.eval.every,
            save_every=config.run.save_every,
            sampling=session.evaluator.sampling,
            seed=config.seed,
            display=display,
            stop=StopSignal(),
        )
        # An evaluation can be stopped by a signal too, between two tokens.
        session.evaluator.on_progress = trainer.on_progress
        with session.ending(trainer.stop, write_report):
            yield trainer


def check_solver(spec: EnvSpec, algorithm: Algorithm) -> None:
    """Raise ConfigError for a credit that reads the solver where the task has none."""
    needed = getattr(algorithm.credit, "needs_solver", False)
    if needed and "solver" not in baselines(spec):
        chosen = name_of("credit", algorithm.credit)
        raise ConfigError(f"credit={chosen} is judged by the solver, which {spec.id} does not have")


def reference_of(config: Config, algorithm: Algorithm, policy: Policy) -> Reference | None:
    """The starting model, where the KL penalty needs it: with new LoRA, the model without it."""
    if not algorithm.kl.needs_reference:
        return None
    if policy.adapter is not None and policy.fresh:
        return partial(switched_off, policy.adapter)
    return frozen(load_policy(config.model, config.seed).model)


def measure_start(trainer: Trainer) -> None:
    """Measure the starting policy, on the test split and on the instances that are watched."""
    session = trainer.session
    run = session.run
    # A resumed run has this measurement already, of the policy it really started from.
    if run.read_json("before.json") is None:
        trainer.display.status("measuring the starting policy on the test split")
        run.write_json("before.json", session.measure())
    if run.start == 0:
        run.log({"step": 0, **session.watch()})


def finish_step(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
    """Hand the weights over, watch, log and save.

    A failing engine, or a stop during the evaluation, loses the evaluation, not the step.
    """
    session = trainer.session
    last = step == trainer.sizes.steps
    session.finish(step)
    row: dict[str, Any] = {"step": step, **metrics}
    try:
        row |= session.hand_over(step)
        if trainer.evaluate_every and step % trainer.evaluate_every == 0 and not last:
            row |= session.watch()
    finally:
        session.run.log(row)
        trainer.display.step(row)
    if last or step % trainer.save_every == 0:
        session.save()
    trainer.stop.check()


def conclude(trainer: Trainer) -> None:
    """Measure the trained policy, the random one and the solver, and write the report."""
    session = trainer.session
    trainer.display.status("measuring the trained policy on the test split")
    session.run.write_json("after.json", session.measure())
    for name in baselines(session.rollout.spec):
        played = play_scripted(session.rollout.spec, name, "test", session.instances)
        session.run.write_json(f"{name}.json", as_measurement({name: played}))
    write_report(session.run)
    trainer.display.finish(result_lines(session.run))


if __name__ == "__main__":
    command("train", "Train a language model on a text environment, over many turns.", train)
