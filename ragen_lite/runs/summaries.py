"""What episodes add up to: success with its interval, return, regret, lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ragen_lite.agents.trajectory import Episode, Exchange, Outcome
from ragen_lite.envs.registry import short_name
from ragen_lite.runs.statistics import bootstrap, proportion


@dataclass(frozen=True, slots=True)
class Summary:
    """What a policy did in n episodes, each rate and mean with its 95% interval.

    Attributes:
        instances: how many different ones. The intervals take the episodes of one as alike.
        success: share of the episodes, with its Wilson interval.
        returns: mean undiscounted return, with its bootstrap interval.
        regret: mean over the episodes that did not lose the game of what their actions gave away
            against the best, in the task's own unit; None where the task does not say.
        deadlocked: share of the episodes that lost the game; None where the task does not say.
        turns: mean number a trajectory.
        reply_tokens: mean length of a reply; None where no reply has one.
        format_errors: share of the turns whose reply could not be read.
        errors: episodes whose environment failed (a count).
        out_of_tokens: share of the episodes whose next prompt did not fit the context.
    """

    n: int
    instances: int
    success: float
    success_low: float
    success_high: float
    returns: float
    returns_low: float
    returns_high: float
    regret: float | None
    deadlocked: float | None
    turns: float
    reply_tokens: float | None
    format_errors: float
    errors: int
    out_of_tokens: float


# ---- means ----


def keys_of(episodes: Sequence[Episode]) -> list[str]:
    """What tells the episodes' instances apart: the task's name of it, else the seed."""
    return [episode.instance or f"seed {episode.seed}" for episode in episodes]


def all_turns(episodes: Sequence[Episode]) -> list[Exchange]:
    """The turns of all episodes."""
    return [turn for episode in episodes for turn in episode.turns]


def success(episodes: Sequence[Episode]) -> float:
    """Share of the episodes that succeeded; a failed environment counts as no success."""
    return sum(episode.success for episode in episodes) / max(1, len(episodes))


def mean_return(episodes: Sequence[Episode]) -> float:
    """Mean undiscounted return."""
    return float(np.mean([episode.returns for episode in episodes]))


def mean_turns(episodes: Sequence[Episode]) -> float:
    """Mean number of turns."""
    return len(all_turns(episodes)) / max(1, len(episodes))


def mean_reply_tokens(episodes: Sequence[Episode]) -> float | None:
    """Mean length of a reply, in tokens; None where no reply has one."""
    lengths = [turn.reply_tokens for turn in all_turns(episodes) if turn.reply_tokens]
    return float(np.mean(lengths)) if lengths else None


def tokens_sampled(episodes: Sequence[Episode]) -> int:
    """All tokens of all replies."""
    return sum(turn.reply_tokens for turn in all_turns(episodes))


def format_errors(episodes: Sequence[Episode]) -> float:
    """Share of the turns whose reply could not be read."""
    turns = all_turns(episodes)
    return float(np.mean([turn.unreadable is not None for turn in turns])) if turns else 0.0


def errors(episodes: Sequence[Episode]) -> int:
    """Episodes whose environment failed."""
    return sum(episode.outcome is Outcome.ERROR for episode in episodes)


def out_of_tokens(episodes: Sequence[Episode]) -> float:
    """Share of the episodes whose next prompt did not fit the context."""
    cut = sum(episode.outcome is Outcome.OUT_OF_TOKENS for episode in episodes)
    return cut / max(1, len(episodes))


def mean_regret(episodes: Sequence[Episode]) -> tuple[float | None, float | None]:
    """Mean regret of the episodes that did not lose the game, and the share that did.

    Of a mixture neither is known: its tasks count in different units.
    """
    if len(by_task(episodes)) > 1:
        return None, None
    # A lost game has an infinite regret, which no mean can hold: it is counted apart.
    known = [regret for e in episodes if (regret := e.total_regret) is not None]
    finite = [regret for regret in known if math.isfinite(regret)]
    mean = float(np.mean(finite)) if finite else None
    return mean, 1 - len(finite) / len(known) if known else None


def summarise(episodes: Sequence[Episode]) -> Summary:
    """All of it."""
    keys = keys_of(episodes)
    low, high = proportion([episode.success for episode in episodes], keys)
    returns_low, returns_high = bootstrap([episode.returns for episode in episodes], keys)
    regret, deadlocked = mean_regret(episodes)
    return Summary(
        n=len(episodes),
        instances=len(set(keys)),
        success=success(episodes),
        success_low=low,
        success_high=high,
        returns=mean_return(episodes),
        returns_low=returns_low,
        returns_high=returns_high,
        regret=regret,
        deadlocked=deadlocked,
        turns=mean_turns(episodes),
        reply_tokens=mean_reply_tokens(episodes),
        format_errors=format_errors(episodes),
        errors=errors(episodes),
        out_of_tokens=out_of_tokens(episodes),
    )


# ---- mixtures ----


def by_task(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    """The episodes of each task of a mixture, by its label; empty where there is but one task."""
    found: dict[str, list[Episode]] = {}
    for episode in episodes:
        if episode.turns and (label := episode.turns[-1].task) is not None:
            found.setdefault(label, []).append(episode)
    return dict(sorted(found.items()))


def task_of(episode: Episode) -> str:
    """The name of the task that was played; in a mixture its label."""
    label = episode.turns[-1].task if episode.turns else None
    return label or short_name(episode.env_id)


def difficulty_of(episode: Episode) -> float | None:
    """How hard the instance was, in the task's own unit; None where the task does not say."""
    return told_difficulty(episode.turns[-1].info) if episode.turns else None


def told_difficulty(info: Mapping[str, Any]) -> float | None:
    """The difficulty that a task's info tells; None where it tells none."""
    told = info.get("difficulty")
    return float(told) if isinstance(told, (int, float)) else None


def by_difficulty(
    episodes: Sequence[Episode], demonstrated: Mapping[str, float]
) -> dict[str, list[Episode]]:
    """The episodes on instances like the demonstrations (``easy``) and harder than any (``hard``).

    Args:
        episodes: those whose task does not tell a difficulty, or was not demonstrated, are in none.
        demonstrated: the largest difficulty of the demonstrations, by the task's name.
    """
    found: dict[str, list[Episode]] = {}
    for episode in episodes:
        difficulty = difficulty_of(episode)
        most = demonstrated.get(task_of(episode))
        if difficulty is not None and most is not None:
            found.setdefault("hard" if difficulty > most else "easy", []).append(episode)
    # Where nothing is harder, there are no two kinds to tell apart.
    return dict(sorted(found.items())) if "hard" in found else {}


def success_by_part(
    group: str, episodes: Sequence[Episode], demonstrated: Mapping[str, float]
) -> dict[str, float]:
    """Success on each task of a mixture, as ``GROUP/success/TASK``, and by difficulty, as
    ``GROUP/success_easy`` and ``GROUP/success_hard``."""
    tasks = {f"{group}/success/{k}": success(v) for k, v in by_task(episodes).items()}
    kinds = by_difficulty(episodes, demonstrated).items()
    return tasks | {f"{group}/success_{kind}": success(part) for kind, part in kinds}


def reward_by_function(group: str, episodes: Sequence[Episode]) -> dict[str, float]:
    """The mean of each reward function that a task tells of, as ``GROUP/reward/NAME``.

    Where a function could not tell, it counts in no mean.
    """
    found: dict[str, list[float]] = {}
    for turn in all_turns(episodes):
        told = turn.info.get("rewards")
        for name, value in told.items() if isinstance(told, Mapping) else ():
            if isinstance(value, (int, float)):
                found.setdefault(f"{group}/reward/{name}", []).append(float(value))
    return {name: float(np.mean(values)) for name, values in sorted(found.items())}


def as_measurement(
    played: Mapping[str, Sequence[Episode]], demonstrated: Mapping[str, float]
) -> dict[str, Any]:
    """Policies' episodes as JSON.

    ``rows`` are their summaries, ``success`` each episode's, ``instances`` what each episode
    played, ``tasks`` the summaries by task of a mixture, and by difficulty (see ``by_difficulty``).
    """
    found: dict[str, Any] = {"rows": {}, "success": {}, "instances": {}}
    tasks: dict[str, dict[str, Any]] = {}
    for name, episodes in played.items():
        found["rows"][name] = as_json(episodes)
        found["success"][name] = [episode.success for episode in episodes]
        found["instances"][name] = keys_of(episodes)
        parts = by_difficulty(episodes, demonstrated) | by_task(episodes)
        for label, part in parts.items():
            tasks.setdefault(label, {})[name] = as_json(part)
    if tasks:
        found["tasks"] = dict(sorted(tasks.items()))
    return found


def as_json(episodes: Sequence[Episode]) -> dict[str, Any]:
    """The summary of episodes as a JSON object."""
    return asdict(summarise(episodes))
