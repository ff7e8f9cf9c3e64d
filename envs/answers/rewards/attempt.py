"""A reply to a question, and what decides its rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property


def anything(answer: str) -> bool:
    """Every answer says something that could be right."""
    return True


@dataclass(frozen=True)
class Attempt:
    """A reply to a question, and what decides its rewards.

    Args:
        reply: the whole reply.
        golds: the gold answers, any of which is right.
        answer: what the template takes for the reply's answer; None where there is none.
        grade: whether an answer equals a gold; None where the gold cannot be read.
        prefill: with which the reply begins, unsampled.
        parses: whether an answer says something that could be right, such as a role for everybody.
    """

    reply: str
    golds: tuple[str, ...]
    answer: str | None
    grade: Callable[[str, str], bool | None]
    parses: Callable[[str], bool] = anything
    prefill: str = ""

    @cached_property
    def correct(self) -> bool | None:
        """Whether the answer equals any of the golds; None where none of them can be read."""
        # Where there is no answer, any text serves to see whether the golds can be read.
        answer = "0" if self.answer is None else self.answer
        found = [self.grade(answer, gold) for gold in self.golds]
        if all(verdict is None for verdict in found):
            return None
        return self.answer is not None and True in found

    @property
    def parsed(self) -> bool:
        """Whether there is an answer that could be right."""
        return self.answer is not None and self.parses(self.answer)
