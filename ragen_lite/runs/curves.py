"""curves.png: success with its evaluations, return, lengths, the health of the optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = {
    "success": {"rollout/success": "training instances, sampled"},
    "return": {"rollout/return": "return"},
    "length": {"rollout/turns": "turns a trajectory", "rollout/reply_tokens": "tokens a reply"},
    "health": {
        "train/entropy": "entropy, nats",
        "train/grad_norm": "gradient norm",
        "rollout/format_errors": "format errors",
    },
}
Rows = list[dict[str, Any]]


def draw_curves(rows: Rows, path: Path) -> Path | None:
    """Draw the rows of metrics.jsonl into ``path``; None where none is a step of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps = [row for row in rows if "rollout/success" in row]
    if not steps:
        return None
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    for axis, (title, lines) in zip(axes.ravel(), PANELS.items(), strict=True):
        for name, label in lines.items():
            _line(axis, steps, name, label)
        if title == "success":
            _evaluations(axis, [row for row in rows if "eval/success" in row])
            axis.set_ylim(0, 1.02)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _line(axis: Any, steps: Rows, name: str, label: str) -> None:
    known = [row for row in steps if row.get(name) is not None]
    axis.plot([row["step"] for row in known], [row[name] for row in known], label=label, alpha=0.8)


def _evaluations(axis: Any, rows: Rows) -> None:
    """The val split: sampled with its interval, greedy, and the two policies beside it."""
    if not rows:
        return
    at = [row["step"] for row in rows]
    middle = [row["eval/success"] for row in rows]
    pairs = list(zip(middle, rows, strict=True))
    low = [max(0.0, m - row["eval/success_low"]) for m, row in pairs]
    high = [max(0.0, row["eval/success_high"] - m) for m, row in pairs]
    axis.errorbar(at, middle, [low, high], fmt="o-", capsize=3, label="val, sampled (95%)")
    axis.plot(at, [row["eval/greedy_success"] for row in rows], "s--", label="val, greedy")
    for kind, shown in (("easy", "like the demonstrations"), ("hard", "harder than any")):
        name = f"eval/success_{kind}"
        if name in rows[0]:
            axis.plot(at, [row.get(name) for row in rows], "^-", ms=4, label=f"val, {shown}")
    random = rows[0]["eval/random_success"]
    axis.axhline(random, color="grey", ls=":", label="random policy")
    if "eval/solver_success" in rows[0]:
        solver = rows[0]["eval/solver_success"]
        axis.axhline(solver, color="black", ls=":", label="solver")
