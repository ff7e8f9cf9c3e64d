"""What is said of a step's trajectories that are not as they should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ragen_lite.agents.episodes import error_summary
from ragen_lite.agents.trajectory import Outcome, Trajectory
from ragen_lite.config.schema import ConfigError
from ragen_lite.learning.credit import Credited


def of_rollout(trajectories: Sequence[Trajectory]) -> Iterator[str]:
    """Environments that failed, and groups whose members did not begin alike."""
    failures = error_summary(trajectories)
    if failures:
        yield f"failed environments: {failures}"
    group = different_starts(trajectories)
    if group is not None:
        yield (
            f"the members of group {group} saw different first messages: the environment draws "
            "from something else than the seed that reset gets, so returns within a group cannot "
            "be compared; let it draw from self.np_random"
        )


def different_starts(trajectories: Sequence[Trajectory]) -> int | None:
    """The number of a group whose members saw different first messages, if there is one."""
    first: dict[int, str] = {}
    for trajectory in trajectories:
        if trajectory.turns:
            seen = trajectory.turns[0].observation
            if first.setdefault(trajectory.group, seen) != seen:
                return trajectory.group
    return None


def refuse_failures(env_id: str, step: int, trajectories: Sequence[Trajectory]) -> None:
    """Raise ConfigError where every environment of a step failed."""
    if all(trajectory.outcome is Outcome.ERROR for trajectory in trajectories):
        failures = error_summary(trajectories)
        raise ConfigError(f"every environment of {env_id} failed in step {step}: {failures}")


def why_nothing_learnt(filter_name: str, credited: Sequence[Credited]) -> str:
    """Why a step teaches nothing."""
    if any(c.kept for c in credited):
        return "no reply has a token to train on, so nothing is learnt from it"
    acted = [turn for c in credited for turn in c.trajectory.turns if turn.actions]
    hint = ""
    if not acted:
        hint = "; no reply was readable, so take a model that knows the format, or teach it by sft"
    elif not any("success" in turn.info for turn in acted):
        hint = "; the task's info never has a 'success', so take filter=spread"
    return f"filter={filter_name} kept no group, so nothing is learnt from it{hint}"
