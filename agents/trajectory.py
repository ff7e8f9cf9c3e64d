"""The records that flow from rollout to loss. One record a trajectory; an advantage is never written back into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stop(StrEnum):
    """Why an engine ended a reply: ``eos``, its end token, is sampled and belongs to the reply; ``length`` is a cut."""

    EOS = "eos"
    LENGTH = "length"


class Outcome(StrEnum):
    """How a trajectory ended."""

    SUCCESS = "success"
    FAILURE = "failure"  # the task ended it, unsolved
    OUT_OF_TURNS = "out_of_turns"  # the task's budget of turns or actions is spent
    OUT_OF_TOKENS = "out_of_tokens"  # the next prompt does not fit the context
    ERROR = "error"  # the environment raised, hung or returned nonsense


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn: temperature (0 is greedy) and the longest reply in tokens."""

    temperature: float = 1.0
    max_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returns for one reply.

    Example, ``Up`` and the end token: ``Completion((17, 2), (-0.51, -0.02), Stop.EOS)``. The log-probs are those the
    tokens were drawn with, at the sampling temperature (greedy: at temperature 1); the end token has one too.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: Stop


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: the message the policy saw, its reply as text, and where the reply stands in the token ids.

    ``start:stop`` is the sampled span. Example: ``Turn("Turn 1: ...", "<answer>Up</answer>", 40, 52, -0.1, {...})``.
    """

    observation: str
    reply: str
    start: int
    stop: int
    reward: float
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One conversation, in the very tokens that were fed and sampled.

    Worked example, two prompt tokens, a reply of two, three tokens of the next message, a reply of one::

        token_ids = (5, 6,   7, 2,   3, 8, 9,   2)
        sampled   = (F, F,   T, T,   F, F, F,   T)
        logprobs  = (0, 0, -.5,-.1,  0, 0, 0, -.3)      # 0.0 where nothing was sampled
        turns     = (Turn(start=2, stop=4), Turn(start=7, stop=8))

    Invariant: ``token_ids[t.start:t.stop]`` is what the engine sampled for turn t; ``sampled`` is true exactly on
    these spans; the prompt of turn k was ``token_ids[:turns[k].start]``. ``check`` asserts what can be seen here.
    """

    env_id: str
    seed: int
    group: int
    member: int
    token_ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    turns: tuple[Turn, ...]
    outcome: Outcome
    error: str | None = field(default=None)
    system: str = field(default="")

    @property
    def reward(self) -> float:
        """The undiscounted return: the sum of the turns' rewards."""
        return sum(turn.reward for turn in self.turns)

    @property
    def success(self) -> bool:
        return self.outcome is Outcome.SUCCESS

    def check(self) -> None:
        """Raise AssertionError where the invariant does not hold."""
        assert len(self.token_ids) == len(self.sampled) == len(self.logprobs)
        spans = [False] * len(self.token_ids)
        end = 0
        for turn in self.turns:
            assert end < turn.start < turn.stop <= len(self.token_ids), (end, turn.start, turn.stop)
            spans[turn.start : turn.stop] = [True] * (turn.stop - turn.start)
            end = turn.stop
        assert list(self.sampled) == spans
        assert all(p == 0.0 for p, s in zip(self.logprobs, self.sampled, strict=True) if not s)


@dataclass(frozen=True, slots=True)
class Group:
    """All trajectories of one task instance."""

    trajectories: tuple[Trajectory, ...]
