"""Intervals and paired tests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

Z95 = 1.959963984540054


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a proportion (Wilson 1927).

    >>> [round(x, 4) for x in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    z2 = Z95 * Z95
    scale = 1 + z2 / n
    centre = (p + z2 / (2 * n)) / scale
    variance = p * (1 - p) / n + z2 / (4 * n * n)
    half = Z95 * math.sqrt(variance) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def clusters(values: Sequence[float], keys: Sequence[Hashable] | None) -> list[list[float]]:
    """The values of each key, in the order of first appearance; each alone where keys is None."""
    if keys is None:
        return [[float(value)] for value in values]
    found: dict[Hashable, list[float]] = {}
    for value, key in zip(values, keys, strict=True):
        found.setdefault(key, []).append(float(value))
    return list(found.values())


def effective_size(values: Sequence[float], keys: Sequence[Hashable] | None) -> float:
    """How many independent values would tell a proportion as well as these.

    Values of one key (episodes of one instance) are alike. The size is p (1 - p) over the
    clustered variance of the mean (Kish 1965; Miller 2024, "Adding Error Bars to Evals"), at most
    the number of values. Where all are equal it is the number of keys, since no variance tells.

    >>> effective_size([1, 1, 0, 0], ["a", "a", "b", "b"]), effective_size([1, 0, 1, 0], None)
    (1.0, 4)
    """
    parts = clusters(values, keys)
    n = len(values)
    count = len(parts)
    mean = sum(values) / max(1, n)
    if count in (n, 1) or mean in (0.0, 1.0):
        return count
    spread = 0.0
    for part in parts:
        gap = sum(part) - mean * len(part)
        spread += gap**2
    # A sample of few clusters shows too small a spread: the factor makes it unbiased.
    spread *= count / (count - 1)
    if spread == 0:
        return n
    alone = mean * (1 - mean) * n
    size = n * alone / spread
    return max(1.0, min(n, size))


def proportion(
    wins: Sequence[float], keys: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """The 95% Wilson interval of a share of wins, where values of one key are alike."""
    size = effective_size(wins, keys)
    share = sum(wins) / max(1, len(wins))
    return wilson(share * size, size)


def bootstrap(
    values: Sequence[float],
    keys: Sequence[Hashable] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean (Efron 1979); whole keys are drawn."""
    sums = []
    sizes = []
    for part in clusters(values, keys):
        sums.append(sum(part))
        sizes.append(len(part))
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(sums), size=(draws, len(sums)))
    totals = np.asarray(sums)[picks].sum(axis=1)
    counts = np.asarray(sizes)[picks].sum(axis=1)
    low, high = np.quantile(totals / counts, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(
    first: Sequence[bool], second: Sequence[bool], keys: Sequence[Hashable] | None = None
) -> tuple[int, int, float]:
    """Pairs won by the first only, by the second only, and the exact two-sided p-value.

    McNemar 1947, with binomial tails. Of several pairs of one key, who won more of them wins the
    key: the sign test over keys, which with one pair a key is McNemar's.

    >>> mcnemar([True, True, True, False], [False, False, False, False])
    (3, 0, 0.25)
    """
    gains = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    only_first = 0
    only_second = 0
    for part in clusters(gains, keys):
        total = sum(part)
        only_first += total > 0
        only_second += total < 0
    n = only_first + only_second
    fewer = min(only_first, only_second)
    ways = sum(math.comb(n, i) for i in range(fewer + 1))
    tail = ways / 2**n
    return only_first, only_second, min(1.0, 2 * tail)
