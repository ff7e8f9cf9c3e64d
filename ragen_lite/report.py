"""curves.png and report.html of a run: one file to look at, no service, no script."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from ragen_lite.run import Run, read_trajectories
from ragen_lite.summary import bootstrap, mcnemar

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}pre{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}"
    "pre b{background:#d9f2d9;font-weight:normal}img{max-width:100%}"
)
ROWS = (("before", "sampled"), ("before", "greedy"), ("after", "sampled"), ("after", "greedy"))


def results(run: Run) -> dict[str, dict[str, Any]]:
    """The measurements on the test split: row name -> summary."""
    found = {}
    for when, kind in (*ROWS, ("random", "random"), ("solver", "solver")):
        data = run.read_json(f"{when}.json")
        if data is not None:
            found[f"{when}, {kind}" if when != kind else f"{when} policy" if when == "random" else when] = data["rows"][
                kind
            ]
    return found


def result_lines(run: Run) -> list[str]:
    """The result in words, every rate with its 95% interval."""
    lines = []
    for name, row in results(run).items():
        lines.append(
            f"{name:>16}: success {row['success']:.1%} (95% {row['success_low']:.1%} to {row['success_high']:.1%}), "
            f"return {row['reward']:+.2f}, {row['n']} test instances"
        )
    before, after = run.read_json("before.json"), run.read_json("after.json")
    for kind in ("sampled", "greedy") if before and after else ():
        old, new = before["success"][kind], after["success"][kind]
        if len(old) != len(new):
            continue  # eval.instances was changed in between: not the same instances
        low, high = bootstrap([float(n) - float(o) for n, o in zip(new, old, strict=True)])
        gain = sum(new) / len(new) - sum(old) / len(old)
        lines.append(
            f"{kind} gain: {gain:+.1%} (95% {low:+.1%} to {high:+.1%}), McNemar p = {mcnemar(new, old)[2]:.2g}"
        )
    return lines + task_lines(run)


def task_lines(run: Run) -> list[str]:
    """Of a mixture: the success on each task, sampled, beside the random policy and the solver."""
    found: dict[str, list[str]] = {}
    for when, kind in (("before", "sampled"), ("after", "sampled"), ("random", "random"), ("solver", "solver")):
        for task, rows in (run.read_json(f"{when}.json") or {}).get("tasks", {}).items():
            row = rows[kind]
            rate = f"{when} {row['success']:.1%} ({row['success_low']:.1%} to {row['success_high']:.1%})"
            found.setdefault(task, [f"{row['n']} instances"]).append(rate)
    return [f"  {task}: {', '.join(rates)}" for task, rates in found.items()]


def draw_curves(run: Run) -> Path | None:
    """``curves.png``: success with its evaluations, return, lengths, the health of the optimisation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = run.metrics()
    steps = [row for row in rows if "rollout/success" in row]
    if not steps:
        return None
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), constrained_layout=True)

    def line(axis: Any, name: str, label: str) -> None:
        shown = [r for r in steps if r.get(name) is not None]
        axis.plot([r["step"] for r in shown], [r[name] for r in shown], label=label, alpha=0.8)

    success, reward, length, health = axes.ravel()
    line(success, "rollout/success", "training instances, sampled")
    evaluated = [row for row in rows if "eval/success" in row]
    if evaluated:
        at, middle = [r["step"] for r in evaluated], [r["eval/success"] for r in evaluated]
        low = [max(0.0, m - r["eval/success_low"]) for m, r in zip(middle, evaluated, strict=True)]
        high = [max(0.0, r["eval/success_high"] - m) for m, r in zip(middle, evaluated, strict=True)]
        success.errorbar(at, middle, [low, high], fmt="o-", capsize=3, label="val, sampled (95%)")
        success.plot(at, [r["eval/greedy_success"] for r in evaluated], "s--", label="val, greedy")
        success.axhline(evaluated[0]["eval/random_success"], color="grey", ls=":", label="random policy")
        if "eval/solver_success" in evaluated[0]:
            success.axhline(evaluated[0]["eval/solver_success"], color="black", ls=":", label="solver")
    line(reward, "rollout/return", "return")
    line(length, "rollout/turns", "turns a trajectory")
    line(length, "rollout/reply_tokens", "tokens a reply")
    line(health, "train/entropy", "entropy, nats")
    line(health, "train/grad_norm", "gradient norm")
    line(health, "rollout/format_errors", "format errors")
    for axis, title in ((success, "success"), (reward, "return"), (length, "length"), (health, "health")):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    success.set_ylim(0, 1.02)
    path = run.folder / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def conversation(record: dict[str, Any]) -> str:
    """A trajectory as HTML; replies marked. All of its text is escaped: it is data."""
    parts = [f"<h3>{html.escape(record['outcome'])}, return {record['reward']:+.2f}, seed {record['seed']}</h3><pre>"]
    for turn in record["turns"]:
        parts.append(f"{html.escape(turn['observation'])}\n<b>{html.escape(turn['reply'])}</b>\n")
        parts.append(f"reward {turn['reward']:+.2f}\n\n")
    return "".join(parts) + "</pre>"


def write_report(run: Run) -> None:
    """``curves.png`` and ``report.html`` from what the folder holds."""
    picture = draw_curves(run)
    body = [f"<h1>{html.escape(run.folder.name)}</h1>"]
    table = results(run)
    if table:
        body.append("<table><tr><th>test split<th>success<th>95% interval<th>return<th>turns<th>format errors</tr>")
        for name, r in table.items():
            body.append(
                f"<tr><td>{name}<td>{r['success']:.1%}<td>{r['success_low']:.1%} to {r['success_high']:.1%}"
                f"<td>{r['reward']:+.2f}<td>{r['turns']:.2f}<td>{r['format_errors']:.1%}</tr>"
            )
        body.append("</table>")
    if picture:
        body.append(f'<img alt="curves" src="data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}">')
    files = sorted(
        (run.folder / "trajectories").glob("step-*.jsonl.gz"), key=lambda p: int(p.name[5:].partition(".")[0])
    )
    for path in files[:: max(1, len(files) - 1)][:2]:
        body.append(f"<h2>{html.escape(path.name)}</h2>")
        body += [conversation(record) for record in read_trajectories(path)[:3] if record["turns"]]
    body.append(f"<h2>config</h2><pre>{html.escape((run.folder / 'config.yaml').read_text())}</pre>")
    page = f"<!doctype html><meta charset=utf-8><title>ragen-lite</title><style>{STYLE}</style>{''.join(body)}"
    (run.folder / "report.html").write_text(page, encoding="utf-8")
