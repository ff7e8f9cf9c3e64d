"""Blackjack with Gymnasium's rules, and the expected reward of every hand.

The expected rewards are exact, by dynamic programming over the sums of the two hands.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ragen_lite.envs.games.described import Described


class Blackjack(Described):
    """Beat the dealer (Gymnasium's Blackjack-v1, Sutton and Barto's rules); success is a win.

    The reward is Gymnasium's: +1 a win, 0 a draw, -1 a loss. An instance is the first two cards and
    the dealer's; the cards that follow are chance. ``optimal_success`` is not known,
    ``optimal_return`` is: the expected reward of best play with an endless deck. The regret of an
    action is the expected reward that it gave away.
    """

    action_names = ("Stick", "Hit")
    stochastic = True

    def __init__(
        self,
        max_turns: int = 10,
        max_actions_per_turn: int = 1,
        max_actions: int = 10,
        render_mode: str | None = None,
    ) -> None:
        # sab is Sutton and Barto's rule: an ace and a ten of the player win, unless the dealer has
        # them too.
        super().__init__(
            "Blackjack-v1", {"sab": True}, max_turns, max_actions_per_turn, max_actions, render_mode
        )
        self.turn_penalty = 1.0  # as much as a loss: no hand is so bad that nonsense pays

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            "You play blackjack: come closer to 21 than the dealer, but not above it. Number cards"
            " count their number, face cards 10, an ace 11 where it fits, else 1. Hit draws a card,"
            " Stick ends your turn; then the dealer draws up to 17."
        )

    def content(self, observation: Any) -> str:
        """The player's two cards, in either order, and the dealer's open card."""
        return f"{sorted(map(int, self.inner.player))} {int(observation[1])}"

    def wins(self, reward: float, terminated: bool) -> bool:
        """Whether a hand ends with the player ahead; a draw is no win."""
        return terminated and reward > 0

    def describe(self, observation: tuple[int, int, int]) -> str:  # type: ignore[override]
        """The player's cards and their sum, and the dealer's open card."""
        total, dealer, soft = map(int, observation)
        cards = " ".join("ace" if card == 1 else str(int(card)) for card in self.inner.player)
        ace = " with an ace as 11" if soft else ""
        return (
            f"Your cards: {cards}, sum {total}{ace}. Dealer shows"
            f" {'ace' if dealer == 1 else dealer}."
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Deal an instance of ``options["split"]`` (``train`` where it is left out)."""
        text, info = super().reset(seed=seed, options=options)
        self.optimal_return = max(self._values())
        return text, info | {"optimal_return": self.optimal_return, "regret": None}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Stick or hit; the reward is Gymnasium's."""
        values = self._values()  # of the hand before the action, which the regret is about
        text, _, terminated, truncated, info = super().step(action)
        regret = max(values) - values[action]
        info |= {"optimal_return": self.optimal_return, "regret": regret}
        return text, info["native_reward"], terminated, truncated, info

    def _values(self) -> tuple[float, float]:
        """Expected reward (stick, hit) of the present hand."""
        total, dealer, soft = self.state
        stick, hit = hand_values(int(total), int(dealer), bool(soft))
        if sorted(map(int, self.inner.player)) == [
            1,
            10,
        ]:
            # A natural beats all but the dealer's own, which is a draw. The dealer has one with
            # the chance of a ten beside an open ace, or of an ace beside an open ten.
            stick = 1 - {1: 4 / 13, 10: 1 / 13}.get(int(dealer), 0.0)
        return stick, hit

    def solve(self) -> list[int] | None:
        """The action of the higher expected reward, as a plan of one action."""
        return [int(np.argmax(self._values()))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The solver's action, with the sum as its thought."""
        return f"{self.state[0]} against {self.state[1]}", self.solve() or []


# Each rank with its chance. 10 stands for four of the thirteen: ten, jack, queen and king; 1 is
# the ace.
CARDS = [(rank, 4 / 13 if rank == 10 else 1 / 13) for rank in range(1, 11)]


@cache
def dealer_ends(total: int, soft: bool) -> tuple[float, ...]:
    """Chances (6,) that the dealer ends with 17, 18, 19, 20, 21 or bust.

    The dealer draws from an endless deck until the hand counts 17 or more.

    Args:
        total: the sum of the dealer's cards, with every ace as 1.
        soft: whether there is an ace, so that one of them may count 11.
    """
    best = total + 10 if soft and total + 10 <= 21 else total
    if best > 21:
        return (0.0,) * 5 + (1.0,)
    if best >= 17:
        return tuple(float(best == end) for end in (17, 18, 19, 20, 21, 22))
    ends = np.zeros(6)
    for card, p in CARDS:
        ends += p * np.array(dealer_ends(total + card, soft or card == 1))
    return tuple(map(float, ends))


@cache
def hand_values(total: int, dealer: int, soft: bool) -> tuple[float, float]:
    """Expected reward (stick, hit) of a hand whose sum is ``total``, best play following a hit.

    Args:
        total: the sum of the player's cards, with an ace as 11 where ``soft``.
        dealer: the dealer's open card; 1 is an ace.
        soft: whether an ace counts 11 in ``total``.

    >>> [round(value, 3) for value in hand_values(20, 10, False)]
    [0.435, -0.855]
    """
    ends = dealer_ends(dealer, dealer == 1)
    # A dealer that goes bust loses 1; else the higher sum wins, and equal sums are a draw.
    stick = ends[5] + sum(
        p * np.sign(total - end) for p, end in zip(ends, (17, 18, 19, 20, 21), strict=False)
    )
    hit = 0.0
    for card, p in CARDS:
        after = total + card
        ace = soft
        # At most one ace can count 11: two would make 22.
        if card == 1 and not soft and after + 10 <= 21:
            after = after + 10
            ace = True
        if after > 21 and ace:  # the ace falls back from 11 to 1
            after = after - 10
            ace = False
        hit += p * (-1.0 if after > 21 else max(hand_values(after, dealer, ace)))
    return float(stick), float(hit)
