"""What an engine is: token ids in, sampled token ids and their log-probs out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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


class Engine(Protocol):
    """Generates for many trajectories at once; a trajectory keeps its id, and so its cache, from turn to turn."""

    max_model_len: int

    def submit(self, request: Request) -> None:
        """Queue a continuation. Its token ids begin with all that this trajectory was fed and sampled before."""

    def step(self) -> list[tuple[int, Completion]]:
        """Advance everything that is queued; returns the replies that were finished by it, in a fixed order."""

    def release(self, id: int) -> None:
        """Forget a trajectory."""

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take new weights, by the names of the Hugging Face model. No trajectory may be under way."""

    def sleep(self) -> None:
        """Give memory back while the learner works."""

    def wake(self) -> None:
        """Be ready to generate again."""


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
