"""python -m ragen_lite.train: the whole algorithm as one loop.

rollout -> credit -> batch -> learner -> engine, once a step; around it evaluation, logs and checkpoints.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch

from ragen_lite import checkpoint, engines
from ragen_lite.agents.engine import EngineFailure, StaleWeights
from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.agents.rollout import Rollout, Start, as_record, error_summary
from ragen_lite.agents.trajectory import Group, Outcome, Sampling, Trajectory
from ragen_lite.batch import Sample, correct, to_samples
from ragen_lite.cli import command
from ragen_lite.config import Config, ConfigError
from ragen_lite.display import Display
from ragen_lite.evaluate import Evaluator, baselines, check_splits, make_spec, scripted
from ragen_lite.learner import Learner, Optim
from ragen_lite.loss import FILTERS, LossInputs, LossOptions, policy_loss, token_weights
from ragen_lite.models import Policy, load_policy
from ragen_lite.report import write_report
from ragen_lite.run import Run
from ragen_lite.summary import measured, success_by_task, summarise
from ragen_lite.sync import WeightSync


def val_instances(config: Config) -> int:
    """How many instances a run is watched on; the figures that count are measured on the test split."""
    return min(128, config.eval.instances)


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


def task_seed(run_seed: int, step: int, group: int) -> int:
    """The seed of a task instance: a hash, so that steps, groups and runs share none."""
    text = f"{run_seed}/{step}/{group}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def train_starts(config: Config, step: int) -> list[Start]:
    """The trajectories of one step: ``train.groups`` instances, ``train.group_size`` members each."""
    progress = (step - 1) / config.train.steps
    return [
        Start(task_seed(config.seed, step, g), "train", g, member, progress)
        for g in range(config.train.groups)
        for member in range(config.train.group_size)
    ]


def group_by_instance(trajectories: Sequence[Trajectory]) -> list[Group]:
    """Groups of one instance each, without the trajectories whose environment failed."""
    by_group: dict[int, list[Trajectory]] = {}
    for t in trajectories:
        if t.outcome is not Outcome.ERROR:
            by_group.setdefault(t.group, []).append(t)
    return [Group(tuple(members)) for _, members in sorted(by_group.items())]


def update(learner: Learner, samples: Sequence[Sample], config: Config, step: int) -> dict[str, float]:
    """All optimiser steps of one iteration; returns the mean of their metrics (of the first one: the difference to the
    engine)."""
    if not samples:
        return {}
    algo, train = config.algo, config.train
    mismatch: dict[str, float] = {}
    if algo.correction != "off":
        samples, mismatch = correct(samples, learner.score(samples), algo.correction)
    options = LossOptions(algo.clip_low, algo.clip_high, algo.kl, algo.kl_coef, algo.entropy_coef)

    def loss(inputs: LossInputs) -> Any:
        return policy_loss(algo.loss, inputs, options)

    metrics: list[dict[str, float]] = []
    for epoch in range(train.epochs):
        order = np.random.default_rng([config.seed, step, epoch]).permutation(len(samples))
        for part in np.array_split(order, min(train.mini_batches, len(samples))):
            chosen = [samples[i] for i in part]
            lengths = [int(s.trained.sum()) for s in chosen]
            weights = token_weights(lengths, algo.aggregation, config.sample.max_tokens)
            metrics.append(learner.step(chosen, weights, loss))
    mean = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
    first = {name: metrics[0][name] for name in ("train/logprob_gap", "train/mismatch_kl")}
    return mean | first | mismatch | {"train/skipped": sum(m["train/skipped"] for m in metrics)}


def rollout_metrics(trajectories: Sequence[Trajectory], kept: float, seconds: float) -> dict[str, float]:
    """The rollout/ metrics of a step; ragen_lite/run.py says what each means."""
    summary = summarise(trajectories)
    tokens = sum(sum(t.sampled) for t in trajectories)
    return {
        "rollout/success": summary.success,
        "rollout/return": summary.reward,
        "rollout/turns": summary.turns,
        "rollout/reply_tokens": summary.reply_tokens or 0.0,
        "rollout/format_errors": summary.format_errors,
        "rollout/out_of_tokens": summary.out_of_tokens,
        "rollout/errors": summary.errors,
        "rollout/kept_groups": kept,
        "rollout/tokens_per_second": tokens / seconds,
        **success_by_task("rollout", trajectories),
    }


@dataclass(slots=True)
class Parts:
    """What a training run is made of."""

    config: Config
    run: Run
    policy: Policy
    learner: Learner
    sync: WeightSync
    rollout: Rollout
    evaluator: Evaluator
    display: Display


def build(config: Config, policy: Policy, spec: EnvSpec, run: Run, display: Display) -> Parts:
    """Learner, engine and rollout of a run; the weights of its checkpoint where it is resumed.

    Raises StaleWeights where the engine does not take them.
    """
    torch.manual_seed(config.seed)
    per_step = config.train.epochs * config.train.mini_batches
    optim = Optim(
        lr=config.train.lr,
        steps=config.train.steps * per_step,
        warmup=config.train.warmup * per_step,
        schedule=config.train.schedule,
        weight_decay=config.train.weight_decay,
        grad_clip=config.train.grad_clip,
        microbatch_tokens=config.train.microbatch_tokens,
        entropy_grad=config.algo.entropy_coef > 0,
    )
    reference = None
    if config.algo.kl != "off":
        reference = load_policy(config).model.requires_grad_(False)
    learner = Learner(policy.model, optim, config.sample.temperature, reference, policy.autocast)
    if run.checkpoint is not None:
        checkpoint.restore(run.checkpoint, learner)
    engine, sync = engines.ready(config, policy, lambda: learner.version, sleeping=True, note=display.note)
    rollout = Rollout(engine, policy.chat, spec, config.seed)
    return Parts(config, run, policy, learner, sync, rollout, Evaluator(rollout, config), display)


def nothing_kept(name: str, trajectories: Sequence[Trajectory]) -> str:
    """Why a step teaches nothing."""
    acted = [turn for t in trajectories for turn in t.turns if turn.info.get("actions")]
    hint = "" if acted else "; no reply was readable, so take a model that knows the format, or teach it by sft"
    if acted and not any("success" in turn.info for turn in acted):
        hint = "; the task's info never has a 'success', so take algo.filter=spread"
    return f"algo.filter={name} kept no group, so nothing is learnt from it{hint}"


def iterate(parts: Parts, step: int, on_progress: Callable[[int, int], None]) -> dict[str, float]:
    """One step: sample, credit, learn. Returns its metrics; writes its trajectories."""
    config, run = parts.config, parts.run
    engine = parts.rollout.engine
    engine.metrics()  # an evaluation's are not this step's
    began = time.perf_counter()
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    trajectories = parts.rollout.play(train_starts(config, step), sampling, on_progress)
    if failures := error_summary(trajectories):
        parts.display.note(f"step {step}: failed environments: {failures}")
        if all(t.outcome is Outcome.ERROR for t in trajectories):
            raise ConfigError(f"every environment of {config.env.id} failed in step {step}: {failures}")
    sampled = time.perf_counter()

    hits = engine.metrics()
    engine.sleep()
    groups = group_by_instance(trajectories)
    kept = [group for group in groups if FILTERS[config.algo.filter](group)]
    samples = [(t, sample) for g in kept for t, sample in zip(g.trajectories, to_samples(g, config.algo), strict=True)]
    if not samples:
        parts.display.note(f"step {step}: {nothing_kept(config.algo.filter, trajectories)}")
    learnt = update(parts.learner, [sample for _, sample in samples], config, step)
    parts.learner.version = step
    updated = time.perf_counter()

    credit = {id(t): sample.advantages.tolist() for t, sample in samples}
    run.write_trajectories(step, (as_record(t, credit.get(id(t))) for t in trajectories))
    parts.display.show_trajectory(step, trajectories)
    return (
        rollout_metrics(trajectories, len(kept) / max(1, len(groups)), sampled - began)
        | hits
        | learnt
        | {"time/rollout_s": sampled - began, "time/update_s": updated - sampled}
    )


def hand_over(parts: Parts, step: int) -> dict[str, float]:
    """Wake the engine and give it the weights of a step. Raises StaleWeights, EngineFailure."""
    began = time.perf_counter()
    parts.rollout.engine.wake()
    parts.sync(parts.rollout.engine, step)
    return {"train/probe_gap": parts.sync.gap, "time/sync_s": time.perf_counter() - began}


def measure(parts: Parts, split: str, instances: int) -> dict[str, Any]:
    """Success of the present policy, sampled and greedy, as eval/ metrics and as JSON."""
    played = parts.evaluator.both(split, instances)
    if failures := error_summary([t for trajectories in played.values() for t in trajectories]):
        parts.display.note(f"measuring on {split}: failed environments: {failures}")
    return measured(played)


def eval_metrics(parts: Parts, baselines: dict[str, float]) -> dict[str, float]:
    """The eval/ metrics on the val split."""
    found = measure(parts, "val", val_instances(parts.config))
    rows = found["rows"]
    sampled = rows["sampled"]
    tasks = {f"eval/success/{k}": v["sampled"]["success"] for k, v in found.get("tasks", {}).items()}
    return {
        "eval/success": sampled["success"],
        "eval/success_low": sampled["success_low"],
        "eval/success_high": sampled["success_high"],
        "eval/greedy_success": rows["greedy"]["success"],
        **tasks,
        **baselines,
    }


def val_baselines(config: Config, spec: EnvSpec) -> dict[str, float]:
    """The random policy and the solver, where there is one, on the instances a run is watched on."""
    n = val_instances(config)
    return {f"eval/{name}_success": summarise(scripted(spec, name, "val", n)).success for name in baselines(spec)}


def train(config: Config) -> None:
    """Train a policy on a task. Raises ConfigError for input that cannot work."""
    notes: list[str] = []
    engines.resolve(config, notes.append)
    spec = make_spec(config)
    check_splits(spec, "train", "val", "test")
    policy = load_policy(config)
    run = Run.open(config)
    with run.begun(), Display(config, run) as display:
        for note in (*notes, *run.notes):
            display.note(note)
        display.status("making the engine")
        parts = build(config, policy, spec, run, display)
        stop = listen()
        try:
            _loop(parts, spec, stop)
        except Interrupted:
            display.note(farewell(run))
        except (EngineFailure, StaleWeights):
            display.note(farewell(run))
            raise
        finally:
            parts.rollout.close()
            parts.rollout.engine.close()


def farewell(run: Run) -> str:
    """What a run says that was asked to stop."""
    if not any((run.folder / "checkpoints").glob("step-*")):
        return "stopped before the first step was done: there is nothing to go on from"
    return f"stopped; the last checkpoint is in {run.folder / 'checkpoints'}; go on with run.resume=auto"


def _loop(parts: Parts, spec: EnvSpec, stop: list[int]) -> None:
    config, run, display = parts.config, parts.run, parts.display
    done = saved = run.start

    def on_progress(finished: int, tokens: int) -> None:
        display.rollout(finished, tokens)
        if stop:
            raise Interrupted

    def save() -> None:
        nonlocal saved
        if done > saved:
            checkpoint.save(run.folder / "checkpoints", done, parts.learner, parts.policy.tokenizer)
            saved = done

    parts.evaluator.on_progress = on_progress
    try:
        baseline = val_baselines(config, spec)
        if run.read_json("before.json") is None:
            display.status("measuring the starting policy on the test split")
            run.write_json("before.json", measure(parts, "test", config.eval.instances))
        if run.start == 0:
            run.log({"step": 0, **eval_metrics(parts, baseline)})
        for step in range(run.start + 1, config.train.steps + 1):
            row = {"step": step, **iterate(parts, step, on_progress)}
            done = step
            try:
                row |= hand_over(parts, step)
                if config.eval.every and step % config.eval.every == 0 and step < config.train.steps:
                    row |= eval_metrics(parts, baseline)
            finally:  # a failing engine or a stop during the evaluation loses the evaluation, not the step
                run.log(row)
                display.step(row)
            if step % config.run.save_every == 0 or step == config.train.steps:
                save()
            if stop:
                raise Interrupted
        display.status("measuring the trained policy on the test split")
        run.write_json("after.json", measure(parts, "test", config.eval.instances))
    except Interrupted:
        save()
        write_report(run)
        raise
    except (EngineFailure, StaleWeights):
        try:
            save()
            write_report(run)
        except Exception as error:  # a device that is gone takes the learner's weights with it; the first error is told
            display.note(f"step {done} could not be saved: {error}")
        raise
    for name in baselines(spec):
        played = scripted(spec, name, "test", config.eval.instances)
        run.write_json(f"{name}.json", measured({name: played}))
    write_report(run)
    display.finish()


def listen() -> list[int]:
    """SIGINT and SIGTERM ask once for a clean end: their numbers appear in the list. A second one ends at once."""
    got: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        got.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return got


if __name__ == "__main__":
    command("train", "Train a language model on a text environment, over many turns, with GRPO.", train)
