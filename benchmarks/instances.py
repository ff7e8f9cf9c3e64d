"""10,000 instances of every task: solved within their budgets, no instance in two splits, the same
bytes everywhere.

python benchmarks/instances.py [--count 10000] [--write]
python benchmarks/instances.py --new                        # make golden: after a task was added

Each task draws COUNT train and COUNT test instances by seed; its solver plays them through the
conversation, budgets and all. The hash of what the seeds gave is held against
tests/envs/golden.json, which --write writes anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import ragen_lite
from ragen_lite.agents.scripted import solver_policy
from ragen_lite.envs.dialogue import Dialogue

GOLDEN = Path(__file__).parent.parent / "tests" / "envs" / "golden.json"
# The adapters' instances are other people's, and change with their versions.
OURS = sorted(env_id for env_id, where in ragen_lite.TASKS.items() if ".adapters." not in where)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{env_id.partition("/")[2].partition("-v")[0]: (env_id, {}) for env_id in OURS},
    "Sudoku 9x9": ("ragen_lite/Sudoku-v0", {"size": 9}),
    "FrozenLake slippery": ("ragen_lite/FrozenLake-v0", {"slippery": True}),
    "KnightsKnaves 3 to 8": ("ragen_lite/KnightsKnaves-v0", {"min_people": 3, "max_people": 8}),
    "Countdown 3 to 6": ("ragen_lite/Countdown-v0", {"max_numbers": 6}),
}


def instances(name: str, split: str, count: int) -> list[str]:
    """What seeds 0 to ``count`` - 1 give: the instance and the first message."""
    env_id, kwargs = VARIANTS[name]
    env = Dialogue(gym.make(env_id, disable_env_checker=True, **kwargs))
    found = []
    for seed in range(count):
        message, _ = env.reset(seed=seed, options={"split": split})
        found.append(f"{getattr(env.unwrapped, 'instance', '')}\n{message}")
    return found


def digest(texts: list[str]) -> str:
    """A hash of the texts, the same on every platform."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def solved(name: str, split: str, count: int) -> float:
    """The solver's success on seeds 0 to ``count`` - 1, played through the conversation."""
    env_id, kwargs = VARIANTS[name]
    env = Dialogue(gym.make(env_id, disable_env_checker=True, **kwargs))
    rng = np.random.default_rng(0)
    wins = 0
    for seed in range(count):
        env.reset(seed=seed, options={"split": split, "member": 0})
        over = False
        info = {}
        while not over:
            _, _, terminated, truncated, info = env.step(solver_policy(env, rng))
            over = terminated or truncated
        wins += bool(info["success"])
    return wins / count


def write_new(golden: dict[str, dict[str, str]]) -> None:
    """Write the hashes of the tasks that have none, of 100 instances each."""
    for name in VARIANTS:
        if name not in golden:
            golden[name] = {"100": digest(instances(name, "train", 100))}
            print(f"{name}: {golden[name]['100']}")
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--new", action="store_true", help="only hash tasks that have no hash yet")
    given = parser.parse_args()
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if given.new:
        write_new(golden)
        return
    print(
        f"| {given.count:,} instances a split | different, train / test | in both | solved, train / test | same bytes | seconds |"
    )
    print("|---|---|---|---|---|---|")
    for name in VARIANTS:
        began = time.perf_counter()
        train, test = (instances(name, split, given.count) for split in ("train", "test"))
        found = digest(train)
        known = golden.setdefault(name, {})
        if given.write:
            known |= {"100": digest(train[:100]), str(given.count): found}
        same = {None: "unknown", found: "yes"}.get(known.get(str(given.count)), "NO")
        solver = " / ".join(
            f"{solved(name, split, given.count):.2%}" for split in ("train", "test")
        )
        chance = (
            " (chance)"
            if getattr(
                gym.make(VARIANTS[name][0], **VARIANTS[name][1]).unwrapped, "stochastic", False
            )
            else ""
        )
        print(
            f"| {name} | {len(set(train)):,} / {len(set(test)):,} | {len(set(train) & set(test))} | {solver}{chance} "
            f"| {same} | {time.perf_counter() - began:.0f} |",
            flush=True,
        )
    if given.write:
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
