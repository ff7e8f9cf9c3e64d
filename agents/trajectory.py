"""The records that flow from rollout to loss: one a trajectory.

An advantage is never written back into them. A conversation without tokens is an Episode; one in
the very tokens that were sampled is a Trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stop(StrEnum):
    """Why an engine ended a reply.

    ``eos``, an end token, is sampled and belongs to the reply; ``length`` is a cut.
    """

    EOS = "eos"
    LENGTH = "length"


class Outcome(StrEnum):
    """How an episode ended."""

    SUCCESS = "success"
    FAILURE = "failure"  # the task ended it, unsolved
    OUT_OF_TURNS = "out_of_turns"  # the task's budget of turns or actions is spent
    OUT_OF_TOKENS = "out_of_tokens"  # the next prompt does not fit the context
    ERROR = "error"  # the environment raised, hung or returned nonsense


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are drawn.

    Attributes:
        temperature: 0 is greedy.
        max_tokens: the longest reply, in tokens.
    """

    temperature: float = 1.0
    max_tokens: int = 64


Progress = Callable[[int, int], None]  # (trajectories finished, tokens sampled)


def no_progress(finished: int, tokens: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a trajectory begins: the task instance (seed, split), its group, and its member number.

    ``progress``, from 0 to 1, is how far training has come, for curricula; None outside of
    training.
    """

    seed: int
    split: str = "train"
    group: int = 0
    member: int = 0
    progress: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the environment's ``reset`` is given beside the seed."""
        given: dict[str, Any] = {"split": self.split, "member": self.member}
        return given if self.progress is None else {**given, "progress": self.progress}


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returns for one reply.

    Example, ``Up`` and the end token: ``Completion((17, 2), (-0.51, -0.02), Stop.EOS)``. The
    log-probs, in nats, are those the tokens were drawn with, at the sampling temperature (greedy:
    at temperature 1); the end token has one too.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One turn of a conversation as text: a message, the reply to it, and what that came to.

    Attributes:
        observation: the message that the policy saw.
        reply: the whole reply.
        reward: of the turn.
        reply_tokens: the reply's length; 0 where a scripted policy wrote it.
        actions: what was carried out, in words; None where the task does not say.
        unreadable: why the reply could not be read, or None.
        regret: what the reply gave away against the best, in the task's own unit (actions for most
            games, chance of success where chance goes on); inf where it lost the game; None where
            the task does not say.
        deadlock: whether the task is lost after it; None where it does not say.
        task: the label of the task in a mixture.
        info: all else that the task says, as data.
    """

    observation: str
    reply: str
    reward: float
    reply_tokens: int = 0
    actions: tuple[str, ...] | None = None
    unreadable: str | None = None
    regret: float | None = None
    deadlock: bool | None = None
    task: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Exchange):
    """A turn in tokens: where its reply stands.

    ``start:stop`` is the sampled span in the token ids of context number ``context``; ``cut`` is
    whether the reply was ended by its length. Example:
    ``Turn(context=0, start=40, stop=52, observation="Turn 1: ...", reply="<answer>Up</answer>",
    reward=-0.1, reply_tokens=12)``.
    """

    context: int = 0
    start: int
    stop: int
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One conversation as text: a scripted policy's, or one with a server that tells no tokens.

    ``env_id``, ``seed``, ``group`` and ``member`` say which; ``instance`` is the task's own text of
    what the seed gave, or "". ``error`` is why it failed, where ``outcome`` is ``error``.
    """

    env_id: str
    seed: int
    group: int = 0
    member: int = 0
    turns: tuple[Exchange, ...]
    outcome: Outcome
    error: str | None = None
    system: str = ""
    instance: str = ""

    @property
    def returns(self) -> float:
        """The undiscounted return: the sum of the turns' rewards."""
        return sum(turn.reward for turn in self.turns)

    @property
    def success(self) -> bool:
        """Whether the task was solved."""
        return self.outcome is Outcome.SUCCESS

    @property
    def total_regret(self) -> float | None:
        """What the actions gave away beyond the best; None where the task does not say.

        A turn without actions gives nothing away.
        """
        regrets = [turn.regret for turn in self.turns if turn.actions != ()]
        if not regrets or None in regrets:
            return None
        return math.fsum(regret for regret in regrets if regret is not None)


def end_episode(
    env_id: str,
    start: Start,
    system: str,
    turns: Sequence[Exchange],
    outcome: Outcome,
    error: str | None = None,
    instance: str = "",
) -> Episode:
    """The record of a conversation in text that began at ``start``."""
    return Episode(
        env_id=env_id,
        seed=start.seed,
        group=start.group,
        member=start.member,
        turns=tuple(turns),
        outcome=outcome,
        error=error,
        system=system,
        instance=instance,
    )


@dataclass(frozen=True, slots=True)
class Context:
    """One exact token sequence: what was fed and sampled, in one go of the model.

    Worked example, two prompt tokens, a reply of two, three tokens of the next message, a reply of
    one::

        token_ids          = (5, 6,   7,   2,   3, 8, 9,   2)
        loss_mask          = (F, F,   T,   T,   F, F, F,   T)
        behaviour_logprobs = (0, 0, -.5, -.1,   0, 0, 0, -.3)  # 0.0 where nothing was sampled
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    behaviour_logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory(Episode):
    """One conversation in the very tokens that were fed and sampled.

    The turns of the example in Context are ``Turn(context=0, start=2, stop=4, ...)`` and
    ``Turn(context=0, start=7, stop=8, ...)``. With the whole conversation in every prompt a
    trajectory has exactly one context; where its environment failed at once it has no turn, and an
    empty one.

    Invariant, for each context: ``token_ids[t.start:t.stop]`` is what the engine sampled for turn
    t; ``loss_mask`` is true exactly on these spans; the prompt of turn t was
    ``token_ids[:t.start]``. ``check`` asserts what can be seen here.
    """

    turns: tuple[Turn, ...]
    contexts: tuple[Context, ...]

    def turns_of(self, context: int) -> list[tuple[int, Turn]]:
        """The turns of one context, each with its place among all of the trajectory's turns."""
        return [(k, turn) for k, turn in enumerate(self.turns) if turn.context == context]

    def check(self) -> None:
        """Raise AssertionError where the invariant does not hold."""
        assert all(0 <= turn.context < len(self.contexts) for turn in self.turns)
        for number, context in enumerate(self.contexts):
            ids = context.token_ids
            assert len(ids) == len(context.loss_mask) == len(context.behaviour_logprobs)
            spans = [False] * len(ids)
            end = 0
            for _, turn in self.turns_of(number):
                assert end < turn.start < turn.stop <= len(ids), (end, turn.start, turn.stop)
                assert turn.reply_tokens == turn.stop - turn.start
                spans[turn.start : turn.stop] = [True] * (turn.stop - turn.start)
                end = turn.stop
            assert list(context.loss_mask) == spans
            pairs = zip(context.behaviour_logprobs, context.loss_mask, strict=True)
            assert all(logprob == 0.0 for logprob, sampled in pairs if not sampled)


@dataclass(frozen=True, slots=True)
class Group:
    """All trajectories of one task instance."""

    trajectories: tuple[Trajectory, ...]


def group_by_instance(trajectories: Sequence[Trajectory]) -> list[Group]:
    """Groups of one instance each, without the trajectories whose environment failed."""
    by_group: dict[int, list[Trajectory]] = {}
    for trajectory in trajectories:
        if trajectory.outcome is not Outcome.ERROR:
            by_group.setdefault(trajectory.group, []).append(trajectory)
    return [Group(tuple(members)) for _, members in sorted(by_group.items())]
