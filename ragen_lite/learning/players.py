"""Who plays: a rollout with an engine of this process, and what any other player must be.

The starts of a call are cut into shards, which are played one by one. Their size is part of a run's
configuration, never of how many play: which rows share a forward pass decides the last bits of its
log-probs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Progress, Sampling, Start, Trajectory, no_progress
from ragen_lite.learning.ranks import copy_into
from ragen_lite.learning.sync import WeightSync

Tensors = Iterable[tuple[str, Tensor]]


class Player(Protocol):
    """Plays a task with the weights that the learner handed over last."""

    spec: EnvSpec

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> list[Trajectory]:
        """Play every start to its end; the trajectories are in the order of ``starts``."""

    def hand_over(self, version: int) -> float:
        """Take the learner's present weights as ``version``, and see that they arrived.

        Returns the canary's difference of log-probs, in nats. Raises StaleWeights.
        """

    def sleep(self) -> None:
        """Give memory back, until ``hand_over``, where the learner needs it."""

    def metrics(self) -> dict[str, float]:
        """The engine's figures since ``reset_metrics``, by the names of metrics.jsonl."""

    def reset_metrics(self) -> None:
        """Begin to count anew."""

    def close(self) -> None:
        """End the environments and the engine."""


def shards(starts: Sequence[Start], size: int | None) -> list[Sequence[Start]]:
    """The starts in parts of ``size``, the last one smaller; None: one part.

    >>> [len(part) for part in shards([Start(seed) for seed in range(5)], 2)]
    [2, 2, 1]
    """
    size = size or max(1, len(starts))
    return [starts[i : i + size] for i in range(0, len(starts), size)]


def copy_weights(model: Any, tensors: Tensors) -> None:
    """Give a model new values of some of its parameters, by their names."""
    own = dict(model.named_parameters())
    for name, tensor in tensors:
        copy_into(own[name], tensor)


def sampled_tokens(trajectories: Sequence[Trajectory]) -> int:
    """How many tokens were sampled for them."""
    return sum(turn.reply_tokens for each in trajectories for turn in each.turns)


class LocalPlayer:
    """Plays in this process.

    Args:
        rollout: plays one shard.
        sync: hands the policy's weights to the rollout's engine.
        shard: trajectories of a shard; None: a call of ``play`` is one.
        fetch: gives the learner's weights where its model is not the policy's own.
    """

    def __init__(
        self,
        rollout: Rollout,
        sync: WeightSync,
        shard: int | None = None,
        fetch: Callable[[], Tensors] | None = None,
    ) -> None:
        self.spec = rollout.spec
        self.rollout = rollout
        self.sync = sync
        self.shard = shard
        self.fetch = fetch

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> list[Trajectory]:
        """See Player; ``on_progress`` is called after each engine step."""
        played: list[Trajectory] = []
        sampled = 0

        def progress(finished: int, tokens: int) -> None:
            on_progress(len(played) + finished, sampled + tokens)

        for part in shards(starts, self.shard):
            own = self.rollout.play(part, sampling, progress)
            played += own
            sampled += sampled_tokens(own)
        return played

    def hand_over(self, version: int) -> float:
        """See Player. Raises EngineFailure too."""
        if self.fetch is not None:
            copy_weights(self.sync.model, self.fetch())
        self.rollout.engine.wake()
        self.sync(self.rollout.engine, version)
        return self.sync.gap

    def sleep(self) -> None:
        """See Player."""
        self.rollout.engine.sleep()

    def metrics(self) -> dict[str, float]:
        """See Player."""
        return self.rollout.engine.metrics()

    def reset_metrics(self) -> None:
        """See Player."""
        self.rollout.engine.reset_metrics()

    def close(self) -> None:
        """See Player."""
        self.rollout.close()
        self.rollout.engine.close()
