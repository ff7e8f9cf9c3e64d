"""Who may see an instance, and who draws what: splits by content, and the named random streams.

An instance belongs to the train, val or test split by what it is, not by its seed, so that nothing
that is tested on can ever be trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")

# numpy gives the seed [s, 0] the very stream of the seed s, which the instance was drawn from. So
# each stream beside it ends in a number of its own that is not 0.
_CHANCE = 1
_POLICY = 2


def split_of(content: str) -> str:
    """The split an instance belongs to: 80% train, 10% val, 10% test.

    It is decided by a stable hash (BLAKE2b) of the instance as text.

    >>> split_of("1 2 3 -> 6") == split_of("1 2 3 -> 6")
    True
    """
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % 10
    return {8: "val", 9: "test"}.get(bucket, "train")


def requested_split(options: dict[str, Any] | None) -> str:
    """The split that ``reset(options=...)`` asks for; ``train`` where it asks for none.

    Raises ValueError for a name that is no split.
    """
    split = (options or {}).get("split", "train")
    one_of("split", split, SPLITS)
    return str(split)


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


def task_seed(run_seed: int, step: int, group: int) -> int:
    """The seed of a task instance: a hash, so that steps, groups and runs share none."""
    text = f"{run_seed}/{step}/{group}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
