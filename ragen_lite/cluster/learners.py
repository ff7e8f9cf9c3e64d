"""Learners in processes of their own that learn as one, each with a part of the weights."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.advantages import Values
from ragen_lite.algorithms.losses import Loss
from ragen_lite.cluster.fsdp import FSDPRanks
from ragen_lite.cluster.hosts import PAUSE, Host, WorkerLost
from ragen_lite.learning import checkpoint
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.making import LearnerSetup, make_learner
from ragen_lite.models.loading import load_policy

GRACE = 10  # seconds for the other ranks to answer where one has failed


class LearnersLost(UserError, RuntimeError):
    """The process of a learner ended; the others cannot go on without its part of the weights.

    ``folder`` is that of the run, which can go on from its newest checkpoint.
    """

    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class RankSetup:
    """What one of ``count`` ranks is made from; ``threads`` are torch's."""

    learner: LearnerSetup
    rank: int
    count: int
    threads: int


class Rank:
    """One of several learners, in a process of its own."""

    def __init__(self, setup: RankSetup) -> None:
        torch.set_num_threads(setup.threads)
        torch.manual_seed(setup.learner.seed)
        self.setup = setup

    def free_port(self) -> int:
        """A port of this machine that nobody listens on."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def join(self, address: str, path: Path | None) -> int:
        """Find the other ranks, and take this one's part of the model, or of its checkpoint, whose
        step is returned."""
        ranks = FSDPRanks(self.setup.rank, self.setup.count, address)
        told = self.setup.learner
        self.policy = load_policy(told.model, told.seed)
        self.learner = make_learner(told, self.policy, ranks)
        if path is not None:
            checkpoint.restore(path, self.learner)
        return self.learner.version

    def ask(self, method: str, *arguments: Any) -> tuple[Any, int]:
        """Call a method of the learner, and count its updates; the first rank's answer is that of
        all."""
        answer = getattr(self.learner, method)(*arguments)
        return (answer if self.learner.ranks.first else None), self.learner.updates

    def tensors(self) -> dict[str, NDArray[Any]] | None:
        """The trained weights, whole; from the first rank only."""
        found = {}
        for name, tensor in self.learner.tensors():
            if self.learner.ranks.first:
                found[name] = tensor.cpu().numpy()
        return found or None

    def save(
        self, folder: Path, step: int, ahead: str | None, demonstrated: dict[str, float]
    ) -> Path:
        """Write a checkpoint, all ranks together."""
        if demonstrated:
            self.policy.note_demonstrated(demonstrated)
        return checkpoint.save(folder, step, self.learner, self.policy.tokenizer, ahead)


class Learners:
    """Several ranks as one learner; see learning.protocol.Learning.

    Args:
        host: where they live.
        places: the host's numbers of the processors that are kept for them.
        setup: what a learner is made from.
        threads: of torch, in each.
        path: a checkpoint to go on from.
    """

    def __init__(
        self, host: Host, places: range, setup: LearnerSetup, threads: int, path: Path | None
    ) -> None:
        self.host = host
        self._critic = setup.critic.active
        count = len(places)
        self._ranks = [
            host.start(Rank, RankSetup(setup, rank, count, threads), place)
            for rank, place in enumerate(places)
        ]
        (port,) = self._together([host.call(self._ranks[0], "free_port")])
        address = f"tcp://{host.ip(self._ranks[0])}:{port}"
        self.updates = 0
        self.version: int = self._all("join", address, path)

    def begin_iteration(self, iteration: int, optimiser_steps: int) -> None:
        """See Learner."""
        self._ask("begin_iteration", None, iteration, optimiser_steps)

    def step(
        self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss, moves: bool = True
    ) -> dict[str, float]:
        """See Learner. Raises NotFinite, LearnersLost."""
        metrics: dict[str, float] = self._ask("step", samples, list(weights), loss, moves)
        return metrics

    def score(self, samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
        """See Learner."""
        scores: list[NDArray[np.float64]] = self._ask("score", samples)
        return scores

    def reference_gap(self, samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
        """See Learner."""
        gaps: list[NDArray[np.float64]] = self._ask("reference_gap", samples)
        return gaps

    def values(self, groups: Sequence[Group]) -> Values | None:
        """See Learner."""
        return self._ask("values", groups) if self._critic else None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See Learner."""
        for name, values in self._all("tensors").items():
            yield name, torch.tensor(values)

    def save(
        self,
        folder: Path,
        step: int,
        ahead: str | None,
        demonstrated: dict[str, float] | None = None,
    ) -> Path:
        """Write a checkpoint; see learning.checkpoint, and ``demonstrated`` of the policy."""
        path: Path = self._all("save", folder, step, ahead, demonstrated or {})
        return path

    def close(self) -> None:
        """End the ranks."""
        for rank in self._ranks:
            self.host.stop(rank)

    def _ask(self, method: str, large: Sequence[Any] | None = None, *arguments: Any) -> Any:
        """Call a method of every rank's learner, with what is large as the first argument."""
        shared = () if large is None else (self.host.share(list(large)),)
        answer, self.updates = self._all("ask", method, *shared, *arguments)
        return answer

    def _all(self, method: str, *arguments: Any) -> Any:
        """The first rank's answer to a call of all of them."""
        calls = [self.host.call(rank, method, *arguments) for rank in self._ranks]
        return self._together(calls)[0]

    def _together(self, calls: list[Any]) -> list[Any]:
        """What the calls came to, in order."""
        answers: dict[int, Any] = {}
        while len(answers) < len(calls):
            waiting = [call for i, call in enumerate(calls) if i not in answers]
            for done in self.host.wait(waiting, PAUSE):
                try:
                    answers[calls.index(done)] = self.host.result(done)
                except Exception as error:
                    waiting.remove(done)
                    raise self._told(error, waiting) from error
        return [answers[i] for i in range(len(calls))]

    def _told(self, error: Exception, waiting: list[Any]) -> Exception:
        """What a failed call is told as. One rank's death fails the others too, in their own words
        and maybe earlier; and those that wait for a rank that failed would wait for ever."""
        errors = [error]
        until = time.monotonic() + GRACE
        while waiting and time.monotonic() < until:
            for done in self.host.wait(waiting, PAUSE):
                waiting.remove(done)
                try:
                    self.host.result(done)
                except Exception as other:
                    errors.append(other)
        lost = [each for each in errors if isinstance(each, WorkerLost)]
        if lost or waiting:
            self.close()
        if lost:
            return LearnersLost(f"a learner of {len(self._ranks)} was lost: {lost[0]}")
        return error
