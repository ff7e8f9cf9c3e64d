"""How a scripted policy plays an episode."""

from __future__ import annotations

from collections.abc import Sequence

from ragen_lite.agents.answer import EnvFailure, exchange_fields, outcome_of
from ragen_lite.agents.environments import Handle
from ragen_lite.agents.scripted import ScriptedPolicy
from ragen_lite.agents.trajectory import Episode, Exchange, Outcome, Start, end_episode


def play_episode(
    env: Handle,
    env_id: str,
    policy: ScriptedPolicy,
    start: Start,
    until_deadlock: bool = False,
) -> Episode:
    """One episode of a scripted policy.

    With ``until_deadlock`` it is cut where the task says that it is lost: nobody should learn how
    to go on.
    """
    turns: list[Exchange] = []
    system = ""
    instance = ""

    def finish(outcome: Outcome, error: str | None = None) -> Episode:
        return end_episode(env_id, start, system, turns, outcome, error, instance)

    try:
        env.reset(start.seed, start.options)
        answer = env.take()
        system = answer.system
        instance = answer.instance
        while True:
            observation = answer.observation
            env.act(policy)
            answer = env.take()
            turns.append(Exchange(**exchange_fields(observation, answer, 0)))
            if answer.over or (until_deadlock and answer.deadlock):
                return finish(outcome_of(answer))
    except EnvFailure as failure:
        return finish(Outcome.ERROR, str(failure))


def error_summary(episodes: Sequence[Episode]) -> str:
    """The distinct failures of environments, each with one seed; empty where there are none."""
    failures: dict[str, tuple[int, int]] = {}
    for episode in episodes:
        if episode.error is not None:
            count, seed = failures.get(episode.error, (0, episode.seed))
            failures[episode.error] = (count + 1, seed)
    return "; ".join(
        f"{count} x {error} (seed {seed})" for error, (count, seed) in failures.items()
    )
