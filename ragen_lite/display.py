"""What a run shows while it goes: a live panel on a terminal, one line a step elsewhere; TensorBoard and W&B."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ragen_lite.agents.trajectory import Trajectory
from ragen_lite.config import Config, ConfigError
from ragen_lite.run import Run

BARS = "▁▂▃▄▅▆▇█"
SHOW_EVERY = 25  # steps between sample trajectories
HEADLINE = (
    ("success", "rollout/success", "{:.1%}"),
    ("return", "rollout/return", "{:+.2f}"),
    ("format errors", "rollout/format_errors", "{:.1%}"),
    ("tokens/s", "rollout/tokens_per_second", "{:,.0f}"),
    ("loss", "train/loss", "{:+.4f}"),
    ("entropy", "train/entropy", "{:.3f}"),
    ("log-prob gap", "train/logprob_gap", "{:.1e}"),
)


CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def safe(text: str) -> Text:
    """A model's or an environment's text as it is: no markup, and no control sequence reaches the terminal."""
    return Text(text.translate(CONTROL))


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last values as a row of bars between 0 and 1."""
    return "".join(BARS[min(7, int(max(0.0, v) * 8))] for v in values[-width:])


class Display:
    """Progress of a training run. Use it as a context; ``note`` prints a line that stays."""

    def __init__(self, config: Config, run: Run) -> None:
        self.config, self.run = config, run
        self.console = Console()
        if not self.console.is_terminal:
            self.console = Console(width=160)
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.successes = [row["rollout/success"] for row in run.metrics() if "rollout/success" in row]
        self.rows: dict[str, float] = {}
        self.total = config.train.groups * config.train.group_size
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console)
        self._steps = self.progress.add_task("steps", total=config.train.steps, completed=run.start)
        self._trajectories = self.progress.add_task("trajectories", total=self.total)
        self._state = "starting"
        self._writers = self._open_writers()
        self._shown = 0.0

    def _open_writers(self) -> list[Any]:
        from torch.utils.tensorboard import SummaryWriter

        others: list[Any] = []
        if self.config.run.wandb:
            # Not only whether it imports: the folder wandb/ that it leaves behind imports too, as an empty namespace.
            found = importlib.util.find_spec("wandb")
            if found is None or found.origin is None:
                raise ConfigError("run.wandb=true needs: pip install wandb")
            import wandb

            wandb.init(project="ragen-lite", name=self.run.folder.name, config=asdict(self.config))
            others.append(wandb)
        # Last, since it begins to write at once: nothing can fail behind it.
        return [SummaryWriter(str(self.run.folder / "tensorboard"), purge_step=self.run.start + 1), *others]

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        self.note(f"run folder: {self.run.folder}")
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        for writer in self._writers:
            (writer.close if hasattr(writer, "close") else writer.finish)()

    def note(self, text: str) -> None:
        """A line that stays on the screen."""
        self.console.print(safe(text))

    def status(self, text: str) -> None:
        """What is going on now."""
        self._state = text
        if not self.console.is_terminal:
            self.note(text)
        self._refresh()

    def rollout(self, finished: int, tokens: int) -> None:
        """Trajectories finished and tokens sampled in the step under way."""
        if self.console.is_terminal and time.monotonic() - self._shown > 0.2:
            self._state = f"rollout: {tokens:,} tokens"
            self.progress.update(self._trajectories, completed=finished)
            self._refresh()

    def step(self, row: dict[str, Any]) -> None:
        """A step has ended: its metrics."""
        for writer in self._writers:
            if hasattr(writer, "add_scalar"):
                for name, value in row.items():
                    if name != "step":
                        writer.add_scalar(name, value, row["step"])
            else:
                writer.log(row)
        if "rollout/success" in row:
            self.successes.append(row["rollout/success"])
        self.rows = row
        if "eval/success" in row:
            solver = f", solver {row['eval/solver_success']:.1%}" if "eval/solver_success" in row else ""
            self.note(
                f"val after step {row['step']}: sampled {row['eval/success']:.1%} (95% {row['eval/success_low']:.1%} "
                f"to {row['eval/success_high']:.1%}), greedy {row['eval/greedy_success']:.1%}, random policy "
                f"{row['eval/random_success']:.1%}{solver}"
            )
        self.progress.update(self._steps, completed=row["step"])
        if not self.console.is_terminal:
            self.note(self._line(row))
        self._refresh()

    def _line(self, row: dict[str, Any]) -> str:
        seconds = row["time/rollout_s"] + row["time/update_s"]
        left = (self.config.train.steps - row["step"]) * seconds / 60
        shown = [f"{label} {style.format(row[name])}" for label, name, style in HEADLINE if name in row]
        where = f"step {row['step']}/{self.config.train.steps}"
        return f"{where}  {'  '.join(shown)}  {seconds:.1f} s, about {left:.0f} min left"

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
        title = f"step {step}: {t.outcome}, return {t.reward:+.1f}, seed {t.seed}"
        self.console.print(Panel(text, title=title, title_align="left"))

    def finish(self) -> None:
        """The result: before and after, the random policy and the solver on the same test instances."""
        from ragen_lite.report import result_lines

        self.live.stop()
        for line in result_lines(self.run):
            self.note(line)
        self.note(f"curves: {self.run.folder / 'curves.png'}   report: {self.run.folder / 'report.html'}")

    def _refresh(self) -> None:
        if not self.console.is_terminal:
            return
        self._shown = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for label, name, style in HEADLINE:
            if name in self.rows:
                table.add_row(label, style.format(self.rows[name]))
        table.add_row("curve", sparkline(self.successes))
        self.live.update(
            Panel(Group(self.progress, table, Text(self._state, style="dim")), title=safe(str(self.run.folder)))
        )
