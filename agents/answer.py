"""What an environment answers, checked: the one door for values that are not ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragen_lite.agents.trajectory import Outcome

DEEPEST = 40  # values within values
MOST_BITS = 10_000  # of an integer; Python writes 4,300 digits at most


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
        prefill: text that the replies to come begin with; part of ``reply`` where one has come.
        instance: the task's instance as text, after a reset; "" where the task does not say.
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
    instance: str = ""
    prefill: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated


def plain(value: Any, depth: int = 0) -> Any:
    """The value in JSON's types: numpy's scalars as Python's; what JSON has not, as text.

    Raises EnvFailure for what no file holds: values nested too deep (or in themselves), integers of
    thousands of digits, halves of characters.
    """
    if depth > DEEPEST:
        raise EnvFailure(f"info is nested more than {DEEPEST} deep, or holds itself")
    if isinstance(value, dict):
        return {whole_text(str(k), "info"): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    # JSON has no inf and no nan; as texts they survive.
    finite = isinstance(value, float) and math.isfinite(value)
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise EnvFailure(f"info holds an integer of {value.bit_length()} bits")
    if value is None or finite or isinstance(value, (bool, int)):
        return value
    return whole_text(str(value), "info")


def whole_text(text: str, name: str) -> str:
    """The text itself. Raises EnvFailure where it holds half a character."""
    halves = [char for char in text if "\ud800" <= char <= "\udfff"]
    if halves:
        raise EnvFailure(f"{name} holds half a character, {halves[0]!a}, which no encoding has")
    return text


def number(value: Any, name: str) -> float:
    """The value as a float. Raises EnvFailure where it is no single number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise EnvFailure(f"{name} is {str(value)[:80]!r}, not a number") from error


def truth(value: Any, name: str) -> bool:
    """The value as a truth value. Raises EnvFailure where it has none, as an array."""
    try:
        return bool(value)
    except (TypeError, ValueError) as error:
        raise EnvFailure(f"{name} is {str(value)[:80]!r}, neither true nor false") from error


def _words(value: Any) -> tuple[str, ...] | None:
    """A list of texts, as Dialogue gives the actions."""
    if not isinstance(value, (list, tuple)):
        return None
    return tuple(whole_text(str(word), 'info["actions"]') for word in value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _amount(value: Any) -> float | None:
    single = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return float(value) if single else None


def _flag(value: Any) -> bool | None:
    return bool(value) if isinstance(value, (bool, np.bool_)) else None


# How the fields of an Answer are read out of ``info``; None where the value is of another kind.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "actions": _words,
    "unreadable": _text,
    "regret": _amount,
    "deadlock": _flag,
    "task": _text,
    "prefill": _text,
}


def read(
    result: Any, system: str, reply: str = "", mixture: bool = False, prefill: str = ""
) -> Answer:
    """A reset's or a step's result as an Answer.

    Args:
        result: what ``reset`` or ``step`` returned.
        system: the system prompt, where ``info`` has none of its own.
        reply: that it answers.
        mixture: whether the environment is a mixture of ours, whose ``info["task"]`` is a label;
            anybody else's is their own.
        prefill: of the replies, where ``info`` has none of its own.

    Raises EnvFailure for values that are not what Gymnasium promises, or that no file can hold.
    """
    begins = isinstance(result, tuple) and len(result) == 2
    if begins:  # a reset's, which has no reward
        result = (result[0], 0.0, False, False, result[1])
    if not isinstance(result, tuple) or len(result) != 5:
        raise EnvFailure(
            f"step returned {str(result)[:80]!r}, not (observation, reward, terminated, truncated, "
            "info)"
        )
    observation, reward, terminated, truncated, info = result
    if not isinstance(observation, str):
        raise EnvFailure(f"the observation is {type(observation).__name__}, not text")
    if not math.isfinite(number(reward, "the reward")):
        raise EnvFailure(f"the reward is {reward}, not a finite number")
    if not isinstance(info, dict):
        raise EnvFailure(f"info is {type(info).__name__}, not a dict")
    typed = {name: read_field(info.get(name)) for name, read_field in FIELDS.items()}
    if not mixture:
        typed["task"] = None
    if not begins:  # an episode keeps its prefill
        typed["prefill"] = None
    # What does not fit its field is somebody's own value of that name, and stays theirs.
    taken = {"system"}
    for name, value in typed.items():
        if value is not None or info.get(name) is None:
            taken.add(name)
    return Answer(
        observation=whole_text(observation, "the observation"),
        reward=number(reward, "the reward"),
        terminated=truth(terminated, "terminated"),
        truncated=truth(truncated, "truncated"),
        success=truth(info.get("success"), 'info["success"]'),
        # Each task of a mixture has its own.
        system=whole_text(str(info.get("system", system)), "the system prompt"),
        reply=reply,
        actions=typed["actions"],
        unreadable=typed["unreadable"],
        regret=typed["regret"],
        deadlock=typed["deadlock"],
        task=typed["task"],
        prefill=whole_text(prefill if typed["prefill"] is None else typed["prefill"], "prefill"),
        info=plain({k: v for k, v in info.items() if k not in taken}),
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
