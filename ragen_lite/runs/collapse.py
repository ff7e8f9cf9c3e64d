"""Warnings that name a collapse as it begins, and its remedy; read from the rows of metrics.jsonl.

Each holds the last few iterations against the first few of the run. Signs: RAGEN (arXiv:2504.20073)
for the echo trap, DAPO (arXiv:2503.14476) for entropy and length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

SPAN = 3  # iterations that are averaged
SOLVED = 0.9  # a policy that succeeds so often may well have become sure of itself
BETTER = 0.05  # more success than at the start: whatever else changed, it learns


def mean(rows: Rows, name: str) -> float:
    """The mean of a metric over rows; not a number where none has it."""
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return sum(values) / len(values) if values else math.nan


def fallen(first: Rows, last: Rows, name: str, share: float) -> bool:
    """Whether a metric is below a share of what it was; no where it was not measured."""
    return mean(last, name) < share * mean(first, name)


def learns(first: Rows, last: Rows) -> bool:
    """Whether success has risen, or is high anyway."""
    now = mean(last, "rollout/success")
    return now >= SOLVED or now > mean(first, "rollout/success") + BETTER


def all_dropped(first: Rows, last: Rows) -> bool:
    """No group has passed the filter, so there is nothing to learn from."""
    dropped = all(row.get("rollout/kept_groups") == 0 for row in last)
    return dropped and not learns(first, last)


def entropy_collapse(first: Rows, last: Rows) -> bool:
    """The policy has become sure of itself without having learnt the task."""
    return fallen(first, last, "train/entropy", 0.25) and not learns(first, last)


def length_collapse(first: Rows, last: Rows) -> bool:
    """Replies are shorter than half of what they were, and no better."""
    return fallen(first, last, "rollout/reply_tokens", 0.5) and not learns(first, last)


def echo_trap(first: Rows, last: Rows) -> bool:
    """The members of a group do alike, and no better: nothing is left to compare."""
    alike = fallen(first, last, "rollout/return_spread", 0.25)
    surer = fallen(first, last, "train/entropy", 0.5)
    return alike and surer and not learns(first, last)


SIGNS: dict[str, tuple[Callable[[Rows, Rows], bool], str]] = {
    "all groups dropped": (
        all_dropped,
        "no group passed the filter in {span} iterations in a row, so nothing is learnt: take "
        "easier instances, a larger train.group_size, filter.refill, filter=spread or filter=none",
    ),
    "entropy collapse": (
        entropy_collapse,
        "the entropy is {entropy:.3f} nats a token, was {entropy_before:.3f}, and success has not "
        "risen: lower train.lr, raise loss.clip_high or loss.entropy_coef, or hold the policy by "
        "kl=k3",
    ),
    "length collapse": (
        length_collapse,
        "replies have {length:.1f} tokens, had {length_before:.1f}, and success has not risen: see "
        "whether short replies earn as much as good ones, and hold the policy by kl=k3",
    ),
    "echo trap": (
        echo_trap,
        "returns within a group differ by {spread:.3f}, by {spread_before:.3f} at the start, and "
        "success has not risen: learn from the widest groups (filter=top_p), raise loss.clip_high, "
        "or go on from an earlier checkpoint at a lower train.lr",
    ),
}


def signs(rows: Rows) -> list[str]:
    """The names of the collapses that the rows of a run show."""
    steps = [row for row in rows if "rollout/success" in row]
    if len(steps) < 2 * SPAN:
        return []
    first = steps[:SPAN]
    last = steps[-SPAN:]
    return [name for name, (sign, _) in SIGNS.items() if sign(first, last)]


def warnings(rows: Rows) -> list[str]:
    """What to say after the last row: the collapses that begin with it."""
    before = signs(rows[:-1])
    steps = [row for row in rows if "rollout/success" in row]
    first = steps[:SPAN]
    last = steps[-SPAN:]
    names = {
        "entropy": "train/entropy",
        "length": "rollout/reply_tokens",
        "spread": "rollout/return_spread",
    }
    told: dict[str, Any] = {"span": SPAN}
    for short, name in names.items():
        told[short] = mean(last, name)
        told[f"{short}_before"] = mean(first, name)
    begun = [name for name in signs(rows) if name not in before]
    when = f"warning after step {steps[-1]['step']}" if begun else ""
    return [f"{when}: {name}: {SIGNS[name][1].format(**told)}" for name in begun]
