"""GEM's games and questions: ``env=gem task=game:Sokoban-v0-easy``.

GEM reads whole replies, so its environments are conversations: Dialogue passes messages and replies
on as they are.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.adapters.suite import Suite, package
from ragen_lite.envs.splits import requested_split


class Gem(Suite):
    """A game or question of GEM (``gem-llm``).

    Args:
        task: an id of GEM's registry, such as ``game:Sokoban-v0-easy``. GEM reads whole replies,
            mostly for a box.
        max_turns: replies; games have limits of their own too.

    Raises:
        ImportError: GEM is not installed.
        ValueError: GEM has no such task.

    The reward is GEM's; success is a reward of 1 or more in the last step.
    """

    conversation = True
    form = "\\boxed{{{}}}"  # doubled braces are the box's own

    def __init__(
        self,
        task: str = "game:GuessTheNumber-v0-easy",
        max_turns: int = 20,
        render_mode: str | None = None,
    ) -> None:
        self._open(max_turns, render_mode)
        package(
            "gem",
            "pip install --no-deps gem-llm, beside reasoning-gym, math-verify, msgspec and nltk",
        )
        known = importlib.import_module("gem.envs.registration").ENV_REGISTRY
        if task not in known:
            raise ValueError(f"unknown task {task!r}: GEM has {', '.join(sorted(known))}")
        self.task = task
        self.turn_penalty = 0.1

    @property
    def instructions(self) -> str:
        """The system prompt; a game's own rules are in its first message."""
        return "Play the game, or answer the question, in the form it asks for."

    def _begin(self) -> tuple[Any, str]:
        """A new environment of GEM's, reset, and its first message."""
        seed = int(self.np_random.integers(2**31))
        suite = importlib.import_module("gem")
        with self.own_randomness(seed):
            inner = suite.make(self.task)
            observation, info = inner.reset(seed=seed)
        return inner, _with_suffix(observation, info)

    def _content(self, made: tuple[Any, str]) -> str:
        """The instance as text, which decides its split."""
        # A first message may be the same for all instances: a secret number is not in it. So the
        # environment's attributes count too, as far as they are plain values. Objects are left
        # out, since their text may hold an address, and so are seeds, since two of them may make
        # the same instance.
        plain = (int, str, bool, float, list, tuple, dict, np.ndarray)
        facts = {
            k: str(v) for k, v in vars(made[0]).items() if isinstance(v, plain) and "seed" not in k
        }
        return f"{made[1]} {sorted(facts.items())}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw an instance of ``options["split"]`` (``train`` where it is left out)."""
        gym.Env.reset(self, seed=seed)
        # The instance that is kept is the last one made, so play goes on from the random state
        # that its reset left.
        self.inner, self._text = self.draw(requested_split(options), self._begin, self._content)
        return self._text, {"success": False}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One reply, which GEM reads and rewards."""
        with self.own_randomness():
            observation, reward, terminated, truncated, info = self.inner.step(action)
        self._text = _with_suffix(observation, info)
        success = bool(terminated and float(reward) >= 1)
        # Of a conversation Dialogue adds nothing to ``info``, so all of its entries are made here.
        told = {"success": success, "actions": [action], "unreadable": None, "regret": None}
        return self._text, float(reward), bool(terminated), bool(truncated and not terminated), told


def _with_suffix(observation: Any, info: dict[str, Any]) -> str:
    """The whole message: the observation, and ``info["suffix"]``, where GEM keeps the board."""
    return "\n".join(
        part for part in (str(observation).strip(), str(info.get("suffix", "")).strip()) if part
    )
