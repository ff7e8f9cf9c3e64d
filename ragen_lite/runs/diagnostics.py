"""What a step's trajectories say about how the policy is changing; cheap, and on by default.

Keywords of reflection are those of oat-zero's and understand-r1-zero's analyses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragen_lite.agents.trajectory import Trajectory, Turn

REFLECTION = (
    "recheck",
    "rethink",
    "reassess",
    "reevaluat",
    "re-evaluat",
    "re-examin",
    "reexamin",
    "reconsider",
    "reanalyz",
    "double-check",
    "check again",
    "think again",
    "verify again",
    "try again",
    "go over the steps",
)
GRAM = 4  # tokens that must come again in a row to be a repetition


def returns_by_group(trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """The returns of each group."""
    found: dict[int, list[float]] = {}
    for trajectory in trajectories:
        found.setdefault(trajectory.group, []).append(trajectory.returns)
    return list(found.values())


def spread_within(trajectories: Sequence[Trajectory]) -> float | None:
    """The mean over groups of the sample standard deviation of their returns."""
    spreads = []
    for returns in returns_by_group(trajectories):
        if len(returns) > 1:
            spreads.append(np.std(returns, ddof=1))
    return float(np.mean(spreads)) if spreads else None


def spread_across(trajectories: Sequence[Trajectory]) -> float | None:
    """The sample standard deviation of the groups' mean returns."""
    means = [np.mean(returns) for returns in returns_by_group(trajectories)]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def replies_of(trajectories: Sequence[Trajectory], success: bool) -> list[Turn]:
    """The turns of the trajectories that succeeded, or of those that did not."""
    turns: list[Turn] = []
    for trajectory in trajectories:
        if trajectory.success is success:
            turns += trajectory.turns
    return turns


def _mean_tokens(turns: Sequence[Turn]) -> float | None:
    return float(np.mean([turn.reply_tokens for turn in turns])) if turns else None


def tokens_won(trajectories: Sequence[Trajectory]) -> float | None:
    """Tokens a reply in trajectories that succeeded."""
    return _mean_tokens(replies_of(trajectories, success=True))


def tokens_lost(trajectories: Sequence[Trajectory]) -> float | None:
    """Tokens a reply in trajectories that did not."""
    return _mean_tokens(replies_of(trajectories, success=False))


def readable_failures(trajectories: Sequence[Trajectory]) -> float:
    """The share of trajectories whose every reply was readable, and that failed all the same."""
    count = 0
    for trajectory in trajectories:
        readable = all(turn.unreadable is None for turn in trajectory.turns)
        if readable and trajectory.turns and not trajectory.success:
            count += 1
    return count / max(1, len(trajectories))


def reflection(trajectories: Sequence[Trajectory]) -> float:
    """The share of replies with a keyword of reflection."""
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    count = 0
    for turn in turns:
        text = turn.reply.lower()
        if any(word in text for word in REFLECTION):
            count += 1
    return count / max(1, len(turns))


def repetition(trajectories: Sequence[Trajectory]) -> float:
    """The share of a reply's runs of four tokens that stood in it before, a mean over replies."""
    shares = []
    for trajectory in trajectories:
        for turn in trajectory.turns:
            ids = trajectory.contexts[turn.context].token_ids[turn.start : turn.stop]
            grams = [ids[i : i + GRAM] for i in range(len(ids) - GRAM + 1)]
            if grams:
                shares.append(1 - len(set(grams)) / len(grams))
    return float(np.mean(shares)) if shares else 0.0
