"""Discrete Gymnasium environments as text: an environment, a sentence for each state, and the words for its actions.

CliffWalking, Taxi and Blackjack are Gymnasium's own, dynamics and all; rewards are those of every game here (-0.1 an
action, +10 solved), with -1 for what the environment itself punishes. Its own reward is ``info["native_reward"]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ragen_lite.envs.base import Game, text_space, wanted_split

Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]  # Gymnasium's ``P``: state, action -> outcomes
Floats = NDArray[np.float64]


class Model:
    """A tabular environment's dynamics as arrays, and the plans that follow from them.

    Args:
        table: Gymnasium's ``P``, of S states and A actions.
        wins: whether a transition (reward, terminated) reaches the goal.

    Attributes: probability, goal, ends (S, A, K) and after (S, A, K), padded with outcomes of probability 0.
    """

    def __init__(self, table: Table, wins: Callable[[float, bool], bool]) -> None:
        states, actions = len(table), len(table[0])
        width = max(len(table[s][a]) for s in table for a in table[s])
        self.probability = np.zeros((states, actions, width))
        self.after = np.zeros((states, actions, width), dtype=np.int64)
        self.goal = np.zeros((states, actions, width))
        self.ends = np.ones((states, actions, width), dtype=bool)
        for s, row in table.items():
            for a, outcomes in row.items():
                for k, (p, to, reward, terminated) in enumerate(outcomes):
                    self.probability[s, a, k], self.after[s, a, k] = p, to
                    self.goal[s, a, k], self.ends[s, a, k] = wins(reward, terminated), terminated

    def q(self, value: Floats) -> Floats:
        """Chance of success (S, A) of an action, where ``value`` (S,) is the chance from the next state on."""
        future = np.where(self.ends, 0.0, value[self.after])
        chance: Floats = (self.probability * np.where(self.goal > 0, 1.0, future)).sum(-1)
        return chance

    def horizon(self, steps: int) -> Floats:
        """Best chance of success (steps + 1, S) with that many actions left: finite-horizon value iteration."""
        values = np.zeros((steps + 1, len(self.after)))
        for left in range(1, steps + 1):
            values[left] = self.q(values[left - 1]).max(-1)
        return values

    def costs(self) -> Floats:
        """Fewest actions to the goal (S,) of a deterministic environment; inf where it is out of reach."""
        cost = np.full(len(self.after), math.inf)
        while True:
            after, goal, ends = self.after[..., 0], self.goal[..., 0] > 0, self.ends[..., 0]
            step = 1 + np.where(goal, 0.0, np.where(ends, math.inf, cost[after]))
            better = np.minimum(cost, step.min(-1))
            if np.array_equal(better, cost):
                return cost
            cost = better


class Described(Game):
    """A Gymnasium environment with Discrete actions, described state by state.

    Subclass it with the environment's id, ``action_names``, ``instructions`` and ``describe``; where the environment
    has Gymnasium's table ``P``, the optimum, the regret and the solver come by themselves.

    Args:
        env_id: any registered environment; ``env_kwargs`` go to it.
        max_turns, max_actions_per_turn, max_actions: the budgets.

    ``info``: Game's costs where the dynamics are deterministic; where they are not, optimal_success (the best chance of
    success within the budget, at the start) and regret as the chance that an action gave away; native_reward.
    """

    LENGTH = 300  # characters of a description
    describe: Callable[[Any], str]

    def __init__(
        self,
        env_id: str,
        env_kwargs: dict[str, Any],
        max_turns: int,
        max_actions_per_turn: int,
        max_actions: int,
        render_mode: str | None = None,
    ) -> None:
        self.budget(max_turns, max_actions_per_turn, max_actions)
        self.inner: Any = gym.make(env_id, disable_env_checker=True, **env_kwargs).unwrapped
        self.render_mode = render_mode
        actions: Any = self.inner.action_space
        self.action_space = gym.spaces.Discrete(actions.n)
        self.observation_space = text_space(self.LENGTH)
        self._plan()

    def wins(self, reward: float, terminated: bool) -> bool:
        """Whether a transition reaches the goal."""
        return terminated and reward > 0

    def content(self, observation: Any) -> str:
        """The instance as text, by which it belongs to a split."""
        return str(observation)

    def _plan(self) -> None:
        """Work out the optimum of a tabular environment."""
        table: Table | None = getattr(self.inner, "P", None)
        self.model = Model(table, self.wins) if table else None
        self._table = self._chances = None
        if self.model is None:
            return
        self.stochastic = bool((self.model.probability[..., 0] < 1).any())
        if self.stochastic:
            self._chances = self.model.horizon(self.max_actions)
        else:
            self._table = self.model.costs()

    def begin_inner(self) -> Any:
        """Draw a start; returns the environment's observation. Its randomness is the task's own."""
        return self.inner.reset(seed=int(self.np_random.integers(2**31)))[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw a start of ``options["split"]`` (``train`` where it is left out)."""
        gym.Env.reset(self, seed=seed)
        self.state, self._won = self.draw(wanted_split(options), self.begin_inner, self.content), False
        text, info = self.begin(native_reward=0.0)
        return text, info | self._chance(None)

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action; see the class for rewards and info."""
        action = self.chosen(action)
        lost = self._given_away(action)
        self.inner.np_random = self.np_random  # chance is the task's, and so the member's
        self.state, native, terminated, _, _ = self.inner.step(action)
        self._won = success = self.wins(float(native), bool(terminated))
        gained = -1.0 if native < -1 else 0.0
        *result, info = self.after(success, gained, bool(terminated), native_reward=float(native))
        return *result, info | self._chance(lost)  # type: ignore[return-value]

    def _given_away(self, action: int) -> float | None:
        left = self.max_actions - self.actions_taken
        if self.model is None or self._chances is None or left < 1:
            return None
        q = self.model.q(self._chances[left - 1])[self.state]
        return float(q.max() - q[action])

    def _chance(self, lost: float | None) -> dict[str, Any]:
        if self._chances is None:
            return {}
        if self.actions_taken == 0:
            self.optimal_success = float(self._chances[self.max_actions][self.state])
        return {"optimal_success": self.optimal_success, "regret": lost}

    def text(self) -> str:
        """The description of the present state."""
        return self.describe(self.state)

    def cost_to_go(self) -> float | None:
        """Actions to the goal; None where chance decides."""
        if self._table is None:
            return None
        return 0.0 if self._won else float(self._table[self.state])

    def solve(self) -> list[int] | None:
        """A shortest path to the goal; where chance decides, the one best action."""
        if self.model is None:
            return None
        if self._chances is not None:
            left = max(1, self.max_actions - self.actions_taken)
            return [int(self.model.q(self._chances[left - 1])[self.state].argmax())]
        assert self._table is not None
        state, plan = int(self.state), []
        if not math.isfinite(self._table[state]):
            return None
        while True:
            goal, after = self.model.goal[state, :, 0] > 0, self.model.after[state, :, 0]
            cost = np.where(goal, 0.0, np.where(self.model.ends[state, :, 0], math.inf, self._table[after]))
            plan.append(int(cost.argmin()))
            if goal[plan[-1]]:
                return plan
            state = int(after[plan[-1]])

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The next actions of the solver; the thought is how far there is to go."""
        plan = (self.solve() or self.guess(rng))[: self.max_actions_per_turn]
        cost = self.cost_to_go()
        return "" if cost is None else f"{cost:g} to go", plan


def squares(rows: Sequence[Sequence[str]]) -> str:
    """A board as text: symbols apart, rows on lines of their own."""
    return "\n".join(" ".join(row) for row in rows)


class CliffWalking(Described):
    """Walk to the goal past the cliff (Gymnasium's CliffWalking-v1); a fall costs 1 and puts you back.

    Args:
        slippery: whether a move slides sideways with probability 2/3.

    An instance is a start: any square but the cliff's and the goal's.
    """

    action_names = ("Up", "Right", "Down", "Left")

    def __init__(
        self,
        slippery: bool = False,
        max_turns: int | None = None,
        max_actions_per_turn: int | None = None,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        # On slippery ground the shore takes long, and a plan of several actions is soon out of date.
        turns, each, total = (100, 1, 100) if slippery else (5, 5, 20)
        super().__init__(
            "CliffWalking-v1",
            {"is_slippery": slippery},
            max_turns or turns,
            max_actions_per_turn or each,
            max_actions or total,
            render_mode,
        )
        self.turn_penalty = 1.1 * self.max_actions_per_turn

    @property
    def instructions(self) -> str:
        slip = " The ground is slippery: two moves in three slide to a side." if self.stochastic else ""
        return (
            "You walk in a field of 4x12 squares to the goal G, past a cliff.\nSymbols: P you, _ ground, C "
            "cliff, G goal. Positions are (row,column), counted from (0,0) at the top left.\nUp, Right, Down and "
            f"Left move you one square. A step onto the cliff costs 1 and puts you back to (3,0).{slip}"
        )

    def wins(self, reward: float, terminated: bool) -> bool:
        return terminated

    def begin_inner(self) -> int:
        """Any square above the cliff, or the corner beside it."""
        self.inner.reset(seed=0)
        self.inner.s = int(self.np_random.integers(37))
        self.inner.lastaction = None
        return int(self.inner.s)

    def describe(self, state: int) -> str:  # type: ignore[override]
        """The field, and where you and the goal are."""
        rows = [["_"] * 12 for _ in range(4)]
        rows[3][1:] = ["C"] * 10 + ["G"]
        row, column = divmod(int(state), 12)
        rows[row][column] = "P"
        return f"{squares(rows)}\nP ({row},{column}), G (3,11)"


PLACES = ("Red", "Green", "Yellow", "Blue")
CORNERS = ((0, 0), (0, 4), (4, 0), (4, 3))


class Taxi(Described):
    """Fetch a passenger and bring them to their destination (Gymnasium's Taxi-v4).

    An instance is a start: taxi, passenger and destination. A pick-up or drop-off in the wrong place costs 1.
    """

    action_names = ("South", "North", "East", "West", "Pickup", "Dropoff")

    def __init__(
        self,
        max_turns: int = 6,
        max_actions_per_turn: int = 6,
        max_actions: int = 30,
        render_mode: str | None = None,
    ) -> None:
        super().__init__("Taxi-v4", {}, max_turns, max_actions_per_turn, max_actions, render_mode)
        self.turn_penalty = 1.1 * max_actions_per_turn

    @property
    def instructions(self) -> str:
        places = ", ".join(f"{name} ({row},{column})" for name, (row, column) in zip(PLACES, CORNERS, strict=True))
        return (
            "You drive a taxi in a city of 5x5 squares: fetch the passenger and bring them to the destination.\n"
            f"Positions are (row,column), counted from (0,0) at the top left. The places are {places}. "
            "Walls stand on both sides between columns 1 and 2 in rows 0 and 1, between columns 0 and 1 and between "
            "columns 2 and 3 in rows 3 and 4.\nSouth, North, East and West drive one square; Pickup and Dropoff in the "
            "wrong place cost 1."
        )

    def describe(self, state: int) -> str:  # type: ignore[override]
        """Where the taxi, the passenger and the destination are."""
        row, column, passenger, destination = self.inner.decode(int(state))
        where = "in the taxi" if passenger == 4 else f"at {PLACES[passenger]}"
        return f"Taxi ({row},{column}), passenger {where}, destination {PLACES[destination]}"


class Blackjack(Described):
    """Beat the dealer (Gymnasium's Blackjack-v1, Sutton and Barto's rules); success is a win.

    The reward is Gymnasium's: +1 a win, 0 a draw, -1 a loss. An instance is the first two cards and the dealer's; the
    cards that follow are chance. ``optimal_success`` is not known, ``optimal_return`` is: the expected reward of
    best play with an endless deck.
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
        super().__init__("Blackjack-v1", {"sab": True}, max_turns, max_actions_per_turn, max_actions, render_mode)
        self.turn_penalty = 1.0

    @property
    def instructions(self) -> str:
        return (
            "You play blackjack: come closer to 21 than the dealer, but not above it. Number cards count their number, "
            "face cards 10, an ace 11 where it fits, else 1. Hit draws a card, Stick ends your turn; then the "
            "dealer draws up to 17."
        )

    def content(self, observation: Any) -> str:
        return f"{sorted(map(int, self.inner.player))} {int(observation[1])}"

    def wins(self, reward: float, terminated: bool) -> bool:
        return terminated and reward > 0

    def describe(self, observation: tuple[int, int, int]) -> str:  # type: ignore[override]
        """The player's cards and their sum, and the dealer's open card."""
        total, dealer, soft = map(int, observation)
        cards = " ".join("ace" if card == 1 else str(int(card)) for card in self.inner.player)
        ace = " with an ace as 11" if soft else ""
        return f"Your cards: {cards}, sum {total}{ace}. Dealer shows {'ace' if dealer == 1 else dealer}."

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Deal an instance of ``options["split"]`` (``train`` where it is left out)."""
        text, info = super().reset(seed=seed, options=options)
        self.optimal_return = max(hand_values(*self._hand()))
        return text, info | {"optimal_return": self.optimal_return, "regret": None}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Stick or hit; the reward is Gymnasium's."""
        values = hand_values(*self._hand())
        text, _, terminated, truncated, info = super().step(action)
        regret = max(values) - values[action]
        info |= {"optimal_return": self.optimal_return, "regret": regret}
        return text, info["native_reward"], terminated, truncated, info

    def _hand(self) -> tuple[int, int, bool]:
        total, dealer, soft = self.state
        return int(total), int(dealer), bool(soft)

    def solve(self) -> list[int] | None:
        """The action of the higher expected reward."""
        return [int(np.argmax(hand_values(*self._hand())))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The solver's action, with the sum as its thought."""
        return f"{self.state[0]} against {self.state[1]}", self.solve() or []


CARDS = [(rank, 4 / 13 if rank == 10 else 1 / 13) for rank in range(1, 11)]


@cache
def dealer_ends(total: int, soft: bool) -> tuple[float, ...]:
    """Chances that the dealer ends with 17, 18, 19, 20, 21 or bust, drawing from an endless deck up to 17.

    ``total`` counts aces as 1; ``soft`` says that one of them may count 11.
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

    >>> [round(value, 3) for value in hand_values(20, 10, False)]
    [0.435, -0.847]
    """
    ends = dealer_ends(dealer, dealer == 1)
    stick = ends[5] + sum(p * np.sign(total - end) for p, end in zip(ends, (17, 18, 19, 20, 21), strict=False))
    hit = 0.0
    for card, p in CARDS:
        after, ace = total + card, soft
        if card == 1 and not soft and after + 10 <= 21:
            after, ace = after + 10, True
        if after > 21 and ace:
            after, ace = after - 10, False
        hit += p * (-1.0 if after > 21 else max(hand_values(after, dealer, ace)))
    return float(stick), float(hit)
