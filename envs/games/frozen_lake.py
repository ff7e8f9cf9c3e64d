"""FrozenLake with Gymnasium's own dynamics and RAGEN's symbols.

Maps are drawn in any size, and the goal of each can be reached.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

from ragen_lite.envs.games.described import Described, squares
from ragen_lite.envs.games.game import or_default
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split


class FrozenLake(Described):
    """Walk over the ice to the goal and into no hole.

    Args:
        size: rows and columns of the map.
        frozen: chance of a square to be ice.
        slippery: whether two moves in three slide to a side (Gymnasium's ``is_slippery``).
        success_rate: chance of going where one wants on slippery ice (Gymnasium's).
        min_cost, max_cost: fewest and most actions a map must need, on ice that is not slippery;
            null is ``max_actions``.
        max_turns, max_actions_per_turn, max_actions: the budgets; null takes what suits the size.

    Raises:
        ValueError: an option is out of range, or no map can need ``min_cost`` actions.

    Start and goal are anywhere. Rewards are those of every game here (-0.1 an action, +10 at the
    goal); a hole ends it.
    """

    action_names = ("Left", "Down", "Right", "Up")

    def __init__(
        self,
        size: int = 4,
        frozen: float = 0.75,
        slippery: bool = False,
        success_rate: float = 1 / 3,
        min_cost: int = 2,
        max_cost: int | None = None,
        max_turns: int | None = None,
        max_actions_per_turn: int | None = None,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not 2 <= size <= 32 or not 0 < frozen <= 1 or not 0 < success_rate <= 1:
            raise ValueError(
                f"size={size}, frozen={frozen}, success_rate={success_rate}: a lake has 2 to 32"
                " rows, and its two chances lie above 0 and up to 1"
            )
        # Two opposite corners are 2 * (size - 1) moves apart; ``size`` more leave room for a way
        # around holes. On slippery ice a move often fails, so there are more, each a turn.
        actions = or_default(max_actions, 5 * size if slippery else 3 * size - 2)
        each = or_default(max_actions_per_turn, 1 if slippery else size)
        # A shortest way enters no square twice, so it has fewer moves than there are squares.
        most = or_default(max_cost, actions)
        if not 1 <= min_cost <= most <= actions or min_cost >= size * size:
            raise ValueError(
                f"min_cost={min_cost}, max_cost={most}: a way of a {size}x{size} lake has 1 to"
                f" {size * size - 1} moves, and {actions} actions are allowed"
            )
        self.size = size
        self.frozen = frozen
        self.slippery = slippery
        self.success_rate = success_rate
        self.min_cost = min_cost
        self.max_cost = most
        self.stochastic = slippery
        # 1.5 times the turns that the actions fill.
        turns = actions if slippery else math.ceil(1.5 * actions / max(1, each))
        self.budget(or_default(max_turns, turns), each, actions)
        self.render_mode = render_mode
        self.action_space = gym.spaces.Discrete(4)
        # Two characters a square, and a line with the places of the player and the goal.
        self.observation_space = text_space(2 * size * size + 40)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        chance = f"{self.success_rate:.0%}" if self.slippery else ""
        slip = (
            f" The ice is slippery: {chance} of the moves go where you want, the others to a side."
            if chance
            else ""
        )
        return (
            f"You cross a frozen lake of {self.size}x{self.size} squares to the goal G and avoid"
            " the holes O.\nSymbols: P you, _ ice, O hole, G goal. Positions are (row,column),"
            " counted from (0,0) at the top left.\nLeft, Down, Right and Up move you one square;"
            f" the edge stops you.{slip}"
        )

    def _map(self) -> tuple[str, ...]:
        """A map whose goal can be reached: rows of S, F, H and G."""
        n = self.size * self.size
        for _ in range(10_000):
            cells = np.where(self.np_random.random(n) < self.frozen, "F", "H")
            start, goal = self.np_random.choice(n, 2, replace=False)
            # Start and goal replace what was drawn there, so neither is ever a hole.
            cells[start] = "S"
            cells[goal] = "G"
            rows = tuple("".join(row) for row in cells.reshape(self.size, self.size))
            if self.min_cost <= distance(rows) <= self.max_cost:
                return rows
        raise RuntimeError(
            f"no {self.size}x{self.size} lake with frozen={self.frozen} whose goal is"
            f" {self.min_cost} to {self.max_cost} moves away, in 10,000 draws: freeze more, or"
            " ask for less"
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a map of ``options["split"]`` (``train`` where it is left out)."""
        gym.Env.reset(self, seed=seed)
        self.map = self.draw(requested_split(options), self._map, "\n".join)
        self.inner = FrozenLakeEnv(
            desc=list(self.map), is_slippery=self.slippery, success_rate=self.success_rate
        )
        self._plan()  # each map has its own table
        self.state = self.inner.reset(seed=0)[0]  # the seed decides nothing: a map has one start
        self._won = False
        text, info = self.begin(native_reward=0.0)
        return text, info | self._chance(None)

    def describe(self, state: int) -> str:  # type: ignore[override]
        """The lake, and where you and the goal are."""
        signs = {"S": "_", "F": "_", "H": "O", "G": "G"}
        rows = [[signs[cell] for cell in row] for row in self.map]
        row, column = divmod(int(state), self.size)
        rows[row][column] = "P"
        goal = "".join(self.map).index("G")
        return f"{squares(rows)}\nP ({row},{column}), G ({goal // self.size},{goal % self.size})"

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The solver's next actions; the thought is the squares they lead over."""
        actions = (self.solve() or self.guess(rng))[: self.max_actions_per_turn]
        row, column = divmod(int(self.state), self.size)
        # On slippery ice this is the square that is aimed at.
        path = []
        for action in actions:
            row += (action == 1) - (action == 3)
            column += (action == 2) - (action == 0)
            path.append(f"({row},{column})")
        return " ".join(path), actions


def distance(rows: tuple[str, ...]) -> float:
    """Fewest moves from S to G over ice that is not slippery; inf where there is no way.

    A breadth-first search: ``frontier`` holds the squares that are ``steps`` moves from S.
    """
    size = len(rows)
    cells = "".join(rows)
    reached = {cells.index("S")}
    frontier = [cells.index("S")]
    steps = 0
    while frontier:
        steps += 1
        following = []
        for square in frontier:
            row, column = divmod(square, size)
            # ``inside`` keeps a move off the edge from wrapping around to the next row.
            for near, inside in (
                (square - 1, column > 0),
                (square + 1, column < size - 1),
                (square - size, row > 0),
                (square + size, row < size - 1),
            ):
                if not inside or near in reached or cells[near] == "H":
                    continue
                if cells[near] == "G":
                    return steps
                reached.add(near)
                following.append(near)
        frontier = following
    return math.inf
