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
    """An optional package, imported.

    Args:
        name: of the module.
        install: the command that installs it, for the error.

    Raises:
        ImportError: it is not installed.
    """
    # Some packages seed the process's generator when they are imported.
    before = random.getstate()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this environment is {name}'s, which is not installed: {install} ({error})"
        ) from error
    finally:
        random.setstate(before)


def seed_process(seed: int) -> None:
    """Seed the random generators of the process, which the suites draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # numpy's old generator takes 32 bits


class Suite(TextTask[str]):
    """A game or question of another suite.

    It has text in and out, over every character, and randomness of its own. A subclass says how an
    instance is drawn and how a move is scored.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_actions_per_turn = 1
    form = "{}"  # how a suite's games read a move; {} is its place

    def _open(self, max_turns: int, render_mode: str | None) -> None:
        """What every constructor begins with: budgets, spaces, and no state yet.

        Raises:
            ValueError: ``max_turns`` is below 1.
        """
        if max_turns < 1:
            raise ValueError(f"max_turns={max_turns}: it must be above 0")
        self.max_turns = self.max_actions = max_turns
        self.render_mode = render_mode
        # Longest texts, in characters. Other suites' texts have any characters.
        self.observation_space = AnyText(200_000)
        self.action_space = AnyText(100_000)
        self._text = ""
        # The states of random's and numpy's generators between two calls; None before the first.
        self._random: tuple[Any, Any] | None = None

    @contextmanager
    def own_randomness(self, seed: int | None = None) -> Iterator[None]:
        """Run a block with the process's random generators in this environment's state.

        Afterwards the state is kept for the next call, and the process's generators are as they
        were before. So environments do not disturb each other, nor the training loop.

        Args:
            seed: begin from this seed instead of the kept state.
        """
        # The suites draw from both generators, random's and numpy's.
        before = random.getstate(), np.random.get_state()
        if seed is not None:
            seed_process(seed)
        elif self._random is not None:
            random.setstate(self._random[0])
            np.random.set_state(self._random[1])
        try:
            yield
        finally:  # after an exception too
            self._random = random.getstate(), np.random.get_state()
            random.setstate(before[0])
            np.random.set_state(before[1])

    def render(self) -> str:  # type: ignore[override]
        """The last message."""
        return self._text

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random digit in the form that the suite reads.

        Each game has moves of its own, so this hardly plays.
        """
        return [self.form.format(int(rng.integers(10)))]
