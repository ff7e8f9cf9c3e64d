"""What of a conversation a turn's prompt holds: all of it, or the last turns.

A prompt that goes on where the last reply ended stays in its context, append-only. Any other begins
a context of its own, an exact token sequence like the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ragen_lite.agents.chat import Chat

CONTEXTS = {
    "full": "ragen_lite.agents.contexts:FullContext",
    "window": "ragen_lite.agents.contexts:WindowContext",
}
THOUGHTS = ("keep", "drop")
THOUGHT_ENDS = "</think>"


class BadContext(ValueError):
    """An option of a context that cannot work: ``key`` names it, the text says why."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


@dataclass(frozen=True, slots=True)
class Said:
    """A turn that was played: its message, and the tokens of its reply as they were sampled.

    ``prefill`` is the text that stands before them.
    """

    observation: str
    reply_ids: tuple[int, ...]
    prefill: str = ""


class ContextRule(Protocol):
    """What an entry of the table makes, once its options are set."""

    @property
    def thoughts(self) -> str:
        """Whether later prompts keep or drop the thoughts of earlier replies."""

    def first(self, played: int) -> int:
        """The first turn that a prompt shows, after so many were played."""


@dataclass(frozen=True)
class FullContext:
    """Every prompt holds the whole conversation."""

    thoughts: str = "keep"
    """keep, or drop: later prompts show earlier replies without what stands up to </think>, as
    Qwen3's template does."""

    def __post_init__(self) -> None:
        if self.thoughts not in THOUGHTS:
            raise BadContext("thoughts", f"{self.thoughts!r}: choose one of {', '.join(THOUGHTS)}")

    def first(self, played: int) -> int:
        """See ContextRule."""
        return 0


@dataclass(frozen=True)
class WindowContext(FullContext):
    """A prompt holds the system text, the last turns and the new message: games may be long.

    RAGEN's context window, verl-agent's memory.
    """

    turns: int = 4
    """Turns before the present one that a prompt shows; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.turns < 0:
            raise BadContext("turns", f"{self.turns}: it must not be below 0")

    def first(self, played: int) -> int:
        """See ContextRule."""
        return max(0, played - self.turns)


def goes_on(rule: ContextRule, played: int) -> bool:
    """Whether the prompt after ``played`` turns only adds to the one before."""
    return rule.thoughts == "keep" and rule.first(played) == rule.first(played - 1)


def prompt(
    rule: ContextRule,
    chat: Chat,
    system: str,
    said: Sequence[Said],
    observation: str,
    prefill: str = "",
) -> list[int]:
    """The token ids of a prompt from its very beginning.

    Replies are the tokens that were sampled; only one that lost its thought is encoded again.
    Nothing in it is trained on.
    """
    shown = said[rule.first(len(said)) :]
    if rule.thoughts == "drop":
        shown = [without_thought(chat, turn) for turn in shown]
    messages = [*(turn.observation for turn in shown), observation]
    prefills = [*(turn.prefill for turn in shown), prefill]
    ids = chat.start(system, messages[0], prefills[0])
    for turn, following, begun in zip(shown, messages[1:], prefills[1:], strict=True):
        reply = turn.reply_ids
        ids += reply
        # A reply without an end token of its own gets one here.
        ids += chat.follow(reply[-1] if reply else -1, following, begun)
    return ids


def without_thought(chat: Chat, turn: Said) -> Said:
    """A turn whose reply has no thought; the very same tokens where there was none."""
    text = turn.prefill + chat.text(turn.reply_ids)
    if THOUGHT_ENDS not in text:
        return turn
    return Said(turn.observation, tuple(chat.plain(text.rpartition(THOUGHT_ENDS)[2].lstrip("\n"))))


def as_messages(
    rule: ContextRule, system: str, said: Sequence[tuple[str, str]], observation: str
) -> list[dict[str, str]]:
    """The same prompt for a server, which takes texts: ``said`` are messages and replies."""
    found = [{"role": "system", "content": system}]
    for message, reply in said[rule.first(len(said)) :]:
        if rule.thoughts == "drop":
            reply = reply.rpartition(THOUGHT_ENDS)[2].lstrip("\n")
        found.append({"role": "user", "content": message})
        found.append({"role": "assistant", "content": reply})
    return [*found, {"role": "user", "content": observation}]
