"""What the credit is given: the step's groups, with rewards that count what training charges.

The trajectories themselves, and so the run's records, keep what the environment gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ragen_lite.agents.trajectory import Group, Trajectory
from ragen_lite.algorithms.advantages import Array
from ragen_lite.algorithms.overlong import Overlong
from ragen_lite.learning.protocol import Learning
from ragen_lite.learning.samples import blanks, placed


def kl_costs(groups: Sequence[Group], learner: Learning, coef: float) -> list[Array] | None:
    """What each sampled token costs by the KL in the reward, one array a context; None where it is
    free."""
    if not coef:
        return None
    samples = blanks(groups)
    gaps = learner.reference_gap([sample for sample in samples if sample.trained])
    return placed(samples, [coef * gap for gap in gaps])


def shaped(
    groups: Sequence[Group],
    overlong: Overlong,
    max_tokens: int,
    costs: Sequence[Array] | None = None,
) -> list[Group]:
    """The groups with the rewards that count.

    Args:
        groups: of one step.
        overlong: what replies that are cut, or nearly, earn.
        max_tokens: the longest reply.
        costs: of each sampled token, one array a context; a turn is charged the sum of its own.
    """
    given = iter(costs or [])
    result = []
    for group in groups:
        members = []
        for trajectory in group.trajectories:
            own = [next(given) for _ in trajectory.contexts] if costs else None
            members.append(_charged(trajectory, overlong.rewards(trajectory, max_tokens), own))
        result.append(Group(tuple(members)))
    return result


def _charged(
    trajectory: Trajectory, rewards: Sequence[float], costs: Sequence[Array] | None
) -> Trajectory:
    turns = []
    for turn, reward in zip(trajectory.turns, rewards, strict=True):
        cost = 0.0
        if costs is not None:
            cost = float(costs[turn.context][turn.start : turn.stop].sum())
        turns.append(replace(turn, reward=reward - cost))
    return replace(trajectory, turns=tuple(turns))
