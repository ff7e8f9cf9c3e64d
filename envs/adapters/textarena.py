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

    Raises:
        ImportError: TextArena is not installed.
        ValueError: there is no such game, it is not for one player, or it needs a word list that is
            not installed.

    The reward comes at the end and is the game's, mostly 0 to 1; success is 1 or more. An action
    that breaks the game's rules is the game's to punish.
    """

    form = "[{}]"  # TextArena's games read a move in square brackets

    def __init__(
        self, task: str = "GuessTheNumber-v0", max_turns: int = 20, render_mode: str | None = None
    ) -> None:
        self._open(max_turns, render_mode)
        package("textarena", "pip install 'ragen-lite[textarena]'")
        known = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
        # A game's ``-raw`` version has no wrappers. TextArena's default ones repeat the whole
        # conversation in each observation.
        raw = task if task.endswith("-raw") else f"{task}-raw"
        if raw not in known:
            names = sorted(name.removesuffix("-raw") for name in known if name.endswith("-raw"))
            raise ValueError(f"unknown task {task!r}: TextArena has {', '.join(names)}")
        self.task = task
        self._raw = raw
        self.turn_penalty = 0.1
        # One game is begun at once, so that what is wrong with a task is said here and not in the
        # first reset. TextArena checks the number of players by an assertion, and nltk raises
        # LookupError for a missing word list.
        try:
            self._begin(0)
        except AssertionError as error:
            raise ValueError(f"task={task}: not a game for one player ({error})") from error
        except LookupError as error:
            # nltk draws a frame of stars around what it says.
            lines = [line.strip() for line in str(error).splitlines() if line.strip(" *")]
            raise ValueError(
                f"task={task} needs a word list of nltk: {lines[0] if lines else error!r}"
            ) from error

    @property
    def instructions(self) -> str:
        """The system prompt; a game's own rules are in its first message."""
        return "Play the game. Your answer is what the game reads, in the form it asks for."

    def _begin(self, seed: int) -> Any:
        """A new game of TextArena's, reset for one player."""
        arena = importlib.import_module("textarena")
        with self.own_randomness(seed):
            inner = arena.make(self._raw)
            inner.reset(num_players=1, seed=seed)
        return inner

    def _content(self, inner: Any) -> str:
        """The instance as text, which decides its split: the game's state."""
        state = inner.state.game_state or {}
        entries = [(str(key), str(value)) for key, value in state.items()]
        content = str(sorted(entries))
        # An address is the text of an object that does not tell what it holds. It differs from
        # process to process, so it is cut out, and the first messages are added, which tell more.
        if " at 0x" in content:
            content = re.sub(r" at 0x[0-9a-f]+", "", f"{content} {inner.state.observations}")
        return content

    def _messages(self) -> str:
        """What the game has said since the last call; reading it takes it away."""
        # -1 is the game itself. The player's own moves come back as messages too.
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
        """One move, in the game's own words.

        The last message of a game is why it ended. Its reward comes then; all before are 0.
        """
        with self.own_randomness():
            done, _ = self.inner.step(action)
            if not done:
                self._text = self._messages()
                return self._text, 0.0, False, False, {"success": False}
            rewards, told = self.inner.close()
        # Player 0 is the only one.
        reward = float((rewards or {}).get(0, 0.0))
        self._text = str((told or {}).get(0, {}).get("reason", ""))
        return self._text, reward, True, False, {"success": reward >= 1}
