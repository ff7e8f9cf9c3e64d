"""Who may see an instance, and who draws what: splits by content, and the named random streams.

An instance belongs to the train, val or test split by what it is, not by its seed, so that nothing
that is tested on can ever be trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

RowT = TypeVar("RowT")

SPLITS = ("train", "val", "test")
# No split, but every instance: for evaluation on a benchmark that nobody trains on.
ALL = "all"

# numpy gives the seed [s, 0] the very stream of the seed s, which the instance was drawn from. So
# each stream beside it ends in a number of its own that is not 0.
_CHANCE = 1
_POLICY = 2
_CHOICE = 3


def split_of(content: str) -> str:
    """The split an instance belongs to: 80% train, 10% val, 10% test.

    It is decided by a stable hash (BLAKE2b) of the instance as text.

    >>> split_of("1 2 3 -> 6") == split_of("1 2 3 -> 6")
    True
    """
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % 10
    return {8: "val", 9: "test"}.get(bucket, "train")


def belongs(content: str, split: str) -> bool:
    """Whether an instance is one of a split, or of ``all``."""
    return split in (ALL, split_of(content))


def requested_split(options: dict[str, Any] | None) -> str:
    """The split that ``reset(options=...)`` asks for; ``train`` where it asks for none.

    Raises ValueError for a name that is neither a split nor ``all``.
    """
    split = (options or {}).get("split", "train")
    one_of("split", split, (*SPLITS, ALL))
    return str(split)


def shuffled(rows: Iterable[RowT], content: Callable[[RowT], str]) -> tuple[RowT, ...]:
    """The rows in the order of their hashes, so that any stretch of them is a fair sample."""
    return tuple(sorted(rows, key=lambda row: hashlib.blake2b(content(row).encode()).digest()))


def pick(rows: Sequence[RowT], split: str, seed: int | None, rng: np.random.Generator) -> RowT:
    """The row of a finite set that a seed gives.

    To train on it is drawn. Of any other split, consecutive seeds take every row once before one
    comes a second time, so that an evaluation goes through the set.
    """
    if split == "train" or seed is None:
        return rows[int(rng.integers(len(rows)))]
    return rows[seed % len(rows)]


def one_of(name: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError for a value of the option ``name`` that is none of those allowed."""
    # A list, since a dictionary of the command line has no hash.
    if value not in list(allowed):
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")


def chance_stream(seed: int, member: int) -> np.random.Generator:
    """What chance does after the reset (a slippery step, a card): the member's own draws."""
    return np.random.default_rng([seed, member, _CHANCE])


def policy_stream(seed: int, member: int) -> np.random.Generator:
    """The draws of a scripted policy, apart from the environment's."""
    return np.random.default_rng([seed, member, _POLICY])


def choice_stream(seed: int) -> np.random.Generator:
    """The draws of a curriculum, which chooses among instances."""
    return np.random.default_rng([seed, _CHOICE])


def task_seed(run_seed: int, step: int, group: int) -> int:
    """The seed of a task instance: a hash, so that steps, groups and runs share none."""
    text = f"{run_seed}/{step}/{group}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
