"""python -m ragen_lite.ablate: the same training with one flag changed, over several seeds.

``python -m ragen_lite.ablate env=sokoban algo=grpo,rloo seed=0,1,2 jobs=2`` trains every
combination, each in a process of its own, and prints one table. What is finished stays: the same
command goes on.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ragen_lite.agents.errors import UserError
from ragen_lite.config.checks import LONGEST_NAME
from ragen_lite.config.command_line import compose, reporting_errors
from ragen_lite.config.overrides import refuse_unused, rewrite_all, split_argument
from ragen_lite.config.schema import ConfigError
from ragen_lite.config.values import WEIGHTS
from ragen_lite.learning.generation import check_correction, resolve
from ragen_lite.runs.ablation import Cell, write_results
from ragen_lite.runs.folder import changed_settings, run_slug, runs_of

HELP = """Train with each value of a flag, over several seeds, and compare what they learn.

python -m ragen_lite.ablate KEY=VALUE ... FLAG=A,B,... seed=0,1,2 [jobs=2]

Every key of train can be given; one with several values, separated by commas, is swept. Runs that
differ in one flag are compared, with the flag's first value, paired by seed and test instance. With
several flags every combination is trained, and the flag that is named last is the one compared.
jobs=N trains N runs at once, each on its share of the cores. Folders, logs, ablation.md,
ablation.json and ablation.png are in run.dir (runs/ablation unless told). Finished runs are kept:
to go on after an interruption, or with more seeds, give the command again."""


# Keys that change where and how fast a run is made, and not what it learns.
SAME_RESULT = ("run.", "engine.slots", "engine.options", "train.microbatch_tokens")


class RunsFailed(UserError, RuntimeError):
    """Some runs of a sweep failed; the others are in the table."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an ablation trains: its cells, each with every seed, ``jobs`` at once."""

    cells: list[Cell]
    seeds: list[str]
    fixed: list[str]
    folder: Path
    jobs: int


def values_of(argument: str) -> list[str]:
    """The values of ``key=a,b``, as they were typed; commas in brackets and quotes divide nothing.

    >>> values_of("algo=grpo,rloo"), values_of("train.stages=[{from: 2, groups: 3}]")
    (['grpo', 'rloo'], ['[{from: 2, groups: 3}]'])
    """
    value = argument.partition("=")[2]
    if WEIGHTS.fullmatch(value):  # of a mixture: name:2,other:1
        return [value]
    parts = [""]
    depth = 0
    quote = ""
    for char in value:
        if quote or char in "'\"":
            quote = "" if char == quote else quote or char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def plan(arguments: Sequence[str]) -> Plan:
    """What the command line asks for. Raises ConfigError."""
    fixed = []
    swept: dict[str, list[str]] = {}
    told = {"seed": ["0"], "jobs": ["1"], "run.dir": ["runs/ablation"]}
    for argument in arguments:
        if split_argument(argument) is None:
            raise ConfigError(f"{argument}: give KEY=VALUE, or --help")
        key = argument.partition("=")[0]
        values = values_of(argument)
        if key in told:
            told[key] = values
        elif key in ("run.name", "run.resume"):
            raise ConfigError(f"{key} is the sweep's own: leave it out")
        elif len(values) > 1:
            swept[key] = values
        else:
            fixed.append(argument)
    if not swept:
        raise ConfigError("nothing to compare: give a flag several values, such as algo=grpo,rloo")
    for key, values in [*swept.items(), ("seed", told["seed"])]:
        if len(set(values)) < len(values):
            raise ConfigError(f"{key}={','.join(values)}: a value comes twice")
    jobs = ",".join(told["jobs"])
    if not jobs.isdigit() or not int(jobs):
        raise ConfigError(f"jobs={jobs}: give the number of runs at once, from 1")
    folder = ",".join(told["run.dir"])
    cells = [
        Cell(dict(zip(swept, values, strict=True))) for values in itertools.product(*swept.values())
    ]
    names = {cell.name(seed) for cell in cells for seed in told["seed"]}
    if len(names) < len(cells) * len(told["seed"]):
        raise ConfigError(
            "two runs would have the same name: names keep letters, digits, points and the last "
            f"{LONGEST_NAME} characters, such as {min(names)}"
        )
    return Plan(cells, told["seed"], fixed, Path(folder).expanduser(), int(jobs))


def line_of(plan: Plan, cell: Cell, seed: str) -> list[str]:
    """The command line of one run."""
    flags = [f"{key}={value}" for key, value in cell.flags.items()]
    own = [f"seed={seed}", f"run.name={cell.name(seed)}", f"run.dir={plan.folder}"]
    return [*plan.fixed, *flags, *own, "run.resume=auto"]


def check_runs(plan: Plan) -> None:
    """See that every run can be, and that those that are there differ in their flag alone.

    Raises ConfigError.
    """
    for cell, seed in itertools.product(plan.cells, plan.seeds):
        line = line_of(plan, cell, seed)
        refuse_unused("train", rewrite_all(line))
        config = compose(line)
        # A finished run has written down which engine it took.
        engine = resolve(config.engine, config.model.dtype)
        check_correction(config.correction.name, engine, config.train.staleness)
        config.engine = engine.config
        slug = run_slug(config.env.id, "train", config.run.name)
        cell.slugs[seed] = slug
        for folder in runs_of(plan.folder, slug)[-1:]:
            # A run of other settings must not stand in the table beside those of these.
            changed = changed_settings(folder, asdict(config), SAME_RESULT)
            if changed:
                raise ConfigError(
                    f"{folder} differs in more than the flag: {', '.join(changed)}; give another "
                    "run.dir, or the old values"
                )


def train_all(plan: Plan) -> list[str]:
    """Train what is not finished, seed by seed; returns the names of the runs that failed."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    waiting = []
    for seed, cell in itertools.product(plan.seeds, plan.cells):
        if cell.measured(plan.folder, seed) is None:
            waiting.append((cell, seed))
    total = len(waiting)
    done = len(plan.cells) * len(plan.seeds) - total
    print(f"{done} runs are finished, {total} are to be trained, {plan.jobs} at once", flush=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed = []
    # A scheduler's end is as one at the keyboard: the jobs must not stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and len(running) < plan.jobs:
                cell, seed = waiting.pop(0)
                running[cell.name(seed)] = start(plan, cell, seed)
            time.sleep(0.5)
            for name in [name for name, job in running.items() if job.poll() is not None]:
                code = running.pop(name).returncode
                if code:
                    failed.append(name)
                left = len(waiting) + len(running)
                how = f"failed with {code}: {plan.folder / name}.log" if code else "finished"
                print(f"{total - left}/{total}  {name} {how}", flush=True)
    finally:
        # Each saves its finished steps, and the next call goes on from them.
        for job in running.values():
            job.terminate()
        for job in running.values():
            job.wait()
    return failed


def start(plan: Plan, cell: Cell, seed: str) -> subprocess.Popen[bytes]:
    """Begin one run in a process of its own, its output in a file beside its folder."""
    threads = max(1, (os.cpu_count() or 1) // plan.jobs)
    line = [sys.executable, "-m", "ragen_lite.train", *line_of(plan, cell, seed)]
    with (plan.folder / f"{cell.name(seed)}.log").open("ab") as log:
        return subprocess.Popen(
            line,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A Ctrl-C is for this process, which then asks each job to end, once.
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )


def main(arguments: Sequence[str]) -> None:
    """Train, then print the table. Raises UserError."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(HELP)
        return
    chosen = plan(arguments)
    check_runs(chosen)
    failed = train_all(chosen)
    print(write_results(chosen.folder, chosen.cells, chosen.seeds))
    if failed:
        raise RunsFailed(f"{len(failed)} runs failed: {', '.join(failed)}; their logs say why")


if __name__ == "__main__":
    reporting_errors(lambda: main(sys.argv[1:]))
