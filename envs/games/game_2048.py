"""2048: slide and merge tiles until one reaches the target."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.games.game import Game
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

Line = tuple[int, ...]  # tiles as powers of two, 0 where empty
TWO = 0.9  # probability of a new tile to be 2; else it is 4


@cache
def slide(line: Line) -> tuple[Line, Line]:
    """A line slid to its front.

    Returns the line after it, and the powers of the tiles that merged into being. A tile merges
    once in a slide.

    >>> slide((1, 1, 2, 0))
    ((2, 2, 0, 0), (2,))
    """
    tiles = [t for t in line if t]  # the gaps close first, so tiles merge across them
    merged = []
    out = []
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile = tiles.pop(0) + 1  # twice the number is the next power
            merged.append(tile)
        out.append(tile)
    return tuple(out + [0] * (len(line) - len(out))), tuple(merged)


@lru_cache(maxsize=4)
def lines_of(size: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The cells of each line, front first, for Up, Right, Down and Left.

    The front is the edge towards which the tiles slide. The shape is 4 actions x ``size`` lines x
    ``size`` cells, and cells are numbered row by row.
    """
    rows = [tuple(range(r * size, r * size + size)) for r in range(size)]
    columns = [tuple(range(c, size * size, size)) for c in range(size)]
    back = [tuple(reversed(line)) for line in rows], [tuple(reversed(line)) for line in columns]
    return tuple(columns), tuple(back[0]), tuple(back[1]), tuple(rows)


def slid(board: Line, action: int, size: int) -> tuple[Line, tuple[int, ...]]:
    """The board slid (before a new tile comes), and the powers of the tiles that merged.

    Args:
        board: powers row by row, 0 where a cell is empty.
        action: 0 to 3 for Up, Right, Down and Left.
        size: rows and columns of the board.
    """
    after = list(board)
    merged = list[int]()
    for cells in lines_of(size)[action]:
        line, made = slide(tuple([board[cell] for cell in cells]))
        merged += made
        for cell, tile in zip(cells, line, strict=True):
            after[cell] = tile
    return tuple(after), tuple(merged)


class Game2048(Game):
    """Merge tiles until one shows the target.

    Args:
        size: rows and columns.
        target: the tile that wins, a power of two.
        max_turns, max_actions_per_turn, max_actions: the budgets; a slide that moves nothing costs
            its action.

    Chance brings the new tiles (2 with 0.9, 4 with 0.1), so there is no promise of success; each
    target can be reached within the budget (a slide makes one tile, of 2 at least). Rewards are
    Game's, and 0.1 x log2 of every tile that merges into being. A board without a move ends it.
    """

    action_names = ("Up", "Right", "Down", "Left")
    stochastic = True
    regret = False  # no exact cost is known: the solver only looks ahead

    def __init__(
        self,
        size: int = 4,
        target: int = 64,
        max_turns: int = 10,
        max_actions_per_turn: int = 5,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not 2 <= size <= 8:
            raise ValueError(f"size={size}: a board has 2 to 8 rows")
        # From new tiles of 2 alone, n cells suffice for a tile of 2 to the power of n.
        if target < 8 or target & (target - 1) or math.log2(target) > size * size:
            raise ValueError(
                f"target={target}: it must be a power of two from 8 that fits {size}x{size} cells"
            )
        self.size = size
        self.goal = int(math.log2(target))
        self.render_mode = render_mode
        self.budget(max_turns, max_actions_per_turn, max_actions)
        # A merge keeps the sum of the tiles. The first two bring a sum of at least 4, and each
        # slide brings 2 (nine times in ten) or 4 more.
        if self.max_actions < target // 2 - 2:
            raise ValueError(
                f"max_actions={self.max_actions}: a {target} needs about {target // 2 - 2} slides;"
                " raise the budgets"
            )
        self.action_space = gym.spaces.Discrete(4)
        self.observation_space = text_space(6 * size * size)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            f"You play 2048 on {self.size}x{self.size} cells: Up, Right, Down and Left slide all"
            " tiles; two of the same number merge into their sum. After a slide that moves"
            f" something a new tile, 2 or 4, appears. Make a {2**self.goal}. _ is an empty cell."
        )

    def _with_new_tile(self, board: Line) -> Line:
        """The board with a 2 or a 4 in a random empty cell, of which there must be one."""
        empty = [cell for cell, tile in enumerate(board) if not tile]
        cell = empty[self.np_random.integers(len(empty))]
        tile = 1 if self.np_random.random() < TWO else 2
        return (*board[:cell], tile, *board[cell + 1 :])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw the first two tiles, of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        nothing = (0,) * self.size**2
        self.board = self.draw(
            requested_split(options), lambda: self._with_new_tile(self._with_new_tile(nothing)), str
        )
        return self.begin(largest=2 ** max(self.board))

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Slide; see the class for rewards. ``info["largest"]`` is the largest tile."""
        after, merged = slid(self.board, self.check_action(action), self.size)
        if after != self.board:
            self.board = self._with_new_tile(after)
        largest = max(self.board)
        # Up and Right are enough: a full board that slides one way slides the opposite way too.
        stuck = 0 not in self.board and all(
            slid(self.board, a, self.size)[0] == self.board for a in (0, 1)
        )
        return self.end_step(largest >= self.goal, 0.1 * sum(merged), stuck, largest=2**largest)

    def text(self) -> str:
        """The board."""
        rows = (self.board[i : i + self.size] for i in range(0, len(self.board), self.size))
        return "\n".join(
            [" ".join([str(2**tile) if tile else "_" for tile in row]) for row in rows]
        )

    def solve(self) -> list[int]:
        """A good plan, not the best: one turn of slides.

        Each slide is the best by ``worth`` two slides deep. The new tiles are left out of it, since
        they are not known yet.
        """
        board = self.board
        plan = []
        for _ in range(self.max_actions_per_turn):
            # The negative action: of equal slides the first in the order of the actions is taken.
            options = [
                (self._look(after, 1), -a)
                for a in range(4)
                if (after := slid(board, a, self.size)[0]) != board
            ]
            if not options:
                break
            plan.append(-max(options)[1])
            board = slid(board, plan[-1], self.size)[0]
        return plan or [0]  # a turn needs an action, even one that moves nothing

    def _look(self, board: Line, depth: int) -> float:
        """The best ``worth`` within reach of ``depth`` more slides, without new tiles."""
        following = [after for a in range(4) if (after := slid(board, a, self.size)[0]) != board]
        if depth == 0 or not following:
            return worth(board)
        return max(self._look(after, depth - 1) for after in following)

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The solver's turn; the thought is the largest tile."""
        return f"largest {2 ** max(self.board)}", self.solve()

    def wander(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """One turn into the upper right corner.

        Each slide is Up or Right, whichever merges more. Left and Down come only where neither
        moves anything.
        """
        board = self.board
        plan = []
        for _ in range(self.max_actions_per_turn):
            # In the order of preference, since ``max`` takes the first of equals: Left before Down.
            slides = {a: slid(board, a, self.size) for a in (0, 1, 3, 2)}
            moving = {
                a: sum(2**tile for tile in made)
                for a, (after, made) in slides.items()
                if after != board
            }
            if not moving:
                break
            plan.append(max(moving, key=lambda a: moving[a] if a < 2 else -1))
            board = slides[plan[-1]][0]
        return "corner", plan or [0]


def worth(board: Line) -> float:
    """How good a board looks: the sum of the squares of its tiles.

    Few large tiles are worth more than many small ones of the same sum.
    """
    # ``tile`` is a power: the square of 2**tile is 4**tile.
    return float(sum(4**tile for tile in board))
