"""What an environment answers, checked: the one door for values that are not ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragen_lite.agents.trajectory import Outcome

# What Dialogue, a mixture and the games say in ``info``, for which an Answer has fields.
TYPED = ("actions", "unreadable", "regret", "deadlock", "task", "system")


class EnvFailure(RuntimeError):
    """An environment raised, hung or returned nonsense; the text says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an environment answers to a reset or a reply, checked.

    Attributes:
        observation: the next message.
        reply: the reply that it answers; "" after a reset.
        actions: what was carried out, in words; None where the task does not say.
        unreadable: why the reply could not be read, or None.
        regret: what the reply gave away against the best, in the task's own unit (actions for most
            games, chance of success where chance goes on); inf where it lost the game; None where
            the task does not say.
        deadlock: whether the task is lost; None where it does not say.
        task: the label of the task in a mixture.
        system: the system prompt of the episode.
        info: all else that the task says, as values of JSON.
    """

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    success: bool
    system: str
    reply: str = ""
    actions: tuple[str, ...] | None = None
    unreadable: str | None = None
    regret: float | None = None
    deadlock: bool | None = None
    task: str | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated


def plain(value: Any) -> Any:
    """The value in JSON's types: numpy's scalars as Python's; what JSON has not, as text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    # JSON has no inf and no nan; as texts they survive.
    finite = isinstance(value, float) and math.isfinite(value)
    if value is None or finite or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def read(result: Any, system: str, reply: str = "") -> Answer:
    """A reset's or a step's result as an Answer.

    Raises EnvFailure where it is not text, a finite reward, two truth values and a dictionary.
    """
    if isinstance(result, tuple) and len(result) == 2:  # a reset's, which has no reward
        result = (result[0], 0.0, False, False, result[1])
    if not isinstance(result, tuple) or len(result) != 5:
        raise EnvFailure(
            f"step returned {str(result)[:80]!r}, not (observation, reward, terminated, truncated, "
            "info)"
        )
    observation, reward, terminated, truncated, info = result
    if not isinstance(observation, str):
        raise EnvFailure(f"the observation is {type(observation).__name__}, not text")
    if not math.isfinite(reward):
        raise EnvFailure(f"the reward is {reward}, not a finite number")
    if not isinstance(info, dict):
        raise EnvFailure(f"info is {type(info).__name__}, not a dict")
    # Dialogue writes these; another's environment may use the same names with other values.
    actions = info.get("actions")
    regret = info.get("regret")
    deadlock = info.get("deadlock")
    task = info.get("task")
    return Answer(
        observation=observation,
        reward=float(reward),
        terminated=bool(terminated),
        truncated=bool(truncated),
        success=bool(info.get("success")),
        system=str(info.get("system", system)),  # each task of a mixture has its own
        reply=reply,
        actions=None if actions is None else tuple(map(str, actions)),
        unreadable=info.get("unreadable"),
        regret=None if regret is None else float(regret),
        deadlock=None if deadlock is None else bool(deadlock),
        task=None if task is None else str(task),
        info={k: plain(v) for k, v in info.items() if k not in TYPED},
    )


def outcome_of(answer: Answer) -> Outcome:
    """How an episode ended whose last answer this is."""
    if answer.success:
        return Outcome.SUCCESS
    return Outcome.FAILURE if answer.terminated else Outcome.OUT_OF_TURNS


def exchange_fields(observation: str, answer: Answer, reply_tokens: int) -> dict[str, Any]:
    """The fields of an Exchange: the message a policy saw, and the answer to its reply."""
    return {
        "observation": observation,
        "reply": answer.reply,
        "reward": answer.reward,
        "reply_tokens": reply_tokens,
        "actions": answer.actions,
        "unreadable": answer.unreadable,
        "regret": answer.regret,
        "deadlock": answer.deadlock,
        "task": answer.task,
        "info": answer.info,
    }
