"""Success by difficulty, a line a model, and what one way on gains on each other: the table of ``benchmarks.generalise``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.runs.evaluation import play_scripted
from ragen_lite.runs.statistics import bootstrap, proportion

KINDS = ("sampled", "greedy")

Wins = dict[str, list[float]]  # each episode's success, by kind


def rate(wins: Sequence[float], instances: Sequence[str]) -> str:
    """A share with its 95% Wilson interval; episodes of one instance are alike."""
    low, high = proportion(wins, instances)
    return f"{np.mean(wins):.1%} ({low:.1%} to {high:.1%})"


def gain(
    first: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    instances: Sequence[str],
) -> str:
    """How much more the first way wins, over all seeds, paired by instance."""
    gains = np.array(first) - np.array(other)
    low, high = bootstrap(gains.ravel().tolist(), list(instances) * len(gains))
    return f"{gains.mean():+.1%} ({low:+.1%} to {high:+.1%})"


def table(
    task: str,
    specs: Mapping[str, EnvSpec],
    instances: int,
    found: Mapping[str, Sequence[Mapping[str, Wins]]],
) -> list[str]:
    """A line a model, its success by difficulty; and what ``rl`` gains on each other way.

    Args:
        task: by its short name.
        specs: the task at each difficulty.
        instances: of each difficulty, which the scripted policies play.
        found: the models' success by difficulty, a seed an entry, by the way that made them; of
            ``base`` there is one.
    """
    columns = [(d, k) for d in specs for k in KINDS]
    lines = [f"| {task} | seed | {' | '.join(f'{d}, {k}' for d, k in columns)} |"]
    lines.append("|---" * 6 + "|")
    instance: dict[str, list[str]] = {}  # of each episode, by difficulty
    for name in ("random", "solver"):
        cells = []
        for d, spec in specs.items():
            played = play_scripted(spec, name, "test", instances)
            instance[d] = [episode.instance for episode in played]
            # It plays alike however replies are drawn.
            cells += [rate([float(episode.success) for episode in played], instance[d]), ""]
        lines.append(f"| {name} | | {' | '.join(cells)} |")
    for name, models in found.items():
        for seed, model in enumerate(models):
            cells = [rate(model[d][k], instance[d]) for d, k in columns]
            lines.append(f"| {name} | {seed if name != 'base' else ''} | {' | '.join(cells)} |")
    rl = found["rl"]
    for name, models in found.items():
        if name != "rl":
            others = list(models) * (len(rl) if name == "base" else 1)
            cells = [
                gain([m[d][k] for m in rl], [m[d][k] for m in others], instance[d])
                for d, k in columns
            ]
            lines.append(f"| rl against {name}, paired | all | {' | '.join(cells)} |")
    different = ", ".join(f"{len(set(met))} {d}" for d, met in instance.items())
    return [
        *lines,
        "",
        f"Of {instances} draws of each difficulty, different instances: {different}",
    ]
