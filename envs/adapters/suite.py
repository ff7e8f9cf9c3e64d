"""What the adapters to other suites share: text in and out, and randomness of their own.

The suites are optional packages. Their instances are divided by content, as ours are. Some draw
from the random generators of the process; here each environment has a state of its own, put in
place for the time of a call.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ragen_lite.envs.base import TextTask
from ragen_lite.envs.spaces import AnyText


def package(name: str, install: str) -> Any:
    """An optional package. Raises ImportError that says how to install it."""
    before = random.getstate()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this environment is {name}'s, which is not installed: {install} ({error})"
        ) from error
    finally:
        random.setstate(before)  # some seed the process's generator when they are imported


def seed_process(seed: int) -> None:
    """Seed the random generators of the process, which the suites draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


class Suite(TextTask[str]):
    """A game or question of another suite.

    It has text in and out, over every character, and randomness of its own.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_actions_per_turn = 1
    form = "{}"  # how a suite's games read a move

    def _open(self, max_turns: int, render_mode: str | None) -> None:
        if max_turns < 1:
            raise ValueError(f"max_turns={max_turns}: it must be above 0")
        self.max_turns = self.max_actions = max_turns
        self.render_mode = render_mode
        self.observation_space = AnyText(200_000)
        self.action_space = AnyText(100_000)
        self._text = ""
        self._random: tuple[Any, Any] | None = None

    @contextmanager
    def own_randomness(self, seed: int | None = None) -> Iterator[None]:
        """The process's generators in this environment's state, or seeded, for a call; then as they
        were."""
        before = random.getstate(), np.random.get_state()
        if seed is not None:
            seed_process(seed)
        elif self._random is not None:
            random.setstate(self._random[0])
            np.random.set_state(self._random[1])
        try:
            yield
        finally:
            self._random = random.getstate(), np.random.get_state()
            random.setstate(before[0])
            np.random.set_state(before[1])

    def render(self) -> str:  # type: ignore[override]
        """The last message."""
        return self._text

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random digit in the form that the suite reads: each game has moves of its own, so this
        hardly plays."""
        return [self.form.format(int(rng.integers(10)))]
