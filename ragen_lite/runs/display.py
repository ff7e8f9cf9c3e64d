"""What a run shows while it goes: a live panel on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ragen_lite.agents.trajectory import Trajectory
from ragen_lite.config.schema import TrainConfig
from ragen_lite.runs.folder import Run
from ragen_lite.runs.terminal import safe
from ragen_lite.runs.writers import open_writers

BARS = "▁▂▃▄▅▆▇█"
SHOW_EVERY = 25  # steps between sample trajectories
WIDTH = 160  # columns where there is no terminal
PAUSE = 0.2  # seconds between two drawings of a rollout's progress
HEADLINE = (
    ("success", "rollout/success", "{:.1%}"),
    ("return", "rollout/return", "{:+.2f}"),
    ("format errors", "rollout/format_errors", "{:.1%}"),
    ("tokens/s", "rollout/tokens_per_second", "{:,.0f}"),
    ("loss", "train/loss", "{:+.4f}"),
    ("entropy", "train/entropy", "{:.3f}"),
    ("log-prob gap", "train/logprob_gap", "{:.1e}"),
)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last values as a row of bars between 0 and 1."""
    bars = []
    for value in values[-width:]:
        height = int(max(0.0, value) * 8)
        bars.append(BARS[min(7, height)])
    return "".join(bars)


class Display:
    """Progress of a training run. Use it as a context.

    Args:
        run: its folder.
        sizes: how many steps and trajectories there are.
        wandb: the configuration to log to Weights & Biases, or None.
    """

    def __init__(self, run: Run, sizes: TrainConfig, wandb: dict[str, Any] | None = None) -> None:
        self.run = run
        self.steps = sizes.steps
        self.console = Console()
        # In a log file a wide line is better than a wrapped one.
        if not self.console.is_terminal:
            self.console = Console(width=WIDTH)
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        rows = run.metrics()
        self.successes = [row["rollout/success"] for row in rows if "rollout/success" in row]
        self.row: dict[str, float] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console)
        self._steps = self.progress.add_task("steps", total=sizes.steps, completed=run.start)
        total = sizes.groups * sizes.group_size
        self._trajectories = self.progress.add_task("trajectories", total=total)
        self._state = "starting"
        self._writers = open_writers(run.folder, run.start, wandb)
        self._drawn = 0.0

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        self.note(f"run folder: {self.run.folder}")
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        for writer in self._writers:
            writer.close()

    def note(self, text: str) -> None:
        """A line that stays on the screen."""
        self.console.print(safe(text))

    def notes(self, texts: Sequence[str | None]) -> None:
        """Several lines that stay; None is left out."""
        for text in texts:
            if text is not None:
                self.note(text)

    def status(self, text: str) -> None:
        """What is going on now."""
        self._state = text
        if not self.console.is_terminal:
            self.note(text)
        self._refresh()

    def rollout(self, finished: int, tokens: int) -> None:
        """Trajectories finished and tokens sampled in the step under way."""
        # This is called after every token of the batch; drawing as often would cost more than
        # sampling.
        if self.console.is_terminal and time.monotonic() - self._drawn > PAUSE:
            self._state = f"rollout: {tokens:,} tokens"
            self.progress.update(self._trajectories, completed=finished)
            self._refresh()

    def step(self, row: dict[str, Any]) -> None:
        """A step has ended: its metrics."""
        for writer in self._writers:
            writer.write(row)
        if "rollout/success" in row:
            self.successes.append(row["rollout/success"])
        self.row = row
        if "eval/success" in row:
            self.note(_evaluation(row))
        self.progress.update(self._steps, completed=row["step"])
        if not self.console.is_terminal:
            self.note(self._line(row))
        self._refresh()

    def _line(self, row: dict[str, Any]) -> str:
        seconds = row["time/rollout_s"] + row["time/update_s"]
        left = (self.steps - row["step"]) * seconds / 60
        figures = [
            f"{label} {style.format(row[name])}" for label, name, style in HEADLINE if name in row
        ]
        where = f"step {row['step']}/{self.steps}"
        return f"{where}  {'  '.join(figures)}  {seconds:.1f} s, about {left:.0f} min left"

    def show_trajectory(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Now and then, one trajectory in full. Its text is shown as it is, never as markup."""
        if step % SHOW_EVERY != 1:
            return
        t = next((t for t in trajectories if t.turns), None)
        if t is None:
            return
        text = Text()
        for turn in t.turns:
            text.append(safe(turn.observation + "\n"))
            text.append(safe(turn.reply).plain, style="bold green")
            text.append(f"   reward {turn.reward:+.1f}\n", style="dim")
        title = f"step {step}: {t.outcome}, return {t.returns:+.1f}, seed {t.seed}"
        self.console.print(Panel(text, title=title, title_align="left"))

    def finish(self, lines: Sequence[str]) -> None:
        """The result in words, and where to look."""
        self.live.stop()
        self.notes(lines)
        folder = self.run.folder
        self.note(f"curves: {folder / 'curves.png'}   report: {folder / 'report.html'}")

    def _refresh(self) -> None:
        if not self.console.is_terminal:
            return
        self._drawn = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for label, name, style in HEADLINE:
            if name in self.row:
                table.add_row(label, style.format(self.row[name]))
        table.add_row("curve", sparkline(self.successes))
        state = Text(self._state, style="dim")
        panel = Panel(Group(self.progress, table, state), title=safe(str(self.run.folder)))
        self.live.update(panel)


def _evaluation(row: dict[str, Any]) -> str:
    """An evaluation during training, beside the random policy and the solver."""
    solver = ""
    if "eval/solver_success" in row:
        solver = f", solver {row['eval/solver_success']:.1%}"
    return (
        f"val after step {row['step']}: sampled {row['eval/success']:.1%} "
        f"(95% {row['eval/success_low']:.1%} to {row['eval/success_high']:.1%}), "
        f"greedy {row['eval/greedy_success']:.1%}, random policy "
        f"{row['eval/random_success']:.1%}{solver}"
    )
