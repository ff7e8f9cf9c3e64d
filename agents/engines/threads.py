"""Models whose sums are too short for several threads: they play with one, wherever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

SMALL = 20_000_000  # parameters


def is_small(model: Any) -> bool:
    """Whether one thread of a CPU is as fast as several with this model."""
    sizes: list[int] = [p.numel() for p in model.parameters() if p.device.type == "cpu"]
    return 0 < sum(sizes) <= SMALL


@contextlib.contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Within it torch calculates with one thread, where that is ``wanted``: how many work on a sum
    may change its last bits."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(before)
