"""Players in processes of their own: each has an engine, and plays shards as a local one does."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ragen_lite.agents.contexts import ContextRule
from ragen_lite.agents.engines.protocol import EngineFailure, StaleWeights
from ragen_lite.agents.engines.table import engine_class
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import PromptTooLong, Rollout
from ragen_lite.agents.trajectory import Progress, Sampling, Start, Trajectory, no_progress
from ragen_lite.cluster.hosts import PAUSE, Host, WorkerLost
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning.generation import start_engine
from ragen_lite.learning.players import copy_weights, sampled_tokens, shards
from ragen_lite.learning.protocol import Learning
from ragen_lite.learning.sync import Probe, check_probe
from ragen_lite.models.loading import load_policy

# Within Ray vLLM would look for other machines; a player's GPUs are its own.
ONE_PROCESS_EACH = {"distributed_executor_backend": "mp"}

Weights = dict[str, np.ndarray[Any, Any]]  # by the names of the model's parameters
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlayerSetup:
    """What a player in another process is made from.

    Attributes:
        model: of the policy.
        engine: with its real name.
        seed: of the run.
        temperature: replies are sampled at.
        spec: the task.
        contexts: what of a conversation each prompt holds.
        threads: of torch; how many work on a sum changes its rounding.
        tolerance: how far an engine's log-probs may be from the learner's, in nats.
    """

    model: ModelConfig
    engine: EngineConfig
    seed: int
    temperature: float
    spec: EnvSpec
    contexts: ContextRule
    threads: int
    tolerance: float


class PlayerWorker:
    """A rollout with an engine and a model of its own, in a process of its own."""

    def __init__(self, setup: PlayerSetup) -> None:
        torch.set_num_threads(setup.threads)
        self.notes: list[str] = []
        self.version = 0
        engine = setup.engine
        self.policy = load_policy(setup.model, setup.seed, engine.max_model_len)
        if not engine_class(engine.name).same_arithmetic:
            # An engine with a model of its own has the GPU; this one only hands weights on.
            self.policy.model.cpu()
            engine = replace(engine, options={**ONE_PROCESS_EACH, **engine.options})
        self.engine, self.sync = start_engine(
            engine, self.policy, setup.temperature, lambda: self.version, note=self.notes.append
        )
        self.rollout = Rollout(
            self.engine, self.policy.chat, setup.spec, setup.seed, setup.contexts
        )

    def take(self, weights: Weights, version: int) -> Probe:
        """Take new weights; returns what the engine makes of the probe with them."""
        tensors = ((name, torch.tensor(values)) for name, values in weights.items())
        copy_weights(self.policy.model, tensors)
        self.version = version
        self.sync.load(self.engine, version)
        return self.sync.probe(self.engine)

    def play(self, starts: Sequence[Start], sampling: Sampling, fits: bool) -> list[Trajectory]:
        """Play one shard; ``fits`` is whether a first prompt has fitted before."""
        self.rollout.fits = fits
        return self.rollout.play(starts, sampling)

    def metrics(self) -> tuple[dict[str, float], list[str]]:
        """The engine's figures since the last call, and what a user should know."""
        figures = self.engine.metrics()
        self.engine.reset_metrics()
        notes = self.notes.copy()
        self.notes.clear()
        return figures, notes


class Players:
    """Several players as one; see Player.

    Args:
        host: where they live.
        setup: what each is made from.
        count: how many there are.
        learner: whose weights they play with.
        shard: trajectories of a shard.
        restarts: how many of them may die in a run; each is replaced, and its shard played again.
        note: takes what a user should know.
    """

    def __init__(
        self,
        host: Host,
        setup: PlayerSetup,
        count: int,
        learner: Learning,
        shard: int | None,
        restarts: int,
        note: Note,
    ) -> None:
        self.spec = setup.spec
        self.host = host
        self.setup = setup
        self.learner = learner
        self.shard = shard
        self.restarts = restarts
        self.note = note
        self._fits = False  # whether a first prompt has fitted
        self._lost = 0
        self._closed = False
        self._weights: Any = None
        self._version = 0
        self._accepted: Probe | None = None
        self._workers = [host.start(PlayerWorker, setup, place) for place in range(count)]

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> list[Trajectory]:
        """See Player; ``on_progress`` is called a few times a second, and counts whole shards.

        Which player gets which shard depends on who is free, and changes nothing.
        """
        parts = shards(starts, self.shard)
        waiting = deque(range(len(parts)))
        played: dict[int, list[Trajectory]] = {}
        busy: dict[int, tuple[int, Any]] = {}  # by player: its shard, and the call
        while len(played) < len(parts):
            if self._closed:
                raise WorkerLost("the run ends")
            for player, worker in enumerate(self._workers):
                if waiting and player not in busy:
                    part = waiting.popleft()
                    call = self.host.call(worker, "play", parts[part], sampling, self._fits)
                    busy[player] = (part, call)
            done = self.host.wait([call for _, call in busy.values()], PAUSE)
            for player, (part, call) in list(busy.items()):
                if call not in done:
                    continue
                del busy[player]
                try:
                    played[part] = self.host.result(call)
                    self._fits |= part == 0
                except WorkerLost as lost:
                    waiting.appendleft(part)
                    self._replace(player, lost)
                except PromptTooLong:
                    # Fatal in the first shard of a run; that must not depend on who plays it.
                    if part == 0 or self._fits:
                        raise
                    waiting.append(part)
            on_progress(*_progress(played))
        return [trajectory for part in range(len(parts)) for trajectory in played[part]]

    def hand_over(self, version: int) -> float:
        """See Player: the largest difference of all; an engine that is stale is named."""
        weights = {name: tensor.detach().cpu().numpy() for name, tensor in self.learner.tensors()}
        self._weights = self.host.share(weights)
        self._version = version
        self._accepted = None
        gaps = []
        for player, probe in enumerate(self._each("take", self._weights, version)):
            # Engines that say the very same are scored once.
            if probe != self._accepted:
                who = f"engine {player} of {len(self._workers)}"
                tolerance = self.setup.tolerance
                gaps.append(check_probe(probe, self.learner.score, version, tolerance, who))
            self._accepted = probe
        return max(gaps)

    def sleep(self) -> None:
        """See Player: their memory is not the learner's."""

    def metrics(self) -> dict[str, float]:
        """See Player: the mean over the players that have a figure, of deaths the sum."""
        found: dict[str, list[float]] = {}
        for player, (figures, notes) in enumerate(self._each("metrics")):
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
            for note in notes:
                self.note(f"engine {player}: {note}")
        lost = {"rollout/lost_players": float(self._lost)} if self._lost else {}
        return {name: float(np.mean(values)) for name, values in found.items()} | lost

    def reset_metrics(self) -> None:
        """See Player: also, every player is asked, so one that died is replaced now."""
        self._each("metrics")

    def close(self) -> None:
        """See Player."""
        self._closed = True
        for worker in self._workers:
            self.host.stop(worker)

    def _each(self, method: str, *arguments: Any) -> list[Any]:
        """What a call of every player came to, in order; those that are dead are replaced."""
        calls = [self.host.call(worker, method, *arguments) for worker in self._workers]
        answers = []
        for player, call in enumerate(calls):
            while True:
                try:
                    answers.append(self.host.result(call))
                    break
                except WorkerLost as lost:
                    self._replace(player, lost)
                    call = self.host.call(self._workers[player], method, *arguments)
        return answers

    def _replace(self, player: int, lost: WorkerLost) -> None:
        """Start a player again, with the weights the others have. Raises EngineFailure."""
        who = f"engine {player} of {len(self._workers)}"
        if self._closed:
            raise lost
        if self._lost >= self.restarts:
            raise EngineFailure(
                f"{who} was lost ({lost}), and engine.restarts={self.restarts} were used up"
            )
        self._lost += 1
        self.note(f"{who} was lost ({lost}); it is started again, and its shard is played again")
        self.host.stop(self._workers[player])
        worker = self.host.start(PlayerWorker, self.setup, player)
        self._workers[player] = worker
        if self._weights is None:
            return
        try:
            probe = self.host.result(self.host.call(worker, "take", self._weights, self._version))
        except WorkerLost as again:
            self._replace(player, again)
            return
        # The learner may have moved on by now, so it is held against what was accepted from others.
        accepted = self._accepted
        if accepted is not None and probe_gap(probe, accepted) > self.setup.tolerance:
            raise StaleWeights(f"{who}, started again, does not have the weights of the others")


def _progress(played: dict[int, list[Trajectory]]) -> tuple[int, int]:
    """Trajectories finished, and tokens sampled."""
    finished = [trajectory for part in played.values() for trajectory in part]
    return len(finished), sampled_tokens(finished)


def probe_gap(first: Probe, other: Probe) -> float:
    """The largest difference of two engines' log-probs, in nats, where their replies are alike;
    infinite where most of their tokens are not."""
    gaps = [0.0]
    for a, b in zip(first.replies, other.replies, strict=True):
        for x, y, p, q in zip(a.token_ids, b.token_ids, a.logprobs, b.logprobs, strict=False):
            # By rounding two engines may draw different tokens, and go on from there.
            if x != y:
                break
            gaps.append(abs(p - q))
    alike = len(gaps) - 1
    return max(gaps) if 2 * alike >= len(first.logprobs) else math.inf
