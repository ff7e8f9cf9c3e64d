"""Summaries as tables and sentences, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from ragen_lite.agents.trajectory import Episode
from ragen_lite.runs.statistics import bootstrap, mcnemar, proportion
from ragen_lite.runs.summaries import Summary, keys_of

LINES: dict[str, Callable[[Summary], str]] = {
    "instances": lambda s: f"{s.instances}",
    "episodes": lambda s: f"{s.n}",
    "success": lambda s: f"{s.success:.1%}",
    "  95%": lambda s: f"{s.success_low:.1%}-{s.success_high:.1%}",
    "return": lambda s: f"{s.returns:.2f}",
    " 95%": lambda s: f"{s.returns_low:.2f}..{s.returns_high:.2f}",
    "regret": lambda s: "-" if s.regret is None else f"{s.regret:.2f}",
    "dead-locked": lambda s: "-" if s.deadlocked is None else f"{s.deadlocked:.1%}",
    "turns": lambda s: f"{s.turns:.2f}",
    "reply tokens": lambda s: "-" if s.reply_tokens is None else f"{s.reply_tokens:.1f}",
    "format errors": lambda s: f"{s.format_errors:.1%}",
    "out of tokens": lambda s: f"{s.out_of_tokens:.1%}",
}


def _empty(title: str, first: str, names: Sequence[str]) -> Any:
    view = Table(title=escape(title), title_justify="left")
    view.add_column(first)
    for name in names:
        view.add_column(escape(name), justify="right")
    return view


def table(rows: dict[str, Summary], title: str) -> Any:
    """A rich table of summaries, a column a policy."""
    view = _empty(title, "", list(rows))
    repeated = any(summary.n != summary.instances for summary in rows.values())
    for label, show in LINES.items():
        # Where every instance was played once, it is the same line again.
        if label == "episodes" and not repeated:
            continue
        view.add_row(label, *(show(summary) for summary in rows.values()))
    return view


def part_table(
    names: Sequence[str], parts: Sequence[Mapping[str, Sequence[Episode]]], title: str
) -> Any:
    """A rich table of the success on parts of the instances, by label; a column a policy."""
    view = _empty(title, "part", names)
    for label in sorted({label for part in parts for label in part}):
        view.add_row(escape(label), *(_rate(part.get(label, [])) for part in parts))
    return view


def _rate(episodes: Sequence[Episode]) -> str:
    wins = [episode.success for episode in episodes]
    if not wins:
        return "-"
    low, high = proportion(wins, keys_of(episodes))
    return f"{np.mean(wins):.1%} ({low:.1%}-{high:.1%}) of {len(wins)}"


def compare_pairs(
    name: str, first: Sequence[Episode], other: str, second: Sequence[Episode]
) -> str:
    """A sentence that compares two policies instance by instance: difference, interval, test.

    Both have as many episodes, in the order of the same starts.
    """
    a = [episode.success for episode in first]
    b = [episode.success for episode in second]
    keys = keys_of(first)
    gains = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    gain = np.mean(gains)
    low, high = bootstrap(gains, keys)
    only_a, only_b, p = mcnemar(a, b, keys)
    return (
        f"{name} against {other}, the same {len(set(keys))} instances: {gain:+.1%} "
        f"(95% {low:+.1%} to {high:+.1%}); {only_a} solved more often by the first, {only_b} "
        f"by the second, McNemar p = {p:.2g}"
    )
