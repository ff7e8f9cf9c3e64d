"""python -m ragen_lite.train: the whole algorithm as one loop.

rollout -> credit -> samples -> learner -> engine, once a step; around it evaluation, logs and
checkpoints.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ragen_lite.agents.trajectory import Trajectory, group_by_instance
from ragen_lite.cluster.learners import LearnersLost
from ragen_lite.config.command_line import command
from ragen_lite.config.groups import Algorithm, algorithm_of, name_of
from ragen_lite.config.schema import Config, TrainConfig
from ragen_lite.config.stages import Stage, stage_at, stages_of
from ragen_lite.envs.splits import SPLITS
from ragen_lite.learning import generation
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.checkpoint_files import last_good
from ragen_lite.learning.correction import correct_all
from ragen_lite.learning.credit import (
    Credited,
    credit_metrics,
    give_credit,
    passing,
    records_of,
)
from ragen_lite.learning.mini_batches import MiniBatches, average_metrics, optimiser_steps
from ragen_lite.learning.shaping import kl_costs, shaped
from ragen_lite.learning.spread_gradient import gradient_by_spread
from ragen_lite.models.loading import load_policy
from ragen_lite.opening import check_solver, going_on, open_run, open_session
from ragen_lite.runs import collapse, notices
from ragen_lite.runs.collection import Collector, Plan, overlap
from ragen_lite.runs.control import keep_control
from ragen_lite.runs.display import Display
from ragen_lite.runs.ending import why_enough
from ragen_lite.runs.evaluation import baselines, check_splits, make_spec, play_scripted
from ragen_lite.runs.folder import run_slug
from ragen_lite.runs.instances import Instances
from ragen_lite.runs.interruption import StopSignal
from ragen_lite.runs.metrics import rollout_metrics
from ragen_lite.runs.report import result_lines, write_report
from ragen_lite.runs.session import Session
from ragen_lite.runs.summaries import as_measurement


@dataclass(frozen=True, slots=True)
class Trainer:
    """What a step of training needs."""

    session: Session
    algorithm: Algorithm
    stages: list[Stage]
    sizes: TrainConfig
    evaluate_every: int
    patience: int
    save_every: int
    collector: Collector
    seed: int
    display: Display
    stop: StopSignal

    def mini_batches(self, step: int) -> MiniBatches:
        """How a step's samples are cut into optimiser steps."""
        return MiniBatches(
            epochs=self.sizes.epochs,
            count=self.sizes.mini_batches,
            aggregation=self.algorithm.loss.aggregation,
            constant=stage_at(self.stages, step).max_tokens,
            seed=(self.seed, step),
        )

    def watches(self, step: int) -> bool:
        """Whether the val split is evaluated after a step."""
        return self.evaluate_every > 0 and step % self.evaluate_every == 0


# ---- one step ----


def train_step(trainer: Trainer, step: int) -> dict[str, float]:
    """Sample, credit, learn. Returns the step's metrics; writes its trajectories."""
    session = trainer.session
    began = time.perf_counter()
    with trainer.collector.batch(step) as batch:
        learning = time.perf_counter()
        session.learner.begin_iteration(step, trainer.sizes.epochs * trainer.sizes.mini_batches)
        credited = credit(trainer, step, batch.trajectories)
        metrics: list[dict[str, float]] = []
        by_trajectory, told = to_learn(trainer, step, credited)
        for part, weights in optimiser_steps(by_trajectory, trainer.mini_batches(step)):
            metrics.append(session.learner.step(part, weights, trainer.algorithm.loss))
        if trainer.watches(step):
            algorithm = trainer.algorithm
            told |= gradient_by_spread(
                session.learner, credited, algorithm.loss, algorithm.overlong
            )
        updated = time.perf_counter()
    session.learner.version = step  # for the engine's check
    ended = time.perf_counter()

    session.run.write_trajectories(step, records_of(batch.trajectories, credited))
    trainer.display.show_trajectory(step, batch.trajectories)
    rollout = rollout_metrics(batch.trajectories, session.policy.demonstrated)
    return {
        **rollout,
        "rollout/tokens_per_second": rollout["rollout/tokens"] / batch.seconds,
        "rollout/age": batch.age,
        **batch.metrics,
        **average_metrics(metrics),
        **told,
        **credit_metrics(credited),
        "time/rollout_s": batch.seconds,
        "time/update_s": updated - learning,
        **overlap(trainer.collector.seconds, updated - learning, ended - began),
    }


def credit(trainer: Trainer, step: int, trajectories: Sequence[Trajectory]) -> list[Credited]:
    """Every trajectory with its advantages, and whether it is learnt from."""
    algorithm = trainer.algorithm
    learner = trainer.session.learner
    stage = stage_at(trainer.stages, step)
    groups = group_by_instance(trajectories)
    costs = kl_costs(groups, learner, algorithm.kl.coef_in_reward(step))
    values = learner.values(groups)
    # The filter goes by what the environment gave. What it drops changes no advantage.
    wanted = stage.groups if getattr(algorithm.filter, "refill", 0) else None
    passed = passing(groups, algorithm.filter, wanted)
    counted = shaped(groups, algorithm.overlong, stage.max_tokens, costs)
    return give_credit(counted, algorithm.credit, passed, values)


def to_learn(
    trainer: Trainer, step: int, credited: Sequence[Credited]
) -> tuple[list[list[Sample]], dict[str, float]]:
    """The samples of each trajectory that is learnt from, and the metrics of their correction."""
    algorithm = trainer.algorithm
    kept = [c.samples(algorithm.loss.turn_mask, algorithm.overlong) for c in credited if c.kept]
    by_trajectory = [samples for samples in kept if samples]
    if not by_trajectory:
        chosen = name_of("filter", algorithm.filter)
        why = notices.why_nothing_learnt(chosen, credited)
        trainer.session.note(f"step {step}: {why}")
    if not by_trajectory or not algorithm.correction.active:
        return by_trajectory, {}
    return correct_all(by_trajectory, trainer.session.learner.score, algorithm.correction)


# ---- the loop ----


def train_on(config: Config) -> None:
    """``train``; where a learner is lost, on from the newest checkpoint, train.restarts times."""
    for left in reversed(range(config.train.restarts + 1)):
        try:
            train(config)
            return
        except LearnersLost as lost:
            if not left or lost.folder is None:
                raise
            print(f"{lost}; the learners are started again, {left - 1} restarts are left")
            whole, _ = last_good(lost.folder / "checkpoints")
            # Before the first checkpoint the same run begins anew.
            config.run.resume = str(lost.folder) if whole else "no"


def train(config: Config) -> None:
    """Train a policy on a task. Raises ConfigError for input that cannot work."""
    with open_trainer(config) as trainer:
        measure_start(trainer)
        for step in range(trainer.session.run.start + 1, trainer.sizes.steps + 1):
            reason = why_enough(
                trainer.session.run.metrics(), trainer.sizes.tokens, trainer.patience
            )
            if reason:
                trainer.session.note(f"training ends before step {step}: {reason}")
                break
            row = train_step(trainer, step)
            finish_step(trainer, step, row)
        trainer.session.save()
        conclude(trainer)


@contextlib.contextmanager
def open_trainer(config: Config) -> Iterator[Trainer]:
    """A trainer for a configuration; however it ends, the finished steps are saved."""
    engine = generation.resolve(config.engine, config.model.dtype)
    generation.check_correction(config.correction.name, engine, config.train.staleness)
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
        stop = StopSignal()
        with going_on(run, stop):
            session = open_session(config, policy, spec, run, display.note, algorithm)
        trainer = Trainer(
            session=session,
            algorithm=algorithm,
            stages=stages_of(config),
            sizes=config.train,
            evaluate_every=config.eval.every,
            patience=config.eval.patience,
            save_every=config.run.save_every,
            collector=make_collector(config, algorithm, session, display, stop),
            seed=config.seed,
            display=display,
            stop=stop,
        )
        session.listen(stop, display.rollout)
        with session.ending(stop, write_report), going_on(run, stop):
            yield trainer


def make_collector(
    config: Config, algorithm: Algorithm, session: Session, display: Display, stop: StopSignal
) -> Collector:
    """What samples the batch of each step, with those that its checkpoint kept."""
    plan = Plan(
        instances=Instances(session.player.spec, algorithm.instances, config.seed, display.note),
        steps=config.train.steps,
        stages=stages_of(config),
        temperature=config.sample.temperature,
        filter=algorithm.filter,
        staleness=config.train.staleness,
    )
    collector = Collector(session.player, plan, display.note, display.rollout, stop.check)
    collector.restore(session.run.checkpoint)
    return collector


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
    session.finish(step, trainer.collector.ahead())
    row: dict[str, Any] = {"step": step, **metrics}
    try:
        row |= session.hand_over(step)
        if trainer.watches(step) and not last:
            row |= session.watch()
    finally:
        session.run.log(row)
        trainer.display.step(row)
        trainer.display.notes(collapse.warnings(session.run.metrics()))
    if last or step % trainer.save_every == 0:
        session.save()
    trainer.stop.check()


def conclude(trainer: Trainer) -> None:
    """Measure the trained policy, the random one and the solver, and write the report."""
    session = trainer.session
    trainer.display.status("measuring the trained policy on the test split")
    after = session.measure()
    session.run.write_json("after.json", after)
    keep_control(session.run, session.policy.source, session.evaluator, after)
    for name in baselines(session.player.spec):
        played = play_scripted(session.player.spec, name, "test", session.instances)
        told = as_measurement({name: played}, session.policy.demonstrated)
        session.run.write_json(f"{name}.json", told)
    write_report(session.run)
    trainer.display.finish(result_lines(session.run, session.evaluating))


if __name__ == "__main__":
    command("train", "Train a language model on a text environment, over many turns.", train_on)
