"""A whole iteration, rollout, scoring and update, against TRL's GRPOTrainer on the same tokens.

python -m benchmarks.trl_iteration                              # one turn and five; 1 and 4 steps
python -m benchmarks.trl_iteration --turns 5 --pairs 3 --micro-batch 16

Both sides train the embedded model by GRPO on 16 instances x 8 replies, on a CPU, in float32, with
one thread, AdamW, no KL and one pass over the batch. Ours is ``train_step`` and ``finish_step`` as
``ragen_lite.train`` calls them; theirs is ``GRPOTrainer.train`` with its own ``generate``. Both run
in this process and take turns; what is measured is the CPU time of the process.

What is forced: every reply is 32 tokens, drawn beforehand: a thought of random words, an ending
that earns more for every other member of a group, and the end token. Each side computes
all its logits and draws; ours replaces what the engine drew, TRL's LogitsProcessor leaves it the
one token to draw. With one turn the task is countdown; with five it is Sokoban with
rooms that need six actions or more, which no reply of one action can end earlier. The run checks
that all tokens of all trajectories are the same on both sides, prompts and observations included.

TRL's turns go through its ``environment_factory``: the very environment of ours is a tool. The
tiny model's chat template knows no tools, so the tokenizer gets one that renders a tool's message
as a user's (the same tokens as ours), and a response template that takes a whole reply for one
call of the tool.

What is not equal, and for whom it is:

- Ours writes the trajectories and the metrics to disk and checks that the engine has the learner's
  weights, in every iteration; TRL logs and saves nothing. For TRL.
- With one turn TRL's instances are rows of a data set, and their environments are reset before the
  clock starts; ours resets within it. For TRL.
- Ours feeds a prompt that members share once, keeps the cache from turn to turn, and has the
  log-probs of the replies from sampling; TRL reads the prompts of all rows, the whole history at
  each turn, and, where an iteration makes more steps than one, scores the batch once more. That is
  how the two work, and much of what is measured.
- The order of rows in a micro-batch and its size are each side's own: ours 16,384 tokens, TRL's
  --micro-batch rows, of 8 to 128 about the best by default.
- Replies of one length leave nothing idle in ``generate``, where the shortest replies of a real
  batch wait for the longest; and ours keeps the groups that its default filter drops. For TRL.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from benchmarks.trl_side import (
    GROUPS,
    LR,
    MEMBERS,
    ROWS,
    TASKS,
    TOKENS,
    Case,
    Meter,
    Replies,
    Side,
    Theirs,
    library,
    replies_of,
)
from ragen_lite.config.command_line import compose
from ragen_lite.train import Trainer, finish_step, open_trainer, train_step

HEADER = f"""TRL {{version}} and ours, in turns, one thread, float32, CPU time of the process; {GROUPS} instances x {MEMBERS} replies.
Forced: the {TOKENS} tokens of each reply; all tokens of all trajectories are checked to be the same on both sides.
Not equal: ours writes trajectories and metrics and checks the engine's weights, TRL writes nothing; with one turn
TRL's environments are reset outside of its time; TRL's passes have {{rows}} rows at most, ours 16,384 tokens; TRL scores
the batch once more where an iteration makes several steps, ours has the log-probs from sampling."""

# ---- ours ----


class Forced:
    """The engine's draw, whose tokens are replaced by those of the replies."""

    def __init__(self, engine: Any, replies: Replies) -> None:
        self.draw = engine._draw
        self.replies = replies
        self.begun: dict[int, int] = {}

    def __call__(self, logits: Tensor, rows: Sequence[Any]) -> tuple[list[int], list[float]]:
        drawn: tuple[list[int], list[float]] = self.draw(logits, rows)
        # The canary's own rows have numbers below 0 and stay as they are.
        if rows[0].id < 0:
            return drawn
        forced = [self._next(row) for row in rows]
        at = torch.tensor(forced)[:, None]
        return forced, logits.log_softmax(-1).gather(-1, at)[:, 0].tolist()

    def _next(self, row: Any) -> int:
        if not row.reply:
            self.begun[row.id] = self.begun.get(row.id, -1) + 1
        turn = self.begun[row.id] % len(self.replies)
        return int(self.replies[turn, row.id, len(row.reply)])


class Ours:
    """Our side: a trainer as ``ragen_lite.train`` opens it."""

    def __init__(self, trainer: Trainer, replies: Replies) -> None:
        self.trainer = trainer
        player: Any = trainer.session.player
        engine = player.rollout.engine._engine
        engine._draw = Forced(engine, replies)
        self.sampling = Meter(trainer.collector, "collect")
        self.learning = Meter(trainer.session.learner, "step")
        self.side = Side()

    def iterate(self, step: int) -> None:
        """One iteration, as ``train`` makes it."""
        began = time.process_time()
        finish_step(self.trainer, step, train_step(self.trainer, step))
        whole = time.process_time() - began
        rollout, update = self.sampling.take(), self.learning.take()
        self.side.whole.append(whole)
        rest = whole - rollout - update
        self.side.parts.append({"rollout": rollout, "update": update, "rest": rest})

    def tokens(self) -> list[list[int]]:
        """Of each trajectory of the last iteration, prompts and observations included."""
        played = self.sampling.last.trajectories
        return [list(trajectory.contexts[0].token_ids) for trajectory in played]


@contextlib.contextmanager
def open_ours(case: Case, folder: str) -> Iterator[Trainer]:
    """A trainer for a case; all of the configuration but what is named here is the default's."""
    arguments = [
        f"env={case.task.name}",
        "engine=torch",
        "engine.shard=null",  # all at once, as TRL generates
        "model.dtype=float32",
        "filter=none",
        "algo=grpo",
        "instances=as_drawn",  # TRL is told them all before
        f"train.groups={GROUPS}",
        f"train.group_size={MEMBERS}",
        f"train.mini_batches={case.steps}",
        f"train.lr={LR}",
        f"train.steps={case.pairs + 2}",
        f"sample.max_tokens={TOKENS}",
        "eval.every=0",
        "run.save_every=1000",
        f"run.dir={folder}",
        *(f"{name}={value}" for name, value in case.task.options.items()),
    ]
    with open_trainer(compose(arguments)) as trainer:
        yield trainer


# ---- both, taking turns ----


class Alternation(TrainerCallback):  # type: ignore[misc]
    """Stops TRL's clock after each of its iterations, and has ours make one."""

    def __init__(self, case: Case, ours: Ours, theirs: Theirs) -> None:
        self.case = case
        self.ours = ours
        self.theirs = theirs
        self.begin(0)

    def begin(self, iteration: int) -> None:
        """Start TRL's clock."""
        self.theirs.prepare(iteration)
        self.began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        iteration, within = divmod(state.global_step, self.case.steps)
        if within:
            return
        self.theirs.note(time.process_time() - self.began)
        self.ours.iterate(iteration)
        if self.ours.tokens() != self.theirs.tokens():
            raise SystemExit(f"iteration {iteration}: the two sides do not have the same tokens")
        self.begin(iteration % (self.case.pairs + 1))


def compare(case: Case) -> tuple[Side, Side, int]:
    """Run a case; returns our side, TRL's, and the tokens of an iteration. The first pair warms up."""
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, quiet, open_ours(case, folder) as trainer:
        replies = replies_of(trainer.session.policy, case.turns)
        plan = trainer.collector.plan
        steps = range(1, case.pairs + 2)
        seeds = [start.seed for step in steps for start in plan.starts(step)[::MEMBERS]]
        ours = Ours(trainer, replies)
        theirs = Theirs(case, seeds, replies, folder)
        theirs.trainer.add_callback(Alternation(case, ours, theirs))
        theirs.trainer.train()
        return ours.side, theirs.side, sum(map(len, ours.tokens()))


def median_part(side: Side, name: str) -> str:
    """A part's median seconds, the first pair left out."""
    known = [parts[name] for parts in side.parts[1:] if name in parts]
    return f"{statistics.median(known):.2f} s" if known else "in the others"


def show(case: Case, ours: Side, theirs: Side, tokens: int) -> None:
    """Print a case."""
    sampled = ROWS * case.turns * TOKENS
    print(f"\n{case.task.name}, turns: {case.turns}, optimiser steps: {case.steps};", end=" ")
    print(f"{sampled:,} tokens sampled, {tokens:,} with prompts\n")
    print("| pair | TRL, CPU s | ours, CPU s | TRL / ours |\n|---|---|---|---|")
    ratios = []
    for pair in range(1, case.pairs + 1):
        ratio = theirs.whole[pair] / ours.whole[pair]
        print(f"| {pair} | {theirs.whole[pair]:.2f} | {ours.whole[pair]:.2f} | {ratio:.2f} |")
        ratios.append(ratio)
    a, b = (statistics.median(side.whole[1:]) for side in (theirs, ours))
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"| median | {a:.2f} | {b:.2f} | **{statistics.median(ratios):.2f}** {spread} |")
    print("\n| median of | TRL | ours |\n|---|---|---|")
    for name in ("rollout", "scoring", "update", "rest"):
        print(f"| {name} | {median_part(theirs, name)} | {median_part(ours, name)} |", flush=True)


def main() -> None:
    """Print every case, below what is to be known of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", nargs="+", type=int, default=[1, 5], choices=TASKS)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--optimiser-steps", nargs="+", type=int, default=[1, 4], choices=(1, 2, 4))
    parser.add_argument("--micro-batch", type=int, default=32, help="rows of TRL's passes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    print(HEADER.format(version=library().__version__, rows=options.micro_batch))
    for turns in options.turns:
        for steps in options.optimiser_steps:
            case = Case(turns, steps, options.pairs, options.micro_batch)
            show(case, *compare(case))


if __name__ == "__main__":
    main()
