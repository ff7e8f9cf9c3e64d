"""Rollout: one loop over an engine and many environments, without a turn barrier."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engine import Engine, Request, draw_key
from ragen_lite.agents.isolation import EnvFailure, EnvSpec, Handle, ProcessHandle
from ragen_lite.agents.scripted import Policy
from ragen_lite.agents.trajectory import Completion, Outcome, Sampling, Trajectory, Turn

PROCESSES = 4 * (os.cpu_count() or 1)  # environments with a process of their own, at once


@dataclass(frozen=True, slots=True)
class Start:
    """Where a trajectory begins: the task instance (seed, split), its group, and which member of it this is.

    ``progress``, from 0 to 1, is how far training has come, for curricula; None outside of training.
    """

    seed: int
    split: str = "train"
    group: int = 0
    member: int = 0
    progress: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the environment's ``reset`` is told beside the seed."""
        told: dict[str, Any] = {"split": self.split, "member": self.member}
        return told if self.progress is None else {**told, "progress": self.progress}


class PromptTooLong(ValueError):
    """The very first prompt of a task does not fit the context."""


def outcome_of(info: dict[str, Any], terminated: bool) -> Outcome:
    """How an episode that has ended ended."""
    if info.get("success"):
        return Outcome.SUCCESS
    return Outcome.FAILURE if terminated else Outcome.OUT_OF_TURNS


@dataclass(slots=True)
class _Run:
    """A trajectory under way."""

    start: Start
    env: Handle
    observation: str = ""
    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    completion: Completion | None = None
    reply: str = ""

    def append(self, token_ids: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        self.ids += token_ids
        self.sampled += [logprobs is not None] * len(token_ids)
        self.logprobs += logprobs if logprobs is not None else [0.0] * len(token_ids)

    def finish(self, env_id: str, outcome: Outcome, error: str | None = None) -> Trajectory:
        start = self.start
        return Trajectory(
            env_id=env_id,
            seed=start.seed,
            group=start.group,
            member=start.member,
            token_ids=tuple(self.ids),
            sampled=tuple(self.sampled),
            logprobs=tuple(self.logprobs),
            turns=tuple(self.turns),
            outcome=outcome,
            error=error,
            system=self.env.system,
        )


class Rollout:
    """Plays trajectories of one task with one engine; its environments are kept from call to call.

    Args:
        engine: token ids in, sampled token ids out.
        chat: the conversation's template, of the engine's tokenizer.
        spec: the task.
        run_seed: owns, with seed, member and turn, every draw of the policy.
    """

    def __init__(self, engine: Engine, chat: Chat, spec: EnvSpec, run_seed: int) -> None:
        self.engine, self.chat, self.spec, self.run_seed = engine, chat, spec, run_seed
        self._free: list[Handle] = []
        self._fits = False  # whether any first prompt has fitted

    def play(
        self,
        starts: Sequence[Start],
        sampling: Sampling,
        on_progress: Callable[[int, int], None] = lambda finished, tokens: None,
    ) -> list[Trajectory]:
        """Play every start to its end; returns the trajectories in the order of ``starts``.

        ``on_progress(trajectories finished, tokens sampled)`` is called after each engine step; what it raises ends
        the rollout. A failing environment ends its own trajectory with ``Outcome.ERROR``.

        Raises PromptTooLong for a first prompt without room for a reply.
        """
        done: dict[int, Trajectory] = {}
        runs: dict[int, _Run] = {}
        acting: list[int] = []  # trajectories whose environment was asked and has not answered
        tokens = 0
        if not self._free:
            self._free.append(self.spec.open())
        # Environments in processes of their own: a few a core, and the next begins when one is finished.
        limit = PROCESSES if isinstance(self._free[0], ProcessHandle) else len(starts)
        try:
            while len(done) < len(starts):
                while len(runs) < len(starts) and len(runs) - len(done) < limit:
                    i, start = len(runs), starts[len(runs)]
                    runs[i] = _Run(start, self._free.pop() if self._free else self.spec.open())
                    runs[i].env.send("reset", seed=start.seed, options=start.options)
                    acting.append(i)
                answered = [i for i in acting if runs[i].env.ready()]
                if not answered and len(acting) == len(runs) - len(done):
                    time.sleep(0.001)  # nothing to generate: every trajectory waits for its environment
                ready = set(answered)
                acting = [i for i in acting if i not in ready]
                for i in answered:
                    trajectory = self._advance(i, runs[i], sampling)
                    if trajectory is not None:
                        done[i] = trajectory
                        self.engine.release(i)
                        self._free.append(runs[i].env)
                for i, completion in self.engine.step():
                    run = runs[i]
                    run.append(completion.token_ids, completion.logprobs)
                    run.completion, run.reply = completion, self.chat.text(completion.token_ids)
                    tokens += len(completion.token_ids)
                    run.env.send("step", action=run.reply)
                    acting.append(i)
                on_progress(len(done), tokens)
        finally:
            for i in runs.keys() - done.keys():  # left early
                self.engine.release(i)
                runs[i].env.close()
        return [done[i] for i in range(len(starts))]

    def _advance(self, i: int, run: _Run, sampling: Sampling) -> Trajectory | None:
        """Take an environment's answer, end its turn and submit the next; returns the trajectory where it is over."""
        try:
            observation, reward, terminated, truncated, info = run.env.take()
        except EnvFailure as failure:
            # A reply without an answer has no reward, so it makes no turn: the record ends at the last whole one.
            end = run.turns[-1].stop if run.turns else 0
            run.ids, run.sampled, run.logprobs = run.ids[:end], run.sampled[:end], run.logprobs[:end]
            return run.finish(self.spec.id, Outcome.ERROR, str(failure))
        if run.completion is None:
            new = self.chat.start(run.env.system, observation)
        else:
            stop = len(run.ids)
            reply, run.completion = run.completion, None
            begin = stop - len(reply.token_ids)
            run.turns.append(Turn(run.observation, run.reply, begin, stop, reward, info))
            if terminated or truncated:
                return run.finish(self.spec.id, outcome_of(info, terminated))
            new = self.chat.follow(reply.token_ids[-1], observation)
        if len(run.ids) + len(new) + sampling.max_tokens > self.engine.max_model_len:
            if not self._fits:
                raise PromptTooLong(
                    f"the first prompt of {self.spec.id} has {len(new)} tokens; with a reply of up to "
                    f"{sampling.max_tokens} it does not fit engine.max_model_len={self.engine.max_model_len}: raise "
                    "it, or lower sample.max_tokens"
                )
            return run.finish(self.spec.id, Outcome.OUT_OF_TOKENS)
        self._fits = True
        run.append(new)
        run.observation = observation
        key = draw_key(self.run_seed, run.start.seed, run.start.member, len(run.turns))
        self.engine.submit(Request(i, tuple(run.ids), sampling, key))
        return None

    def close(self) -> None:
        """End the environments' processes."""
        for handle in self._free:
            handle.close()
        self._free = []


def play_out(env: Handle, env_id: str, policy: Policy, start: Start, chat: Chat | None = None) -> Trajectory:
    """One episode of a scripted policy; with ``chat`` the conversation is encoded, its replies marked as sampled.

    A reply's tokens are an encoding of its text and its log-probs are 0, so this is for supervised learning and for
    statistics. With ``chat`` an episode is cut where the task says it is dead-locked: nobody should learn to go on.
    """
    run = _Run(start, env)
    try:
        env.send("reset", seed=start.seed, options=start.options)
        run.observation = env.take()[0]
        while True:
            env.send("act", policy=policy)
            observation, reward, terminated, truncated, info = env.take()
            reply = info.pop("reply")
            if chat:
                follow = run.turns and chat.follow(chat.end_id, run.observation)
                run.append(follow or chat.start(env.system, run.observation))
            begin = len(run.ids)
            if chat:
                run.append([*chat.plain(reply), chat.end_id], [0.0] * (len(chat.plain(reply)) + 1))
            run.turns.append(Turn(run.observation, reply, begin, len(run.ids), reward, info))
            run.observation = observation
            if terminated or truncated or (chat and info.get("deadlock")):
                return run.finish(env_id, outcome_of(info, terminated))
    except EnvFailure as failure:
        return run.finish(env_id, Outcome.ERROR, str(failure))


def error_summary(trajectories: Sequence[Trajectory]) -> str:
    """The distinct failures of a rollout's environments, each with one seed; empty where there are none."""
    failures: dict[str, tuple[int, int]] = {}
    for t in trajectories:
        if t.error is not None:
            count, seed = failures.get(t.error, (0, t.seed))
            failures[t.error] = (count + 1, seed)
    return "; ".join(f"{count} x {error} (seed {seed})" for error, (count, seed) in failures.items())


def plain(value: Any) -> Any:
    """The value in JSON's types: numpy's scalars as Python's, ``inf`` and ``nan`` and all else as text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def as_record(trajectory: Trajectory, advantages: Sequence[float] | None = None) -> dict[str, Any]:
    """A trajectory as plain JSON types: text, ids, mask, log-probs, rewards and seeds."""
    turns = [
        {"observation": t.observation, "reply": t.reply, "start": t.start, "stop": t.stop, "reward": t.reward}
        | {"info": plain(t.info)}
        for t in trajectory.turns
    ]
    return {
        "env_id": trajectory.env_id,
        "seed": trajectory.seed,
        "group": trajectory.group,
        "member": trajectory.member,
        "outcome": str(trajectory.outcome),
        "reward": trajectory.reward,
        "error": trajectory.error,
        "system": trajectory.system,
        "turns": turns,
        "token_ids": list(trajectory.token_ids),
        "sampled": [int(s) for s in trajectory.sampled],
        "logprobs": list(trajectory.logprobs),
        "advantages": None if advantages is None else list(advantages),
    }
