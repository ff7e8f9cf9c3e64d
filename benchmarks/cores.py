"""What a machine's cores bring to a run without a GPU: python -m benchmarks.cores [FLAG=VALUE ...]

Seconds of the default run's iterations (medians; the first of each run is left out), in turns: with
one thread; with all threads in one process, where one plays and all learn; and as it comes, with an
engine a shard. The first two play a step in one shard.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3
STEPS = 8
ONE_PROCESS = ("engine.workers=0", "engine.shard=null")
SETTINGS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "one thread": ({"OMP_NUM_THREADS": "1"}, ONE_PROCESS),
    "one process, all threads": ({}, ONE_PROCESS),
    "as it comes": ({}, ()),
}
PARTS = ("time/rollout_s", "time/update_s", "time/sync_s")


def iterations(name: str, flags: list[str]) -> list[list[float]]:
    """Seconds of a run's sampling, learning and handing over, an iteration a row."""
    environment, own = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        line = [
            "env=sokoban", f"train.steps={STEPS}", "eval.every=0", "eval.instances=2",
            f"run.dir={folder}", *own, *flags,
        ]  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "ragen_lite.train", *line],
            env=os.environ | environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (path,) = Path(folder).glob("*/metrics.jsonl")
        rows = [json.loads(row) for row in path.read_text().splitlines()]
    return [[row[part] for part in PARTS] for row in rows if PARTS[1] in row][1:]


def main(flags: list[str]) -> None:
    found: dict[str, list[list[float]]] = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):
        for name in SETTINGS:
            found[name] += iterations(name, flags)
    base = statistics.median(map(sum, found["one thread"]))
    print(f"{os.cpu_count()} cores, {ROUNDS} runs of {STEPS} iterations each, in turns")
    print("| | sampling | learning | handing over | iteration | speed |\n|---|---|---|---|---|---|")
    for name, rows in found.items():
        parts = " | ".join(f"{statistics.median(part):.2f} s" for part in zip(*rows, strict=True))
        whole = statistics.median(map(sum, rows))
        print(f"| {name} | {parts} | {whole:.2f} s | {base / whole:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
