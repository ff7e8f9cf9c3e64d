"""curves.png and report.html of a run: files to look at, no service, no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragen_lite.runs.curves import draw_curves
from ragen_lite.runs.folder import Run, read_trajectories
from ragen_lite.runs.statistics import bootstrap, mcnemar

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}table{border-collapse:collapse}td,th{padding:.2rem .8rem;"
    "border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}"
    "pre{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}"
    "pre b{background:#d9f2d9;font-weight:normal}img{max-width:100%}"
)
SAMPLED = (
    ("before", "sampled"),
    ("after", "sampled"),
    ("control", "sampled"),
    ("random", "random"),
    ("solver", "solver"),
)
ROWS = tuple(
    (when, kind) for when in ("before", "after", "control") for kind in ("sampled", "greedy")
)

TIMES = {
    "sampling": "time/rollout_s",
    "learning": "time/update_s",
    "handing over weights": "time/sync_s",
    "evaluation": "time/eval_s",
}


def results(run: Run) -> dict[str, dict[str, Any]]:
    """The measurements on the test split: row name -> summary."""
    files = [(f"{when}, {kind}", when, kind) for when, kind in ROWS]
    files.append(("random policy", "random", "random"))
    files.append(("solver", "solver", "solver"))
    found = {}
    for name, when, kind in files:
        data = run.read_json(f"{when}.json")
        if data is not None:
            found[name] = _renamed(data["rows"][kind])
    return found


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    """A summary in today's names; version 0.1 had ``reward`` for ``returns``."""
    return {key.replace("reward", "returns"): value for key, value in row.items()}


def result_lines(run: Run, evaluating: float = 0.0) -> list[str]:
    """The result in words, every rate with its 95% interval, and where the time went.

    ``evaluating`` are seconds of evaluation that are not in the run's metrics.
    """
    lines = []
    for name, row in results(run).items():
        success = row["success"]
        low = row["success_low"]
        high = row["success_high"]
        interval = f"95% {low:.1%} to {high:.1%}"
        lines.append(
            f"{name:>16}: success {success:.1%} ({interval}), "
            f"return {row['returns']:+.2f}, {_counts(row)}"
        )
    lines += control_lines(run)
    gains = gain_lines(run, "before", "gain") + gain_lines(run, "control", "gain over the control")
    return [*lines, *gains, *task_lines(run), time_line(run, evaluating)]


def time_line(run: Run, evaluating: float) -> str:
    """Where the run's seconds went.

    ``evaluating`` are seconds of evaluation that are not in its metrics.
    """
    rows = run.metrics()
    spent = {name: sum(row.get(key) or 0.0 for row in rows) for name, key in TIMES.items()}
    spent["evaluation"] += evaluating
    told = [f"{name} {seconds:,.0f} s" for name, seconds in spent.items()]
    return f"time: {', '.join(told)}"


def control_lines(run: Run) -> list[str]:
    """Where the control's rows come from."""
    told = run.read_json("control.json")
    if told is None:
        return []
    return [f"control: more supervision on as many tokens in place of RL, by {told['command']}"]


def _counts(row: dict[str, Any]) -> str:
    """What a rate is of; runs of earlier versions did not tell instances from episodes."""
    instances = row.get("instances", row["n"])
    if instances == row["n"]:
        return f"{row['n']} test instances"
    return f"{row['n']} episodes of {instances} test instances"


def gain_lines(run: Run, other: str, label: str) -> list[str]:
    """What training gained over another measurement, instance by instance."""
    before = run.read_json(f"{other}.json")
    after = run.read_json("after.json")
    lines = []
    for kind in ("sampled", "greedy") if before and after else ():
        old = before["success"][kind]
        new = after["success"][kind]
        if len(old) != len(new):
            continue  # eval.instances was changed in between: not the same instances
        gain, low, high = gained(before, after, kind)
        p = mcnemar(new, old, _instances(after, kind))[2]
        lines.append(
            f"{kind} {label}: {gain:+.1%} (95% {low:+.1%} to {high:+.1%}), McNemar p = {p:.2g}"
        )
    return lines


def gained(
    before: Mapping[str, Any], after: Mapping[str, Any], kind: str
) -> tuple[float, float, float]:
    """Success after less success before, of the same starts, and its 95% interval.

    Both are measurements of ``kind`` "sampled" or "greedy"; episodes of one instance are drawn
    together.
    """
    pairs = zip(before["success"][kind], after["success"][kind], strict=True)
    gains = [float(new) - float(old) for old, new in pairs]
    low, high = bootstrap(gains, _instances(after, kind))
    return sum(gains) / len(gains), low, high


def _instances(measured: Mapping[str, Any], kind: str) -> Sequence[str] | None:
    """The instance of each episode; runs of earlier versions have none."""
    found: Sequence[str] | None = measured.get("instances", {}).get(kind)
    return found


def task_lines(run: Run) -> list[str]:
    """Of a mixture: the success on each task, sampled, beside the random policy and the solver."""
    found: dict[str, list[str]] = {}
    for when, kind in SAMPLED:
        measured = run.read_json(f"{when}.json") or {}
        tasks = measured.get("tasks", {})
        for task, rows in tasks.items():
            row = rows[kind]
            low = row["success_low"]
            high = row["success_high"]
            rate = f"{when} {row['success']:.1%} ({low:.1%} to {high:.1%})"
            told = found.setdefault(task, [f"{row['n']} instances"])
            told.append(rate)
    return [f"  {task}: {', '.join(rates)}" for task, rates in found.items()]


def conversation(record: dict[str, Any]) -> str:
    """A trajectory as HTML; replies marked. All of its text is escaped: it is data."""
    title = f"{record['outcome']}, return {record['returns']:+.2f}, seed {record['seed']}"
    parts = [f"<h3>{html.escape(title)}</h3><pre>"]
    for turn in record["turns"]:
        message = html.escape(turn["observation"])
        reply = html.escape(turn["reply"])
        parts.append(f"{message}\n<b>{reply}</b>\n")
        parts.append(f"reward {turn['reward']:+.2f}\n\n")
    return "".join(parts) + "</pre>"


def write_report(run: Run) -> None:
    """``curves.png`` and ``report.html`` from what the folder holds."""
    picture = draw_curves(run.metrics(), run.folder / "curves.png")
    body = [f"<h1>{html.escape(run.folder.name)}</h1>", *_table(results(run))]
    body += [f"<p>{html.escape(line)}</p>" for line in control_lines(run)]
    if picture:
        data = base64.b64encode(picture.read_bytes()).decode()
        body.append(f'<img alt="curves" src="data:image/png;base64,{data}">')
    for path in _first_and_last(run):
        body.append(f"<h2>{html.escape(path.name)}</h2>")
        body += [conversation(record) for record in read_trajectories(path)[:3] if record["turns"]]
    config = (run.folder / "config.yaml").read_text()
    body.append(f"<h2>config</h2><pre>{html.escape(config)}</pre>")
    # All texts are escaped above; the page has no script.
    head = f"<meta charset=utf-8><title>ragen-lite</title><style>{STYLE}</style>"
    page = f"<!doctype html>{head}{''.join(body)}"
    (run.folder / "report.html").write_text(page, encoding="utf-8")


def _table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The measurements on the test split as HTML; nothing where there are none."""
    if not rows:
        return []
    columns = ("test split", "success", "95% interval", "return", "turns", "format errors")
    heads = [f"<th>{column}" for column in columns]
    lines = [f"<table><tr>{''.join(heads)}</tr>"]
    for name, row in rows.items():
        cells = (
            name,
            f"{row['success']:.1%}",
            f"{row['success_low']:.1%} to {row['success_high']:.1%}",
            f"{row['returns']:+.2f}",
            f"{row['turns']:.2f}",
            f"{row['format_errors']:.1%}",
        )
        shown = [f"<td>{cell}" for cell in cells]
        lines.append(f"<tr>{''.join(shown)}</tr>")
    return [*lines, "</table>"]


def _first_and_last(run: Run) -> list[Path]:
    """The trajectories of the first and of the last step."""
    files = (run.folder / "trajectories").glob("step-*.jsonl.gz")
    ordered = sorted(files, key=lambda path: int(path.name[5:].partition(".")[0]))
    return ordered[:: max(1, len(ordered) - 1)][:2]
