"""The default run over several seeds: success before and after on the test split, and how long it
took.

python benchmarks/sokoban_learning.py --seeds 0 1 2 python benchmarks/sokoban_learning.py --seeds 0
--folder runs/nomask loss.turn_mask=false python benchmarks/sokoban_learning.py --seeds 0 1 2
--folder runs/vllm --beside runs/learning engine=vllm
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np


def run(seed: int, folder: Path, overrides: list[str]) -> tuple[Path, float]:
    """One training run; its folder and its wall time in seconds, from its folder being made to its
    last file."""
    line = [
        sys.executable,
        "-m",
        "ragen_lite.train",
        "env=sokoban",
        f"seed={seed}",
        f"run.dir={folder}",
        *overrides,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"*-seed{seed}/report.html")):  # finished ones are kept
        with (folder / f"seed-{seed}.log").open("w") as out:
            subprocess.run(
                [*line, f"run.name=seed{seed}"], stdout=out, stderr=subprocess.STDOUT, check=True
            )
    made = max(folder.glob(f"*-seed{seed}"))
    return made, (made / "report.html").stat().st_mtime - (made / "config.yaml").stat().st_mtime


BLOCK = 10  # steps that a point of a curve is the mean of


def curves(folder: Path) -> np.ndarray:
    """Success of the rollouts by seed and block of steps, (seeds, blocks)."""
    found = []
    for report in sorted(folder.glob("*-seed*/report.html")):  # of finished runs
        rows = [
            json.loads(line) for line in report.with_name("metrics.jsonl").read_text().splitlines()
        ]
        success = [row["rollout/success"] for row in rows if "rollout/success" in row]
        found.append(np.array(success[: len(success) // BLOCK * BLOCK]).reshape(-1, BLOCK).mean(1))
    return np.array(found)


def beside(folder: Path, other: Path) -> None:
    """Print the learning curve of one folder's runs beside the spread of another's."""
    ours = curves(folder)
    theirs = curves(other)
    print(
        f"\n| steps | {folder.name}: {len(ours)} seeds, mean (range) | {other.name}: {len(theirs)} seeds, range | |"
    )
    print("|---|---|---|---|")
    for block, (a, b) in enumerate(zip(ours.T, theirs.T, strict=True)):
        inside = "inside" if b.min() <= a.mean() <= b.max() else "outside"
        print(
            f"| {block * BLOCK + 1} to {(block + 1) * BLOCK} | {a.mean():.1%} ({a.min():.1%} to {a.max():.1%}) | "
            f"{b.min():.1%} to {b.max():.1%} | {inside} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/learning"))
    parser.add_argument(
        "--beside", type=Path, help="finished runs whose learning curves are the measure"
    )
    parser.add_argument("overrides", nargs="*", help="key=value for the training command")
    options = parser.parse_args()
    print("| seed | | before | after | wall time |\n|---|---|---|---|---|")
    before: dict[str, list[float]] = {"sampled": [], "greedy": []}
    after: dict[str, list[float]] = {"sampled": [], "greedy": []}
    gaps: list[float] = []
    for seed in options.seeds:
        folder, seconds = run(seed, options.folder, options.overrides)
        rows = {
            when: json.loads((folder / f"{when}.json").read_text())["rows"]
            for when in ("before", "after", "random", "solver")
        }
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        gaps += [row["train/logprob_gap"] for row in metrics if "train/logprob_gap" in row]
        for kind in ("sampled", "greedy"):
            a = rows["before"][kind]
            b = rows["after"][kind]
            after[kind].append(b["success"])
            before[kind].append(a["success"])
            cells = [
                f"{r['success']:.1%} ({r['success_low']:.1%} to {r['success_high']:.1%})"
                for r in (a, b)
            ]
            print(
                f"| {seed} | {kind} | {cells[0]} | {cells[1]} | {seconds / 60:.1f} min |",
                flush=True,
            )
    for kind in ("sampled", "greedy"):
        cells = [
            f"{sum(v) / len(v):.1%} (range {min(v):.1%} to {max(v):.1%})"
            for v in (before[kind], after[kind])
        ]
        print(f"| mean | {kind} | {cells[0]} | {cells[1]} | |")
    for name in ("random", "solver"):
        r = rows[name][name]
        print(
            f"| | {name} policy | {r['success']:.1%} ({r['success_low']:.1%} to {r['success_high']:.1%}) | | |"
        )
    print(
        f"\nLargest difference between the engine's and the learner's log-prob among a step's tokens: median over "
        f"{len(gaps)} steps {sorted(gaps)[len(gaps) // 2]:.1e}, worst {max(gaps):.1e} (float32)."
    )
    if options.beside:
        beside(options.folder, options.beside)


if __name__ == "__main__":
    main()
