"""Logic-RL's own evaluation: knights and knaves by the number of people, and with a puzzle's statements re-ordered or changed.

python -m benchmarks.logic_rl [--model tiny] [--data FOLDER] [--people 3 4 5 6 7] [--trained 2 3] [--instances 100] [depth=3 ...]

Every model plays the same held-out puzzles: as they are, with the people speaking in another order, with one statement replaced,
and with one leaf of a statement changed, so that another solution is right. Puzzles of the train split stand beside them, which a
model that was trained on this task may have seen. ``--trained`` says with which numbers of people it was; the others are unseen
numbers. ``--data`` takes Logic-RL's published files by the reader that recipe=logic_rl uses; flags are options of the task, such
as template=logic_rl.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Episode, Outcome, Sampling
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.envs.answers.knights_knaves.published import load_puzzles
from ragen_lite.envs.splits import SPLITS
from ragen_lite.learning import generation
from ragen_lite.learning.players import LocalPlayer
from ragen_lite.models.loading import Policy, load_policy
from ragen_lite.runs.evaluation import Evaluator, play_scripted
from ragen_lite.runs.statistics import proportion
from ragen_lite.runs.summaries import keys_of

# Name of a column: split, and the change.
COLUMNS: dict[str, tuple[str, str | None]] = {
    "seen puzzles": ("train", None),
    "new puzzles": ("test", None),
    "re-ordered": ("test", "order"),
    "statement": ("test", "statement"),
    "leaf": ("test", "leaf"),
}


def spec_of(people: int, change: str | None, options: dict[str, Any]) -> EnvSpec:
    """The task with puzzles of one size."""
    kwargs = {"min_people": people, "max_people": people, "perturb": change, **options}
    return EnvSpec("ragen_lite/KnightsKnaves-v0", kwargs)


def read_puzzles(data: str) -> str:
    """How many published puzzles could be read, and how many golds earn Logic-RL's full 3."""
    puzzles = load_puzzles(data)
    tested = len(puzzles["test"])
    options = {"data": data, "template": "logic_rl", "min_people": 2, "max_people": 8}
    spec = EnvSpec("ragen_lite/KnightsKnaves-v0", options)
    golds = play_scripted(spec, "solver", "test", tested)
    full = sum(episode.returns == 3.0 for episode in golds)
    parts = ", ".join(f"{len(puzzles[split])} {split}" for split in SPLITS)
    return f"{data}: {len(puzzles['all'])} different puzzles ({parts}); {full} of {tested} test golds earn 3"


def play(
    policy: Policy, spec: EnvSpec, split: str, instances: int, sampling: Sampling
) -> list[Episode]:
    """The policy's sampled episodes on a split's puzzles."""
    engine, sync = generation.start_engine(
        generation.resolve(EngineConfig()).config, policy, sampling.temperature
    )
    player = LocalPlayer(Rollout(engine, policy.chat, spec, 0), sync)
    try:
        return Evaluator(player, sampling).play(split, instances, sampling.temperature)
    finally:
        player.close()


def cell(episodes: Sequence[Episode]) -> str:
    """Success with its interval, in per cent; a dash where the split has no such puzzle."""
    # Two people's puzzles are few, and none may be left that a change makes another of.
    played = [episode for episode in episodes if episode.outcome is not Outcome.ERROR]
    if not played:
        return "-"
    wins = [episode.success for episode in played]
    low, high = proportion(wins, keys_of(played))
    return f"{100 * sum(wins) / len(wins):.0f} ({100 * low:.0f} to {100 * high:.0f})"


def row(people: int, trained: Sequence[int], cells: Sequence[str]) -> str:
    """A row of the table."""
    known = "trained" if people in trained else "unseen"
    return f"| {people} | {known} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data")
    parser.add_argument("--people", nargs="+", type=int, default=[3, 4, 5, 6, 7])
    parser.add_argument("--trained", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--json", type=Path)
    parser.add_argument("flags", nargs="*")
    args = parser.parse_intermixed_args()
    if wrong := [flag for flag in args.flags if "=" not in flag]:
        parser.error(f"{wrong[0]}: options of the task are written NAME=VALUE")
    options: dict[str, Any] = {}
    for flag in args.flags:
        name, _, value = flag.partition("=")
        options[name] = yaml.safe_load(value)
    if args.data:
        options["data"] = args.data
        print(read_puzzles(args.data))
    policy = load_policy(ModelConfig(args.model))
    sampling = Sampling(args.temperature, args.max_tokens)
    print(
        f"success in per cent with its 95% interval; {args.model}, {args.instances} puzzles a cell, sampled at {args.temperature}"
    )
    heads = ["people", "number", *COLUMNS, "random policy", "solver"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    found: dict[str, Any] = {}
    for people in args.people:
        cells = []
        for name, (split, change) in COLUMNS.items():
            episodes = play(
                policy, spec_of(people, change, options), split, args.instances, sampling
            )
            found[f"{people} {name}"] = [
                episode.success for episode in episodes if episode.outcome is not Outcome.ERROR
            ]
            cells.append(cell(episodes))
        for name in ("random", "solver"):
            cells.append(
                cell(play_scripted(spec_of(people, None, options), name, "test", args.instances))
            )
        print(row(people, args.trained, cells), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
