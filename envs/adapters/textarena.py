"""TextArena's single-player games: ``env=textarena task=GuessTheNumber-v0``."""

from __future__ import annotations

import importlib
import re
from typing import Any

from ragen_lite.envs.adapters.suite import Suite, package
from ragen_lite.envs.splits import requested_split


class TextArena(Suite):
    """A single-player game of TextArena.

    Args:
        task: the game's name in TextArena's registry, such as ``GuessTheNumber-v0`` or
            ``FrozenLake-v0-random``; its observations are the game's messages, each once.
        max_turns: replies; games have limits of their own too.

    The reward comes at the end and is the game's, mostly 0 to 1; success is 1 or more. An action
    that breaks the game's rules is the game's to punish.
    """

    form = "[{}]"

    def __init__(
        self, task: str = "GuessTheNumber-v0", max_turns: int = 20, render_mode: str | None = None
    ) -> None:
        self._open(max_turns, render_mode)
        package("textarena", "pip install 'ragen-lite[textarena]'")
        known = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
        raw = task if task.endswith("-raw") else f"{task}-raw"
        if raw not in known:
            names = sorted(name.removesuffix("-raw") for name in known if name.endswith("-raw"))
            raise ValueError(f"unknown task {task!r}: TextArena has {', '.join(names)}")
        self.task = task
        self._raw = raw
        self.turn_penalty = 0.1
        try:
            self._begin(0)
        except AssertionError as error:
            raise ValueError(f"task={task}: not a game for one player ({error})") from error
        except LookupError as error:
            raise ValueError(
                f"task={task} needs a word list of nltk:"
                f" {str(error).strip().splitlines()[1].strip()}"
            ) from error

    @property
    def instructions(self) -> str:
        return "Play the game. Your answer is what the game reads, in the form it asks for."

    def _begin(self, seed: int) -> Any:
        arena = importlib.import_module("textarena")
        with self.own_randomness(seed):
            inner = arena.make(self._raw)
            inner.reset(num_players=1, seed=seed)
        return inner

    def _content(self, inner: Any) -> str:
        content = str(sorted((str(k), str(v)) for k, v in (inner.state.game_state or {}).items()))
        if (
            " at 0x" in content
        ):  # of an object that does not tell what it holds; the first message does
            content = re.sub(r" at 0x[0-9a-f]+", "", f"{content} {inner.state.observations}")
        return content

    def _messages(self) -> str:
        _, messages = self.inner.get_observation()
        return "\n".join(str(text).strip() for sender, text, _ in messages if sender == -1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a game of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self.inner = self.draw(
            requested_split(options),
            lambda: self._begin(int(self.np_random.integers(2**31))),
            self._content,
        )
        self._text = self._messages()
        return self._text, {"success": False}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One move, in the game's own words."""
        with self.own_randomness():
            done, _ = self.inner.step(action)
            if not done:
                self._text = self._messages()
                return self._text, 0.0, False, False, {"success": False}
            rewards, told = self.inner.close()
        reward = float((rewards or {}).get(0, 0.0))
        self._text = str((told or {}).get(0, {}).get("reason", ""))
        return self._text, reward, True, False, {"success": reward >= 1}
