"""Text spaces: what observations and replies may contain."""

from __future__ import annotations

import string
from typing import Any

import gymnasium as gym

CHARSET = frozenset(string.printable + "√")


def text_space(max_length: int, more: frozenset[str] = frozenset()) -> gym.spaces.Text:
    """A Text space over printable ASCII, the symbols our tasks draw with, and ``more``.

    ``max_length`` is in characters.
    """
    return gym.spaces.Text(max_length, min_length=0, charset=CHARSET | more)


class AnyText(gym.spaces.Text):
    """A Text space over every character, for texts of the world.

    Its samples are printable ASCII; ``max_length`` is in characters.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=CHARSET)

    def contains(self, x: Any) -> bool:
        """Any text that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length
