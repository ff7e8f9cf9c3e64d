"""Counter-based draws: a token depends on its own key and position, and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# SplitMix64's constants: the step of its counter, and its two rounds of shift and factor.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


def draw_key(run_seed: int, task_seed: int, member: int, turn: int) -> int:
    """The key of one reply's draws: a hash, so that no two replies of a run share their numbers."""
    text = f"{run_seed}/{task_seed}/{member}/{turn}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def uniform(keys: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (key, position).

    The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at the counter
    ``positions``.
    """
    # The products wrap around at 2^64, as they are meant to.
    with np.errstate(over="ignore"):
        counters = positions + np.uint64(1)
        z = keys + counters * GOLDEN
        for shift, factor in MIX:
            z = z ^ (z >> shift)
            z = z * factor
        z = z ^ (z >> np.uint64(31))
    # The upper 53 bits fill a float64's mantissa.
    upper = z >> np.uint64(11)
    numbers: NDArray[np.float64] = upper.astype(np.float64) * 2.0**-53
    return numbers


def draw_tokens(
    logits: Tensor, temperatures: Sequence[float], numbers: NDArray[np.float64]
) -> tuple[list[int], list[float]]:
    """One token a row, by the inverse of the cumulative distribution, and its log-prob in nats.

    Args:
        logits: (rows, vocabulary).
        temperatures: one a row; 0 is greedy, with log-probs at temperature 1.
        numbers: (rows,), one draw in [0, 1) a row.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    divisors = [t or 1.0 for t in temperatures]
    scale = torch.tensor(divisors, dtype=logits.dtype, device=logits.device)
    logprobs = torch.log_softmax(logits / scale[:, None], dim=-1)
    # In float64: over a large vocabulary, float32's sums would lose the rare tokens.
    cumulative = logprobs.double().exp().cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding may lift a draw up to the total, behind the last token: it stays just below.
    below = torch.nextafter(total, torch.zeros_like(total))
    draws = torch.from_numpy(numbers).to(total.device)
    threshold = torch.minimum(draws[:, None] * total, below)
    ids = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    if not all(temperatures):
        greedy = torch.tensor([t == 0 for t in temperatures], device=ids.device)
        ids = torch.where(greedy, logprobs.argmax(-1), ids)
    drawn = logprobs.gather(-1, ids[:, None])[:, 0]
    return ids.tolist(), drawn.double().tolist()
