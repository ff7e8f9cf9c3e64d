"""Rewards for how long a reply is, and for what it says again.

Lengths are in characters, since a reply is text here; the papers count tokens. Sources: open-r1
(src/open_r1/rewards.py), DAPO (arXiv:2503.14476), Kimi k1.5 (arXiv:2501.12599, section 2.3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ragen_lite.envs.answers.rewards.attempt import Attempt

LONGEST = 16_384  # a reply at which ``length`` and ``overlong`` are at their lowest
CACHE = 4_096  # the last part of it, over which ``overlong`` falls from 0 to -1


def kimi_lengths(
    lengths: Sequence[int], correct: Sequence[bool], low: int, high: int
) -> list[float]:
    """Kimi k1.5's length reward, one number a reply: from 0.5 (shortest) to -0.5 (longest).

    It is 0.5 - (length - low) / (high - low), no more than 0 where the answer is wrong, and 0 where
    ``low`` equals ``high``.

    Args:
        lengths: of the replies.
        correct: whether each is right.
        low: the shortest; in the paper, of the group.
        high: the longest; in the paper, of the group.

    >>> kimi_lengths([10, 20, 30], [True, True, False], 10, 30)
    [0.5, 0.0, -0.5]
    """
    if low == high:
        return [0.0] * len(lengths)
    shares = [0.5 - (length - low) / (high - low) for length in lengths]
    return [
        share if right else min(0.0, share) for share, right in zip(shares, correct, strict=True)
    ]


def length(attempt: Attempt) -> float | None:
    """Kimi's length reward against fixed bounds: 0 and 16,384 characters."""
    if attempt.correct is None:
        return None
    # A function sees one reply, and so no group to take the bounds from.
    (share,) = kimi_lengths([min(len(attempt.reply), LONGEST)], [attempt.correct], 0, LONGEST)
    return share


def cosine(
    attempt: Attempt,
    wrong: tuple[float, float] = (-0.5, 0.0),
    right: tuple[float, float] = (0.5, 1.0),
    longest: int = 1000,
) -> float | None:
    """open-r1's cosine schedule over the length: right falls from 1 to 0.5, wrong from 0 to -0.5.

    (arXiv:2502.03373; bounds are open-r1's configuration defaults, lengths beyond ``longest`` count
    as it.)
    """
    if attempt.correct is None:
        return None
    # From 1 for an empty reply to -1 for the longest: the result falls from ``high`` to ``low``.
    wave = math.cos(math.pi * min(len(attempt.reply), longest) / longest)
    low, high = right if attempt.correct else wrong
    return low + 0.5 * (high - low) * (1.0 + wave)


def repetition(attempt: Attempt, n: int = 3, most: float = -1.0) -> float:
    """``most`` times the share of repeated n-grams of words (open-r1, arXiv:2502.03373).

    0 where nothing is repeated, and where the reply has fewer than ``n`` words.
    """
    words = attempt.reply.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return (1 - len(set(grams)) / len(grams)) * most if grams else 0.0


def overlong(attempt: Attempt, longest: int = LONGEST, cache: int = CACHE) -> float:
    """DAPO's soft punishment, from 0 down to -1.

    It is 0 up to ``longest - cache`` characters, and falls linearly to -1 at ``longest``.
    """
    beyond = len(attempt.reply) - (longest - cache)
    return 0.0 if beyond <= 0 else max(-1.0, -beyond / cache)
