"""python -m ragen_lite.sft: supervised learning on demonstrations, loss on the replies only.

With recipe=tiny it makes the embedded model; with demos=FILE it learns from trajectories, a run's or anybody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ragen_lite import checkpoint, engines
from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engine import EngineFailure, StaleWeights
from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.agents.rollout import Start, play_out
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Outcome
from ragen_lite.batch import Sample
from ragen_lite.cli import command
from ragen_lite.config import Config, ConfigError
from ragen_lite.display import Display
from ragen_lite.envs.base import TextTask
from ragen_lite.evaluate import has_solver, make_spec
from ragen_lite.loss import LossInputs, token_weights
from ragen_lite.models import load_policy
from ragen_lite.report import write_report
from ragen_lite.run import Run, read_trajectories
from ragen_lite.train import (
    Interrupted,
    Parts,
    build,
    eval_metrics,
    farewell,
    hand_over,
    listen,
    task_seed,
    val_baselines,
)

Source = Callable[[int, int], Sample]  # (step, place in the step) -> a demonstration


def negative_log_likelihood(x: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the demonstrated replies."""
    return -(x.weights * x.logprobs).sum(), {"train/entropy": (x.share * x.entropy).sum().detach()}


def as_sample(token_ids: list[int] | tuple[int, ...], trained: list[bool] | tuple[bool, ...]) -> Sample:
    """A demonstration: no engine sampled it, so it has no log-probs and no credit."""
    nothing = np.zeros(len(token_ids))
    return Sample(token_ids, np.array(trained), nothing, nothing)


def from_policy(name: str, spec: EnvSpec, chat: Chat, seed: int) -> Source:
    """A scripted policy's demonstrations on fresh train instances, drawn apart from those of reinforcement learning."""
    env = spec.open()

    def draw(step: int, place: int) -> Sample:
        for again in range(100):
            start = Start(task_seed(-1 - seed, step, place + again * 1_000_000))
            trajectory = play_out(env, spec.id, POLICIES[name], start, chat)
            if trajectory.outcome is not Outcome.ERROR:
                return as_sample(trajectory.token_ids, trajectory.sampled)
        raise ConfigError(f"no demonstration of {spec.id} in 100 tries: {trajectory.error}")

    return draw


def from_file(path: Path, spec: EnvSpec, chat: Chat, seed: int) -> Source:
    """Trajectories of a JSONL file, drawn again and again by the seed; their texts encoded by this model's chat."""
    records = [record for record in read_trajectories(path) if record["turns"]]
    if not records:
        raise ConfigError(f"demos={path}: no trajectory in it has a turn")
    system = spec.make().system

    def encode(record: dict[str, Any]) -> Sample:
        ids: list[int] = []
        trained: list[bool] = []
        for k, turn in enumerate(record["turns"]):
            message = turn["observation"]
            before = chat.follow(chat.end_id, message) if k else chat.start(record.get("system", system), message)
            reply = [*chat.plain(turn["reply"]), chat.end_id]
            ids += before + reply
            trained += [False] * len(before) + [True] * len(reply)
        return as_sample(ids, trained)

    samples = [encode(record) for record in records]

    def draw(step: int, place: int) -> Sample:
        return samples[np.random.default_rng([seed, step, place]).integers(len(samples))]

    return draw


def make_source(config: Config, spec: EnvSpec, chat: Chat) -> Source:
    """Where the demonstrations come from. Raises ConfigError."""
    if config.demos in ("teacher", "solver"):
        task = spec.make().unwrapped
        teaches = getattr(type(task), "demonstrate", TextTask.demonstrate) is not TextTask.demonstrate
        if not has_solver(task) and not (teaches and config.demos == "teacher" and not hasattr(task, "dialogues")):
            raise ConfigError(
                f"demos={config.demos}: {spec.id} has no solve and no demonstrate, so give a JSONL file of trajectories"
            )
        return from_policy(config.demos, spec, chat, config.seed)
    if not Path(config.demos).is_file():
        raise ConfigError(
            f"demos={config.demos}: give teacher, solver, or a JSONL file of trajectories (.jsonl or .jsonl.gz)"
        )
    return from_file(Path(config.demos), spec, chat, config.seed)


def learn(parts: Parts, source: Source, step: int) -> dict[str, float]:
    """One iteration: draw demonstrations and make the optimiser steps; returns the metrics of the last."""
    train, metrics = parts.config.train, {}
    began = time.perf_counter()
    demonstrations = [source(step, i) for i in range(train.groups * train.group_size)]
    drawn = time.perf_counter()
    for part in np.array_split(np.arange(len(demonstrations)), train.mini_batches):
        samples = [demonstrations[i] for i in part]
        longest = max(len(s.token_ids) for s in samples)
        if longest > parts.policy.max_model_len:
            raise ConfigError(f"a demonstration has {longest} tokens; the model takes {parts.policy.max_model_len}")
        weights = token_weights([int(s.trained.sum()) for s in samples], "token")
        metrics = parts.learner.step(samples, weights, negative_log_likelihood)
    parts.learner.version = step
    for name in ("train/logprob_gap", "train/mismatch_kl"):  # there is no engine to differ from
        del metrics[name]
    return metrics | {"time/rollout_s": drawn - began, "time/update_s": time.perf_counter() - drawn}


def evaluated(parts: Parts, baseline: dict[str, float], step: int) -> dict[str, float]:
    """The eval/ metrics of a step; the engine sleeps before and after."""
    hand_over(parts, step)
    metrics = eval_metrics(parts, baseline)
    parts.rollout.engine.sleep()
    return metrics


def sft(config: Config) -> None:
    """Fit a policy to demonstrations. Raises ConfigError for input that cannot work."""
    notes: list[str] = []
    engines.resolve(config, notes.append)
    spec, policy = make_spec(config), load_policy(config)
    run = Run.open(config, "sft")
    with run.begun(), Display(config, run) as display:
        for note in (*notes, *run.notes):
            display.note(note)
        parts = build(config, policy, spec, run, display)
        parts.learner.temperature = 1.0  # cross-entropy; sample.temperature is for the evaluations
        source = make_source(config, spec, parts.policy.chat)
        stop = listen()
        try:
            _loop(parts, spec, source, stop)
        except Interrupted:
            display.note(farewell(run))
        except (EngineFailure, StaleWeights):
            display.note(farewell(run))
            raise
        finally:
            parts.rollout.close()
            parts.rollout.engine.close()


def _loop(parts: Parts, spec: EnvSpec, source: Source, stop: list[int]) -> None:
    config, run = parts.config, parts.run
    baseline = val_baselines(config, spec)
    parts.rollout.engine.sleep()
    for step in range(run.start + 1, config.train.steps + 1):
        row: dict[str, Any] = {"step": step, **learn(parts, source, step)}
        last = step == config.train.steps
        if stop or last or step % config.run.save_every == 0:
            checkpoint.save(run.folder / "checkpoints", step, parts.learner, parts.policy.tokenizer)
        if not stop and (last or (config.eval.every and step % config.eval.every == 0)):
            row |= evaluated(parts, baseline, step)
        run.log(row)
        parts.display.step(row)
        if stop:
            raise Interrupted
    write_report(run)
    parts.display.note(f"model: {run.folder / 'checkpoints' / f'step-{config.train.steps}'}")


if __name__ == "__main__":
    command("sft", "Fit a language model to demonstrations; loss on the replies only.", sft)
