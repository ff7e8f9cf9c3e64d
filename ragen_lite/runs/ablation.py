"""What a sweep's runs learnt, in one table and one plot, paired by seed and by test instance."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragen_lite.config.checks import LONGEST_NAME
from ragen_lite.runs.folder import Run, runs_of

Array = NDArray[np.float64]
DRAWS = 2000
HEADS = (
    "seeds",
    "before",
    "after (95%)",
    "against the first (95%)",
    "greedy after",
    "tokens sampled",
    "tokens a reply, first to last",
    "replies that reflect",
    "format errors",
)
# Metrics of training whose change is shown.
CHANGES = {
    "reply_tokens": "rollout/reply_tokens",
    "reflection": "rollout/reflection",
    "format_errors": "rollout/format_errors",
}
ENDS = 5  # of a run's steps, on which its first and its last figures are means


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the swept flags; ``slugs`` end its runs' folders, by seed."""

    flags: dict[str, str]
    slugs: dict[str, str] = field(default_factory=dict)

    def name(self, seed: str) -> str:
        """The name of its run with a seed.

        >>> Cell({"algo": "grpo", "train.lr": "1e-3"}).name("0")
        'algo-grpo_train.lr-1e-3_seed-0'
        """
        parts = [f"{key}-{value}" for key, value in {**self.flags, "seed": seed}.items()]
        return re.sub(r"[^\w.-]", "", "_".join(parts))[-LONGEST_NAME:]

    @property
    def panel(self) -> tuple[str, ...]:
        """What it shares with the cells that it is compared with."""
        return tuple(f"{key}={value}" for key, value in self.flags.items())[:-1]

    @property
    def label(self) -> str:
        """The value by which it differs from these."""
        key, value = list(self.flags.items())[-1]
        return f"{key}={value}"

    def measured(self, root: Path, seed: str) -> Measured | None:
        """What its run with a seed learnt, once it is finished."""
        folders = runs_of(root, self.slugs[seed])
        if not folders:
            return None
        run = Run(folders[-1])
        before = run.read_json("before.json")
        after = run.read_json("after.json")
        if before is None or after is None:
            return None
        references = [run.read_json(f"{name}.json") or {} for name in ("random", "solver")]
        rates = [r["rows"][name]["success"] for r in references for name in r.get("rows", {})]
        return Measured(before, after, run.metrics(), rates)


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished run: its test split before and after, its steps, and the policies beside it."""

    before: dict[str, Any]
    after: dict[str, Any]
    rows: list[dict[str, Any]]
    references: list[float]

    @property
    def tokens(self) -> float:
        """Tokens sampled in training."""
        return float(sum(row.get("rollout/tokens") or 0 for row in self.rows))

    def change(self, name: str) -> list[float]:
        """A metric of training, over the first and over the last steps; empty if unknown."""
        values = [row[name] for row in self.rows if row.get(name) is not None]
        return [float(np.mean(part)) for part in (values[:ENDS], values[-ENDS:]) if part]

    def rate(self, when: str, kind: str) -> float:
        """The share of successes, before or after, sampled or greedy."""
        measured = {"before": self.before, "after": self.after}[when]
        return float(np.mean(measured["success"][kind]))

    def wins(self) -> dict[str, list[float]]:
        """The sampled episodes after training by test instance: 1 for a success, else 0."""
        found: dict[str, list[float]] = {}
        after = self.after
        pairs = zip(after["instances"]["sampled"], after["success"]["sampled"], strict=True)
        for instance, won in pairs:
            found.setdefault(str(instance), []).append(float(won))
        return found


def tables_of(*cells: Sequence[dict[str, list[float]]]) -> tuple[Array, list[Array]]:
    """Several cells' runs over the test instances that all have.

    Args:
        cells: of each, its runs' wins by instance.

    Returns:
        The episodes of each instance, (instances,), and of each cell the successes,
        (seeds, instances).
    """
    first = cells[0][0]
    common = [i for i in first if all(i in run for runs in cells for run in runs)]
    counts = np.array([len(first[i]) for i in common], dtype=float)
    return counts, [np.array([[sum(run[i]) for i in common] for run in runs]) for runs in cells]


def share(wins: Array, counts: Array) -> float:
    """Successes an episode."""
    return float(wins.sum() / (len(wins) * counts.sum()))


def interval(wins: Array, counts: Array, draws: int = DRAWS) -> tuple[float, float]:
    """The 95% bootstrap interval of ``share``: seeds and instances, both drawn anew.

    Seeds and instances are crossed: each seed was tested on the same instances, so rows and columns
    are drawn independently (Owen 2007, "The pigeonhole bootstrap"). With one seed, or few
    instances, it knows only that one, or these, and is too narrow.
    """
    rng = np.random.default_rng(0)
    seeds, instances = wins.shape
    shares = []
    for _ in range(draws):
        rows = rng.integers(seeds, size=seeds)
        columns = rng.integers(instances, size=instances)
        shares.append(share(wins[np.ix_(rows, columns)], counts[columns]))
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def write_results(root: Path, cells: Sequence[Cell], seeds: Sequence[str]) -> str:
    """``ablation.md``, ``ablation.json`` and ``ablation.png`` of what is finished; the table."""
    panels: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        panels.setdefault(cell.panel, []).append(cell)
    lines: list[str] = []
    found: list[dict[str, Any]] = []
    for panel, members in panels.items():
        if panel:
            lines += ["", " ".join(panel), ""]
        rows = [_row(root, cell, members[0], seeds) for cell in members]
        lines.append(f"| flag | {' | '.join(HEADS)} |")
        lines.append("|" + "---|" * (len(HEADS) + 1))
        lines += [_line(row) for row in rows]
        lines.append(_beside(root, members, seeds))
        found += [row | {"panel": list(panel)} for row in rows]
    text = "\n".join(lines).strip() + "\n"
    (root / "ablation.md").write_text(text, encoding="utf-8")
    (root / "ablation.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    draw(root, panels, seeds)
    return text


def _row(root: Path, cell: Cell, first: Cell, seeds: Sequence[str]) -> dict[str, Any]:
    """A cell's figures; its difference to ``first`` is over the seeds that both have finished."""
    runs = {seed: run for seed in seeds if (run := cell.measured(root, seed))}
    row: dict[str, Any] = {"flag": cell.label, "seeds": f"{len(runs)}/{len(seeds)}"}
    if not runs:
        return row
    wins = {seed: run.wins() for seed, run in runs.items()}
    counts, (after,) = tables_of(list(wins.values()))
    row["before"] = _mean(run.rate("before", "sampled") for run in runs.values())
    row["after"] = share(after, counts)
    row["after_interval"] = interval(after, counts)
    row["greedy"] = _mean(run.rate("after", "greedy") for run in runs.values())
    row["tokens"] = _mean(run.tokens for run in runs.values())
    for key, name in CHANGES.items():
        changes = [change for run in runs.values() if (change := run.change(name))]
        row[key] = np.mean(changes, axis=0).tolist() if changes else []
    others = {seed: run.wins() for seed in runs if (run := first.measured(root, seed))}
    if cell is not first and others:
        mine = [wins[seed] for seed in others]
        counts, (own, base) = tables_of(mine, list(others.values()))
        # Where the flag changes the instances there are no pairs.
        if len(counts):
            row["gain"] = share(own - base, counts)
            row["gain_interval"] = interval(own - base, counts)
    return row


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _line(row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [row["flag"], row["seeds"]]
    if "after" in row:
        low, high = row["after_interval"]
        gain = ""
        if "gain" in row:
            worst, best = row["gain_interval"]
            gain = f"{row['gain']:+.1%} ({worst:+.1%} to {best:+.1%})"
        cells.append(f"{row['before']:.1%}")
        cells.append(f"{row['after']:.1%} ({low:.1%} to {high:.1%})")
        cells.append(gain)
        cells.append(f"{row['greedy']:.1%}")
        cells.append(f"{row['tokens']:,.0f}")
        cells.append(" to ".join(f"{value:.1f}" for value in row["reply_tokens"]))
        for key in ("reflection", "format_errors"):
            cells.append(" to ".join(f"{value:.1%}" for value in row[key]))
    else:
        cells += [""] * (len(HEADS) - 1)
    return f"| {' | '.join(cells)} |"


def _beside(root: Path, cells: Sequence[Cell], seeds: Sequence[str]) -> str:
    """The random policy and the solver on the same instances, under the table."""
    for cell in cells:
        for seed in seeds:
            run = cell.measured(root, seed)
            if run is not None and run.references:
                names = ("random policy", "solver")
                pairs = zip(names, run.references, strict=False)
                told = ", ".join(f"{name} {rate:.1%}" for name, rate in pairs)
                episodes = len(run.after["success"]["sampled"])
                count = len(run.wins())
                return f"\n{told}; a seed: {episodes} episodes of {count} test instances"
    return ""


def draw(root: Path, panels: dict[tuple[str, ...], list[Cell]], seeds: Sequence[str]) -> None:
    """``ablation.png``: success in training by sampled tokens, a line a flag, its seeds' range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False, constrained_layout=True
    )
    for axis, (panel, cells) in zip(axes[0], panels.items(), strict=True):
        for cell in cells:
            curves = [curve(run) for seed in seeds if (run := cell.measured(root, seed))]
            curves = [each for each in curves if len(each[0])]
            if curves:
                _band(axis, cell.label, curves)
        axis.set(title=" ".join(panel), xlabel="tokens sampled", ylabel="success, mean of five")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(root / "ablation.png", dpi=110)
    plt.close(figure)


def curve(run: Measured) -> tuple[Array, Array]:
    """Tokens sampled so far and the success of the step, a mean over five steps."""
    rows = [row for row in run.rows if "rollout/success" in row]
    tokens = np.cumsum([row.get("rollout/tokens") or 0 for row in rows])
    success = np.array([row["rollout/success"] for row in rows])
    smooth = [success[max(0, i - 4) : i + 1].mean() for i in range(len(success))]
    return tokens.astype(float), np.array(smooth)


def _band(axis: Any, label: str, curves: Sequence[tuple[Array, Array]]) -> None:
    """The mean of several curves, and their range, over the tokens that all have sampled."""
    last = min(tokens[-1] for tokens, _ in curves)
    at = np.linspace(0, last, 100)
    values = np.array([np.interp(at, tokens, success) for tokens, success in curves])
    (line,) = axis.plot(at, values.mean(axis=0), label=label)
    axis.fill_between(
        at, values.min(axis=0), values.max(axis=0), alpha=0.15, color=line.get_color()
    )
