"""What a step's trajectories say about how the policy is changing; cheap, and on by default.

Keywords of reflection are those of oat-zero's and understand-r1-zero's analyses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragen_lite.agents.trajectory import Trajectory, group_by_instance
from ragen_lite.algorithms.filters import spread_of
from ragen_lite.runs.summaries import all_turns, mean_reply_tokens, mean_return

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


def spread_within(trajectories: Sequence[Trajectory]) -> float | None:
    """The mean over groups of the sample standard deviation of their returns."""
    groups = group_by_instance(trajectories)
    spreads = [spread_of(group) for group in groups if len(group.trajectories) > 1]
    return float(np.mean(spreads)) if spreads else None


def spread_across(trajectories: Sequence[Trajectory]) -> float | None:
    """The sample standard deviation of the groups' mean returns."""
    groups = group_by_instance(trajectories)
    means = [mean_return(group.trajectories) for group in groups]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def tokens_won(trajectories: Sequence[Trajectory]) -> float | None:
    """Tokens a reply in trajectories that succeeded."""
    return mean_reply_tokens([t for t in trajectories if t.success])


def tokens_lost(trajectories: Sequence[Trajectory]) -> float | None:
    """Tokens a reply in trajectories that did not."""
    return mean_reply_tokens([t for t in trajectories if not t.success])


def readable_failures(trajectories: Sequence[Trajectory]) -> float:
    """The share of trajectories whose every reply was readable, and that failed all the same."""
    count = 0
    for trajectory in trajectories:
        readable = all(turn.unreadable is None for turn in trajectory.turns)
        if readable and trajectory.turns and not trajectory.success:
            count += 1
    return count / max(1, len(trajectories))


def cut_replies(trajectories: Sequence[Trajectory]) -> float:
    """The share of replies that were ended by their length."""
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    return sum(turn.cut for turn in turns) / max(1, len(turns))


def reflection(trajectories: Sequence[Trajectory]) -> float:
    """The share of replies with a keyword of reflection."""
    turns = all_turns(trajectories)
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
