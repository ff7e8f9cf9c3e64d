"""Whether two commits compute the same: three steps of training on each, compared bit for bit.

python -m benchmarks.equivalence --before REV         # REV against the working tree
python -m benchmarks.equivalence --before REV --envs sokoban --steps 5

Each side plays ``python -m ragen_lite.train env=NAME`` with one thread, in a copy of its own tree.
Compared by value: token ids, loss mask, log-probs, rewards, advantages and texts of every
trajectory; every metric but times and rates; the measurements on the test split; and the tensors of
the checkpoint. Names that were changed in between are listed in the maps below.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
ENVS = ("sokoban", "countdown", "mix")

# Old name -> new name, where they differ.
RECORD = {"reward": "returns"}
CONTEXT = {
    "token_ids": "token_ids",
    "sampled": "loss_mask",
    "logprobs": "behaviour_logprobs",
    "advantages": "advantages",
}
TURN_INFO = ("actions", "unreadable", "regret", "deadlock", "task")  # out of info, into the turn
SUMMARY = {
    "reward": "returns",
    "reward_low": "returns_low",
    "reward_high": "returns_high",
}
CLOCK = ("time/", "rollout/tokens_per_second")  # metrics that no two runs share


def play(tree: Path, env: str, steps: int, out: Path) -> Path:
    """A run of ``tree``; returns its folder."""
    arguments = [f"env={env}", f"train.steps={steps}", "eval.instances=24", "eval.every=2"]
    line = [sys.executable, "-m", "ragen_lite.train", *arguments, f"run.dir={out}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    result = subprocess.run(line, cwd=tree, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{tree}: env={env} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    (folder,) = out.iterdir()
    return folder


def checkout(revision: str, folder: Path) -> Path:
    """The tree of a revision, in a folder of its own."""
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


# ---- old records in new names ----


def renamed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with today's names; one that has them already is left as it is."""
    if "contexts" in record:
        return record
    context = {new: record.pop(old) for old, new in CONTEXT.items()}
    turns = []
    for turn in record.pop("turns"):
        info = turn.pop("info")
        typed = {name: info.pop(name, None) for name in TURN_INFO}
        turns.append({**turn, **typed, "context": 0, "info": info})
    rest = {RECORD.get(name, name): value for name, value in record.items()}
    return {**rest, "turns": turns, "contexts": [context]}


def comparable(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn without what follows from its other fields."""
    return {name: value for name, value in turn.items() if name != "reply_tokens"}


def records(path: Path) -> list[dict[str, Any]]:
    """The trajectories of a step."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        found = [renamed(json.loads(line)) for line in lines]
    for record in found:
        record["turns"] = [comparable(turn) for turn in record["turns"]]
    return found


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without times and rates."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if not name.startswith(CLOCK)} for row in rows
    ]


def measurement(path: Path) -> Any:
    """A measurement on the test split."""

    def renew(value: Any) -> Any:
        if isinstance(value, dict):
            return {SUMMARY.get(name, name): renew(inner) for name, inner in value.items()}
        return value

    return renew(json.loads(path.read_text()))


# ---- comparing ----


def differences(before: Path, after: Path, steps: int) -> tuple[list[str], dict[str, int]]:
    """What differs between two runs, and how much of each kind was compared."""
    wrong = []
    counts = {"trajectories": 0, "tokens": 0, "metrics": 0, "measurements": 0, "tensors": 0}
    for step in range(1, steps + 1):
        name = f"trajectories/step-{step}.jsonl.gz"
        old = records(before / name)
        new = records(after / name)
        counts["trajectories"] += len(new)
        counts["tokens"] += sum(len(c["token_ids"]) for r in new for c in r["contexts"])
        if len(old) != len(new):
            wrong.append(f"{name}: {len(old)} trajectories, then {len(new)}")
        for place, (first, second) in enumerate(zip(old, new, strict=False)):
            fields = [f for f in first.keys() | second.keys() if first.get(f) != second.get(f)]
            wrong += [f"{name}: trajectory {place}: {field}" for field in sorted(fields)]
    for old, new in zip(metrics(before), metrics(after), strict=True):
        counts["metrics"] += len(new)
        names = [n for n in old.keys() | new.keys() if old.get(n) != new.get(n)]
        wrong += [f"step {new['step']}: {n}: {old.get(n)}, then {new.get(n)}" for n in names]
    for path in sorted(before.glob("*.json")):
        counts["measurements"] += 1
        if measurement(path) != measurement(after / path.name):
            wrong.append(path.name)
    checkpoint = f"checkpoints/step-{steps}"
    for name in ("model.safetensors", "trainer/optimizer.safetensors"):
        old = load_file(before / checkpoint / name)
        new = load_file(after / checkpoint / name)
        counts["tensors"] += len(new)
        names = old.keys() | new.keys()
        same = {n for n in old.keys() & new.keys() if old[n].tobytes() == new[n].tobytes()}
        wrong += [f"{name}: {tensor}" for tensor in sorted(names - same)]
    return wrong, counts


def main() -> None:
    """Play both sides, env by env, and say what differs; exits with 1 where anything does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", required=True, help="a revision of git")
    parser.add_argument("--envs", nargs="+", default=ENVS)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tree").mkdir()
        old_tree = checkout(options.before, Path(folder) / "tree")
        for env in options.envs:
            before = play(old_tree, env, options.steps, Path(folder) / f"before-{env}")
            after = play(ROOT, env, options.steps, Path(folder) / f"after-{env}")
            wrong, counts = differences(before, after, options.steps)
            compared = ", ".join(f"{count} {what}" for what, count in counts.items())
            print(f"{env}: {len(wrong)} differences among {compared}", flush=True)
            for line in wrong[:20]:
                print(f"  {line}")
            failed = failed or bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
