"""What an engine is: token ids in, sampled token ids and their log-probs out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.trajectory import Completion, Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """A continuation of one trajectory: ``token_ids`` is everything so far, ``key`` owns this reply's draws."""

    id: int
    token_ids: tuple[int, ...]
    sampling: Sampling
    key: int


class EngineFailure(RuntimeError):
    """An engine cannot go on: what it was doing is lost, what it had finished is not."""


class StaleWeights(RuntimeError):
    """The engine does not have the learner's weights."""


class Engine(Protocol):
    """Generates for many trajectories at once; a trajectory keeps its id, and so its cache, from turn to turn."""

    @property
    def max_model_len(self) -> int:
        """Longest trajectory in tokens."""

    @property
    def version(self) -> int:
        """Of the weights, as ``load_weights`` was told."""

    def submit(self, request: Request) -> None:
        """Queue a continuation. Its token ids begin with all that this trajectory was fed and sampled before."""

    def step(self) -> list[tuple[int, Completion]]:
        """Advance everything that is queued; returns the replies that were finished by it, in a fixed order.

        Raises EngineFailure where the engine cannot go on.
        """

    def release(self, id: int) -> None:
        """Forget a trajectory."""

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take new weights, by the names of the Hugging Face model. No trajectory may be under way.

        Raises StaleWeights where it is seen that they did not all arrive.
        """

    def sleep(self) -> None:
        """Give memory back while the learner works."""

    def wake(self) -> None:
        """Take the memory back; ``load_weights`` comes next."""

    def metrics(self) -> dict[str, float]:
        """Figures of what was done since the last call, by the names of metrics.jsonl."""

    def close(self) -> None:
        """Give everything back, for good."""


def check_request(request: Request, max_model_len: int) -> None:
    """Raise ValueError where a request is empty or cannot fit."""
    if not request.token_ids:
        raise ValueError(f"request {request.id} has no token to begin with")
    if len(request.token_ids) + request.sampling.max_tokens > max_model_len:
        raise ValueError(
            f"a prompt of {len(request.token_ids)} tokens and a reply of up to {request.sampling.max_tokens} do "
            f"not fit max_model_len={max_model_len}"
        )


class Restarting:
    """An engine that is built again when it fails, once: replies under way are sampled again, nothing else is lost.

    Args:
        build: makes an engine that has the learner's present weights.
        note: is told of a failure.
    """

    def __init__(self, build: Callable[[], Engine], note: Callable[[str], None]) -> None:
        self._build, self._note = build, note
        self._engine = build()
        self._under_way: dict[int, Request] = {}
        self._first: str | None = None
        self._restarts = 0  # since metrics was called

    @property
    def max_model_len(self) -> int:
        return self._engine.max_model_len

    @property
    def version(self) -> int:
        return self._engine.version

    def submit(self, request: Request) -> None:
        self._engine.submit(request)
        self._under_way[request.id] = request

    def step(self) -> list[tuple[int, Completion]]:
        """See Engine. Raises EngineFailure at the second failure, or where the engine cannot be built again."""
        try:
            finished = self._engine.step()
        except EngineFailure as error:
            if self._first is not None:
                raise EngineFailure(
                    f"the engine failed a second time: {error} (the first time: {self._first})"
                ) from error
            self._first = str(error)  # no more than its text: a traceback would hold the failed engine in memory
        else:
            for id, _ in finished:
                del self._under_way[id]
            return finished
        self._restarts += 1
        self._restart(self._first)
        return []

    def _restart(self, failure: str) -> None:
        self._note(
            f"the engine failed: {failure}; it is built again from the learner's weights, and the "
            f"{len(self._under_way)} replies under way are sampled again"
        )
        try:
            self._engine.close()
            self._engine = self._build()
        except Exception as error:  # whatever a broken device makes of it
            raise EngineFailure(f"the engine failed: {failure}; it cannot be built again: {error}") from error
        for request in self._under_way.values():
            self._engine.submit(request)

    def release(self, id: int) -> None:
        self._under_way.pop(id, None)
        self._engine.release(id)

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        self._engine.load_weights(tensors, version)

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        self._engine.wake()

    def metrics(self) -> dict[str, float]:
        restarts, self._restarts = self._restarts, 0
        return self._engine.metrics() | ({"rollout/engine_restarts": float(restarts)} if restarts else {})

    def close(self) -> None:
        self._engine.close()


def draw_key(run_seed: int, task_seed: int, member: int, turn: int) -> int:
    """The key of one reply's draws: a hash, so that no two replies of a run share their numbers."""
    text = f"{run_seed}/{task_seed}/{member}/{turn}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def uniform(keys: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (key, position): a counter-based draw that depends on nothing else.

    The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at the counter ``positions``.
    """
    with np.errstate(over="ignore"):
        z = keys + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    numbers: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
