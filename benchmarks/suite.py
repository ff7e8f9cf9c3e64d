"""Every task at a glance: its budgets, the optimal cost, the random policy and the solver with their intervals.

python -m benchmarks.suite [--instances 512]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.instances import OURS
from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.evaluate import FIRST_SEED, scripted
from ragen_lite.summary import Summary, summarise


def optimal_cost(spec: EnvSpec, instances: int) -> str:
    """The median optimal cost of the test instances, in actions, where the task tells it."""
    env = spec.make()
    seeds = range(FIRST_SEED, FIRST_SEED + instances)
    told = [env.reset(seed=seed, options={"split": "test"})[1].get("optimal_cost") for seed in seeds]
    known = [cost for cost in told if cost is not None]
    return f"{np.median(known):g}" if known else "-"


def success(summary: Summary) -> str:
    """Success with its interval."""
    return f"{summary.success:.1%} ({summary.success_low:.1%} to {summary.success_high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=512)
    n = parser.parse_args().instances
    print(f"{n} instances of the test split; success with its 95% Wilson interval\n")
    print(
        "| env | turns x actions | optimal cost, median | random policy | solver | regret of random |\n|---|---|---|---|---|---|"
    )
    for env_id in OURS:
        spec = EnvSpec(env_id)
        env: Any = spec.make()
        rows = {name: summarise(scripted(spec, name, "test", n)) for name in ("random", "solver")}
        chance = " *" if getattr(env.unwrapped, "stochastic", False) else ""
        regret = rows["random"].regret
        print(
            f"| {env_id.partition('/')[2].partition('-v')[0]}{chance} | {env.max_turns} x {env.max_actions_per_turn} "
            f"| {optimal_cost(spec, n)} | {success(rows['random'])} | {success(rows['solver'])} "
            f"| {'-' if regret is None else f'{regret:.2f}'} |",
            flush=True,
        )
    print("\n* chance goes on after the start, so no policy always wins; 2048's solver is a good plan, not the best.")


if __name__ == "__main__":
    main()
