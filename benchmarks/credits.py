"""Credits judged by the solver on one set of trajectories: who blames the turns that the solver blames?

python -m benchmarks.credits [--env sokoban frozen_lake hanoi] [--groups 64] [--size 8]

The embedded model plays groups of the train split, once a task. Every credit is given to the very same trajectories, and held
against the oracle, turn by turn: the share of turns with the same sign (turns that either calls 0 are left out), and Spearman's
rank correlation. Intervals are 95%, by a bootstrap over groups. No training, and nothing is tuned here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Group, Sampling, Start, group_by_instance
from ragen_lite.algorithms.advantages import Advantage
from ragen_lite.algorithms.batch_credit import NoCredit
from ragen_lite.algorithms.tables import ADVANTAGES
from ragen_lite.algorithms.turn_credit import Oracle
from ragen_lite.config.schema import ModelConfig
from ragen_lite.envs.names import resolve
from ragen_lite.envs.registry import find
from ragen_lite.envs.splits import task_seed
from ragen_lite.models.loading import Policy, load_policy

Array = NDArray[np.float64]
DRAWS = 1000


def play(policy: Policy, env: str, groups: int, size: int) -> list[Group]:
    """The embedded model's trajectories on instances of the train split."""
    engine = TorchEngine(EngineSetup(policy.model, policy.chat.stop_ids, policy.max_model_len))
    rollout = Rollout(engine, policy.chat, EnvSpec(find(env)), 0)
    starts = [Start(task_seed(0, 1, g), "train", g, m) for g in range(groups) for m in range(size)]
    played = group_by_instance(rollout.play(starts, Sampling(1.0, 48)))
    rollout.close()
    return played


def by_turn(groups: Sequence[Group], credit: Advantage) -> list[Array]:
    """Of each group, the advantage of every turn of its trajectories, at the turn's last token."""
    arrays = iter(credit(groups))
    found = []
    for group in groups:
        values = []
        for trajectory in group.trajectories:
            contexts = [next(arrays) for _ in trajectory.contexts]
            values += [contexts[turn.context][turn.stop - 1] for turn in trajectory.turns]
        found.append(np.array(values))
    return found


def ranks(values: Array) -> Array:
    """Ranks from 0, equal values sharing their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Array = (ends - counts + ends - 1) / 2
    return means[places]


def spearman(first: Array, second: Array) -> float:
    """Spearman's rank correlation; 0 where either is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    a, b = ranks(first), ranks(second)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0


def same_sign(first: Array, second: Array) -> float:
    """The share of turns with the same sign, of those that both have one for."""
    told = (first != 0) & (second != 0)
    return float((np.sign(first[told]) == np.sign(second[told])).mean()) if told.any() else 0.0


def with_interval(
    measure: Callable[[Array, Array], float], first: Sequence[Array], second: Sequence[Array]
) -> str:
    """A measure over all turns, with its interval by a bootstrap over groups."""
    value = measure(np.concatenate(first), np.concatenate(second))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        picks = rng.integers(len(first), size=len(first))
        drawn.append(
            measure(
                np.concatenate([first[i] for i in picks]),
                np.concatenate([second[i] for i in picks]),
            )
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", nargs="+", default=["sokoban", "frozen_lake", "hanoi"])
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--size", type=int, default=8)
    given = parser.parse_args()
    policy = load_policy(ModelConfig())
    print(
        "| env | credit | turns with a credit | same sign as the oracle | rank correlation |\n|---|---|---|---|---|"
    )
    for env in given.env:
        groups = play(policy, env, given.groups, given.size)
        judge = by_turn(groups, Oracle(normalize=False))
        for name in ADVANTAGES:
            # The judge itself, and those that read a critic, which nobody has trained here.
            if name == "oracle" or getattr(resolve(ADVANTAGES[name]), "needs_values", False):
                continue
            try:
                values = by_turn(groups, resolve(ADVANTAGES[name])())
            except NoCredit as error:
                print(f"| {env} | {name} | {str(error).partition(': ')[2].partition(',')[0]} | | |")
                continue
            told = np.mean(np.concatenate(values) != 0)
            signs = with_interval(same_sign, values, judge)
            print(
                f"| {env} | {name} | {told:.1%} | {signs} | {with_interval(spearman, values, judge)} |",
                flush=True,
            )
        turns = sum(len(values) for values in judge)
        wins = np.mean([t.success for group in groups for t in group.trajectories])
        print(
            f"\n{env}: {len(groups)} groups of {given.size}, {turns:,} turns, success {wins:.1%}\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
