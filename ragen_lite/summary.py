"""What trajectories add up to: success with its interval, return, regret; tables and paired tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ragen_lite.agents.trajectory import Outcome, Trajectory

Z95 = 1.959963984540054


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a proportion (Wilson 1927).

    >>> [round(x, 4) for x in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, Z95 * Z95
    centre, half = (p + z2 / (2 * n)) / (1 + z2 / n), Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean (Efron 1979)."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(array), size=(draws, len(array)))
    low, high = np.quantile(array[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a policy did on n instances; regret, in the task's cost, is None where the task does not tell it."""

    n: int
    success: float
    success_low: float
    success_high: float
    reward: float
    reward_low: float
    reward_high: float
    regret: float | None
    deadlocked: float | None
    turns: float
    reply_tokens: float | None
    format_errors: float
    errors: int
    out_of_tokens: float


def total_regret(trajectory: Trajectory) -> float | None:
    """What a trajectory's actions cost beyond the best; None where the task does not tell it. A turn without actions
    wastes none."""
    told = [turn.info.get("regret") for turn in trajectory.turns if turn.info.get("actions") != []]
    return math.fsum(r for r in told if r is not None) if told and None not in told else None


def summarise(trajectories: Sequence[Trajectory]) -> Summary:
    """Success, return, regret, turns, reply length and format errors, with intervals.

    ``regret`` is the mean over the trajectories that did not dead-lock themselves of what their actions cost beyond
    the best; ``deadlocked`` is the share of the others. Of a mixture neither is told: its tasks count in different
    units. A failed environment counts as no success.
    """
    wins = sum(t.success for t in trajectories)
    returns = [t.reward for t in trajectories]
    turns = [turn for t in trajectories for turn in t.turns]
    mixed = len(by_task(trajectories)) > 1
    known = [total for t in trajectories if not mixed and (total := total_regret(t)) is not None]
    finite = [r for r in known if math.isfinite(r)]
    lengths = [n for turn in turns if (n := turn.stop - turn.start or turn.info.get("reply_tokens", 0))]
    return Summary(
        len(trajectories),
        wins / max(1, len(trajectories)),
        *wilson(wins, len(trajectories)),
        float(np.mean(returns)),
        *bootstrap(returns),
        float(np.mean(finite)) if finite else None,
        1 - len(finite) / len(known) if known else None,
        len(turns) / max(1, len(trajectories)),
        float(np.mean(lengths)) if lengths else None,
        float(np.mean([turn.info.get("unreadable") is not None for turn in turns])) if turns else 0.0,
        sum(t.outcome is Outcome.ERROR for t in trajectories),
        sum(t.outcome is Outcome.OUT_OF_TOKENS for t in trajectories) / max(1, len(trajectories)),
    )


def by_task(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    """The trajectories of each task of a mixture, by its label; empty where there is but one task."""
    found: dict[str, list[Trajectory]] = {}
    for t in trajectories:
        if t.turns and (label := t.turns[-1].info.get("task")) is not None:
            found.setdefault(str(label), []).append(t)
    return dict(sorted(found.items()))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """Pairs won by the first only, by the second only, and the exact two-sided p-value (McNemar 1947).

    >>> mcnemar([True, True, True, False], [False, False, False, False])
    (3, 0, 0.25)
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return only_first, only_second, min(1.0, 2 * tail)


LINES: dict[str, Callable[[Summary], str]] = {
    "instances": lambda s: f"{s.n}",
    "success": lambda s: f"{s.success:.1%}",
    "  95%": lambda s: f"{s.success_low:.1%}-{s.success_high:.1%}",
    "return": lambda s: f"{s.reward:.2f}",
    " 95%": lambda s: f"{s.reward_low:.2f}..{s.reward_high:.2f}",
    "regret": lambda s: "-" if s.regret is None else f"{s.regret:.2f}",
    "dead-locked": lambda s: "-" if s.deadlocked is None else f"{s.deadlocked:.1%}",
    "turns": lambda s: f"{s.turns:.2f}",
    "reply tokens": lambda s: "-" if s.reply_tokens is None else f"{s.reply_tokens:.1f}",
    "format errors": lambda s: f"{s.format_errors:.1%}",
    "out of tokens": lambda s: f"{s.out_of_tokens:.1%}",
}


def table(rows: dict[str, Summary], title: str) -> Any:
    """A rich table of summaries, a column a policy."""
    from rich.markup import escape
    from rich.table import Table

    view = Table(title=escape(title), title_justify="left")
    view.add_column("")
    for name in rows:
        view.add_column(escape(name), justify="right")
    for label, show in LINES.items():
        view.add_row(label, *(show(summary) for summary in rows.values()))
    return view


def task_table(rows: Mapping[str, Sequence[Trajectory]], title: str) -> Any:
    """A rich table of the success on each task of a mixture, a column a policy."""
    from rich.markup import escape
    from rich.table import Table

    view = Table(title=escape(title), title_justify="left")
    view.add_column("task")
    parts = {name: by_task(trajectories) for name, trajectories in rows.items()}
    for name in rows:
        view.add_column(escape(name), justify="right")
    for label in sorted({label for part in parts.values() for label in part}):
        cells = []
        for part in parts.values():
            wins = [t.success for t in part.get(label, [])]
            low, high = wilson(sum(wins), len(wins))
            cells.append(f"{np.mean(wins):.1%} ({low:.1%}-{high:.1%}) of {len(wins)}" if wins else "-")
        view.add_row(escape(label), *cells)
    return view


def paired(name: str, first: Sequence[Trajectory], other: str, second: Sequence[Trajectory]) -> str:
    """A sentence that compares two policies instance by instance: difference, interval, McNemar's test."""
    a, b = [t.success for t in first], [t.success for t in second]
    low, high = bootstrap([float(x) - float(y) for x, y in zip(a, b, strict=True)])
    only_a, only_b, p = mcnemar(a, b)
    return (
        f"{name} against {other}, the same {len(a)} instances: {np.mean(a) - np.mean(b):+.1%} "
        f"(95% {low:+.1%} to {high:+.1%}); {only_a} solved only by the first, {only_b} only by the second, "
        f"McNemar p = {p:.2g}"
    )


def as_json(summary: Summary) -> dict[str, Any]:
    """A summary as a JSON object."""
    return asdict(summary)


def measured(played: Mapping[str, Sequence[Trajectory]]) -> dict[str, Any]:
    """Policies' trajectories as JSON: their summaries, each success, and the summaries by task of a mixture."""
    parts = {name: by_task(trajectories) for name, trajectories in played.items()}
    tasks = {
        label: {name: as_json(summarise(part[label])) for name, part in parts.items() if label in part}
        for label in sorted({label for part in parts.values() for label in part})
    }
    return {
        "rows": {name: as_json(summarise(trajectories)) for name, trajectories in played.items()},
        "success": {name: [t.success for t in trajectories] for name, trajectories in played.items()},
        **({"tasks": tasks} if tasks else {}),
    }


def success_by_task(group: str, trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Success on each task of a mixture, as ``GROUP/success/TASK``."""
    parts = by_task(trajectories).items()
    return {f"{group}/success/{label}": sum(t.success for t in part) / len(part) for label, part in parts}
