"""RAGEN's two-armed bandit: one choice between a steady arm and a risky one.

What the names of the arms suggest tells which is which.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import TextTask
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

# Trades that suggest a cautious person, and trades that suggest a bold one. No trade is in both
# lists, so a name alone says which arm it is.
STEADY = tuple(
    (
        "Accountant Archivist Auditor Baker Banker Bookkeeper Clerk Dentist Engineer Farmer "
        "Gardener Judge Librarian Mason Nurse Notary Pharmacist Postman Teacher Tailor "
        "Treasurer Watchmaker"
    ).split()
)
RISKY = tuple(
    (
        "Acrobat, Adventurer, Astronaut, Boxer, Daredevil, Diver, Dragon, Explorer, Gambler, "
        "Inventor, Juggler, Magician, Mountaineer, Pilot, Pirate, Racer, Rebel, Smuggler, "
        "Speculator, Stuntman, Trader, Treasure hunter"
    ).split(", ")
)


class Bandit(TextTask[int]):
    """Choose one of two arms, once.

    The steady arm always pays ``steady``. The risky arm pays 1 with the chance ``risky``, and else
    nothing. Success is the choice of the better arm by expectation, whatever it then pays. The
    names are the instance, so that all members of a group read the same prompt; the payment is
    chance, so that they differ in it.

    Args:
        steady: what the steady arm pays; 0.1 is RAGEN's.
        risky: the probability that the risky arm pays; 0.25 is RAGEN's.

    Raises:
        ValueError: one of the two lies outside of 0 to 1, or they are equal.

    ``info``: success; regret (expected reward given away).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    action_names = ("First", "Second")
    turn_penalty = 0.0  # no arm pays less than 0, so an unreadable reply gains nothing

    def __init__(
        self, steady: float = 0.1, risky: float = 0.25, render_mode: str | None = None
    ) -> None:
        if not (0 <= steady <= 1 and 0 <= risky <= 1) or steady == risky:
            raise ValueError(
                f"steady={steady}, risky={risky}: both lie in 0..1, and one arm must be better"
            )
        self.steady = steady
        self.risky = risky
        self.render_mode = render_mode
        self.action_space = gym.spaces.Discrete(2)
        self.observation_space = text_space(100)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            "You choose one of two arms, once. Each is named after a person whose trade tells its"
            f" nature: one pays {self.steady:g} every time, as a person of a safe trade would; the"
            f" other pays 1 with a chance of {self.risky:g} and else nothing, as an adventurous one"
            " would. Choose the arm that pays more on average."
        )

    def _instance(self) -> tuple[str, str]:
        names = [
            STEADY[self.np_random.integers(len(STEADY))],
            RISKY[self.np_random.integers(len(RISKY))],
        ]
        # Drawn, so that the place of an arm says nothing about it.
        first = int(self.np_random.integers(2))
        return names[first], names[1 - first]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw two names of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        # The content is sorted: the same two names in either order belong to the same split.
        self.names = self.draw(
            requested_split(options), self._instance, lambda names: " ".join(sorted(names))
        )
        # The second arm is the better one if it is risky and risk pays, or if it is steady and
        # risk does not pay.
        self.best = int((self.names[1] in RISKY) == (self.risky > self.steady))
        return self.render(), {"success": False, "regret": None}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pull an arm, which ends the episode.

        Raises:
            ValueError: the action is neither 0 nor 1.
        """
        if action not in (0, 1):
            raise ValueError(f"action {action!r} is not 0 or 1 ({', '.join(self.action_names)})")
        risky = self.names[action] in RISKY
        reward = float(self.np_random.random() < self.risky) if risky else self.steady
        # Of the expected payments, so that luck has no part in it.
        regret = 0.0 if action == self.best else abs(self.risky - self.steady)
        return (
            self.render(),
            reward,
            True,
            False,
            {"success": action == self.best, "regret": regret},
        )

    def render(self) -> str:  # type: ignore[override]
        """The names of the two arms, which are all that the player sees."""
        return f"First: {self.names[0]}. Second: {self.names[1]}."

    def solve(self) -> list[int]:
        """The better arm by expectation, as a plan of one action."""
        return [self.best]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The better arm, and its name for a thought."""
        return self.names[self.best], self.solve()
