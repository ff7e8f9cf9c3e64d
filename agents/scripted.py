"""Policies without a model: uniform random, the solver, and the teacher whose turns become demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.trajectory import Outcome, Trajectory, Turn
from ragen_lite.envs.dialogue import Dialogue

Policy = Callable[[Dialogue, np.random.Generator], str]


def random_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """Uniformly random actions, always well-formed, as many as a turn allows."""
    task: Any = env.unwrapped
    if hasattr(task, "guess"):
        return env.write("", task.guess(rng))
    space = env.env.action_space
    space.seed(int(rng.integers(2**31)))
    return env.write("", [space.sample() for _ in range(env.max_actions_per_turn)])


def solver_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """The next actions of an optimal solution; random ones where the task has no solver or nothing can be solved."""
    task: Any = env.unwrapped
    solution = task.solve() if hasattr(task, "solve") else None
    return env.write("", solution[: env.max_actions_per_turn]) if solution else random_policy(env, rng)


def teacher_policy(env: Dialogue, rng: np.random.Generator) -> str:
    """A turn as the task demonstrates it; the solver's where it does not."""
    task: Any = env.unwrapped
    return env.write(*task.demonstrate(rng)) if hasattr(task, "demonstrate") else solver_policy(env, rng)


POLICIES: dict[str, Policy] = {"random": random_policy, "solver": solver_policy, "teacher": teacher_policy}


def outcome_of(info: dict[str, Any], terminated: bool) -> Outcome:
    """How an episode that has ended ended."""
    if info.get("success"):
        return Outcome.SUCCESS
    return Outcome.FAILURE if terminated else Outcome.OUT_OF_TURNS


def play_out(
    env: Dialogue, policy: Policy, *, seed: int, split: str, member: int = 0, chat: Chat | None = None
) -> Trajectory:
    """One episode of a scripted policy; with ``chat`` the conversation is encoded, its replies marked as sampled.

    A reply's tokens are an encoding of its text and its log-probs are 0, so this is for supervised learning and for
    statistics. An episode is cut where the task says it is dead-locked: nobody should learn to go on from there.
    """
    rng = np.random.default_rng([seed, member])
    observation, info = env.reset(seed=seed, options={"split": split, "member": member})
    ids = chat.start(env.system, observation) if chat else []
    sampled = [False] * len(ids)
    turns: list[Turn] = []
    while True:
        reply = policy(env, rng)
        start = len(ids)
        if chat:
            ids += [*chat.plain(reply), chat.end_id]
            sampled += [True] * (len(ids) - start)
        before = observation
        observation, reward, terminated, truncated, info = env.step(reply)
        turns.append(Turn(before, reply, start, len(ids), float(reward), info))
        if terminated or truncated or (chat and info.get("deadlock")):
            break
        if chat:
            ids += chat.follow(chat.end_id, observation)
            sampled += [False] * (len(ids) - len(sampled))
    return Trajectory(
        env_id=env.spec.id if env.spec else type(env.unwrapped).__name__,
        seed=seed,
        group=seed,
        member=member,
        token_ids=tuple(ids),
        sampled=tuple(sampled),
        logprobs=(0.0,) * len(ids),
        turns=tuple(turns),
        outcome=outcome_of(info, terminated),
    )
