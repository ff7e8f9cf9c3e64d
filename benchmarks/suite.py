"""Every task at a glance: its budgets, optimal cost, random policy, solver, and the embedded model
before and after RL.

python -m benchmarks.suite                        # one run after the other: an hour and more
python -m benchmarks.suite --tasks hanoi rubik    # some of them
python -m benchmarks.suite --jobs 2               # two side by side, one thread each

Each task's row is a run of about five minutes on two cores, or less: the default one, ``python -m
ragen_lite.train env=NAME``, where the task has one turn, half of its steps where it has several.
Finished runs in --folder are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.instances import OURS
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.envs.registry import find, short_name
from ragen_lite.runs.evaluation import FIRST_SEED
from ragen_lite.runs.report import gained

LONG = {"game_2048": 20}  # steps where a game takes longest


def run(name: str, folder: Path, threads: int) -> Path:
    """The folder of a task's finished run, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"*-{name}/report.html")):
        line = [
            sys.executable,
            "-m",
            "ragen_lite.train",
            f"env={name}",
            f"run.dir={folder}",
            f"run.name={name}",
        ]
        if EnvSpec(find(name)).make().max_turns > 1:
            line += [f"train.steps={LONG.get(name, 40)}"]
        with (folder / f"{name}.log").open("w") as out:
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            subprocess.run(line, stdout=out, stderr=subprocess.STDOUT, check=True, env=environment)
    return max(folder.glob(f"*-{name}/report.html")).parent


def optimal_cost(spec: EnvSpec, instances: int) -> str:
    """The median optimal cost of the test instances, in actions, where the task tells it."""
    env = spec.make()
    seeds = range(FIRST_SEED, FIRST_SEED + instances)
    told = [
        env.reset(seed=seed, options={"split": "test"})[1].get("optimal_cost") for seed in seeds
    ]
    known = [cost for cost in told if cost is not None]
    return f"{np.median(known):g}" if known else "-"


def success(made: Path, when: str, kind: str) -> str:
    """Success with its interval, as a run measured it on the test split."""
    row: dict[str, Any] = json.loads((made / f"{when}.json").read_text())["rows"][kind]
    return f"{row['success']:.1%} ({row['success_low']:.1%} to {row['success_high']:.1%})"


def gain(made: Path, kind: str) -> str:
    """What a run gained on the same instances, with its paired bootstrap interval."""
    before, after = (
        json.loads((made / f"{when}.json").read_text()) for when in ("before", "after")
    )
    mean, low, high = gained(before, after, kind)
    return f"{mean:+.1%} ({low:+.1%} to {high:+.1%})"


def minutes(made: Path) -> float:
    """Wall time of a run, its measurements included."""
    return ((made / "report.html").stat().st_mtime - (made / "config.yaml").stat().st_mtime) / 60


def main() -> None:
    names = [short_name(env_id) for env_id in OURS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=names, choices=names, metavar="TASK")
    parser.add_argument("--folder", type=Path, default=Path("runs/suite"))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        made = dict(
            zip(
                options.tasks,
                pool.map(partial(run, folder=options.folder, threads=threads), options.tasks),
                strict=True,
            )
        )
    head = "| env | turns x actions | optimal cost, median | random policy | solver | tiny | tiny after RL | gain | minutes |"
    print(f"Sampled, on 256 instances of the test split\n\n{head}\n|{'---|' * 9}")
    for env_id in (env_id for env_id in OURS if short_name(env_id) in made):
        spec = EnvSpec(env_id)
        name = short_name(env_id)
        env: Any = spec.make()
        chance = " *" if getattr(env.unwrapped, "stochastic", False) else ""
        cells = [success(made[name], *at) for at in (("random", "random"), ("solver", "solver"))]
        cells += [success(made[name], when, "sampled") for when in ("before", "after")]
        print(
            f"| {name}{chance} | {env.max_turns} x {env.max_actions_per_turn} | {optimal_cost(spec, 256)} | "
            f"{' | '.join(cells)} | {gain(made[name], 'sampled')} | {minutes(made[name]):.1f} |"
        )
    print(
        "\n* chance goes on after the start, so no policy always wins; 2048's solver is a good plan, not the best."
    )
    print(
        "\nGreedy, on the same instances\n\n| env | tiny | tiny after RL | gain |\n|---|---|---|---|"
    )
    for name, folder in sorted(made.items()):
        cells = [success(folder, when, "greedy") for when in ("before", "after")]
        print(f"| {name} | {' | '.join(cells)} | {gain(folder, 'greedy')} |")


if __name__ == "__main__":
    main()
