"""Sudoku, 4x4 and 9x9: every puzzle has exactly one solution, and the budgets suffice for it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.games.game import Game, or_default
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

Grid = tuple[int, ...]  # the digits row by row, 0 where empty


class Shape:
    """The units of an n x n board: which row, column and box each cell belongs to.

    Units are numbered: n rows, then n columns, then n boxes. A set of digits is a number whose bit
    d - 1 stands for the digit d.

    Attributes:
        size: rows and columns, n.
        box: rows and columns of a box.
        all: the set of all digits.
        units: the three units of each cell, cells row by row.
    """

    def __init__(self, size: int) -> None:
        self.box = box = {4: 2, 9: 3}[size]
        self.size = size
        self.all = (1 << size) - 1
        cells = [divmod(cell, size) for cell in range(size * size)]
        self.units = []
        for r, c in cells:
            square = (r // box) * box + c // box
            self.units.append((r, size + c, 2 * size + square))

    def used(self, grid: Grid | list[int]) -> list[int]:
        """The set of digits that each of the 3n units holds."""
        used = [0] * (3 * self.size)
        for cell, digit in enumerate(grid):
            if digit:
                for unit in self.units[cell]:
                    used[unit] |= 1 << (digit - 1)
        return used

    def solutions(
        self, grid: Grid | list[int], limit: int, order: np.ndarray[Any, Any] | None = None
    ) -> list[Grid]:
        """Up to ``limit`` solutions, by backtracking.

        Args:
            grid: the digits row by row, 0 where empty.
            limit: solutions to stop at; 2 are enough to see that there is more than one.
            order: the digits in the order in which they are tried; from 1 up where it is None.
        """
        board = list(grid)
        used = self.used(grid)
        found = []
        digits = [int(d) for d in order] if order is not None else range(1, self.size + 1)
        empty = [cell for cell, digit in enumerate(board) if not digit]

        def search() -> bool:
            """Fill the rest of the board; True once ``limit`` solutions are found."""
            # The empty cell with the fewest candidates: there the search branches least.
            best = -1
            options = 0
            fewest = 99  # more than any cell has
            for cell in empty:
                if not board[cell]:
                    a, b, c = self.units[cell]
                    free = self.all & ~(used[a] | used[b] | used[c])
                    count = free.bit_count()
                    if count < fewest:
                        best = cell
                        options = free
                        fewest = count
                        if count < 2:  # forced, or a dead end: no cell is better to take
                            break
            if best < 0:  # no cell is empty
                found.append(tuple(board))
                return len(found) >= limit
            for digit in digits:
                bit = 1 << (digit - 1)
                if options & bit:
                    board[best] = digit
                    for unit in self.units[best]:
                        used[unit] |= bit
                    if search():
                        return True
                    board[best] = 0
                    for unit in self.units[best]:
                        used[unit] &= ~bit
            return False

        search()
        return found


SHAPES = {size: Shape(size) for size in (4, 9)}


class Sudoku(Game):
    """Fill the board so that every row, column and box has each digit once.

    Args:
        size: 4 or 9.
        min_empty, max_empty: empty cells of an instance; null takes 4 to 8 of 16, or 20 to 30 of
            81. 9x9 boards with one solution are quick to make up to about 50.
        max_turns, max_actions_per_turn, max_actions: the budgets; null leaves half as many actions
            again as cells.

    A cell may be filled again; those of the puzzle stay. Rewards are Game's, and +1 for a cell that
    becomes right, -1 for one that stops being right, which sum to no more than the empty cells
    however often they are filled. The cost to go is the number of cells that are not right.

    Raises:
        ValueError: an option is out of range, or the budgets do not reach every cell.
    """

    def __init__(
        self,
        size: int = 4,
        min_empty: int | None = None,
        max_empty: int | None = None,
        max_turns: int | None = None,
        max_actions_per_turn: int | None = None,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if size not in SHAPES:
            raise ValueError(f"size={size}: a board has 4 or 9 rows")
        self.size = size
        self.render_mode = render_mode
        self.min_empty = or_default(min_empty, {4: 4, 9: 20}[size])
        self.max_empty = or_default(max_empty, max(self.min_empty, {4: 8, 9: 30}[size]))
        if not 1 <= self.min_empty <= self.max_empty <= {4: 12, 9: 56}[size]:
            raise ValueError(
                f"{self.min_empty} to {self.max_empty} empty cells: a {size}x{size} board takes 1"
                f" to { {4: 12, 9: 56}[size] }"
            )
        each = or_default(max_actions_per_turn, size)
        # 1.5 actions for each empty cell, rounded up to whole turns.
        turns = or_default(max_turns, -(-3 * self.max_empty // (2 * max(1, each))))
        self.budget(turns, each, max_actions)
        if self.max_actions < self.max_empty:
            raise ValueError(
                f"max_actions={self.max_actions} cannot fill max_empty={self.max_empty} cells:"
                " raise it"
            )
        # Action cell * size + digit - 1, cells row by row.
        self.action_names = tuple(
            f"({row},{column})={digit}"
            for row in range(size)
            for column in range(size)
            for digit in range(1, size + 1)
        )
        self.action_space = gym.spaces.Discrete(len(self.action_names))
        # A digit and what parts it from the next, for each cell.
        self.observation_space = text_space(2 * size * size)
        self.shape = SHAPES[size]

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        box = f"{self.shape.box}x{self.shape.box}"
        return (
            f"You solve a Sudoku of {self.size}x{self.size} cells: every row, every column and"
            f" every {box} box must hold each digit from 1 to {self.size} once. _ is an empty cell."
        )

    @property
    def action_help(self) -> str:  # type: ignore[override]
        """How a cell is filled."""
        return (
            f"(row,column)=digit fills a cell, such as (0,{self.size - 1})=2, counted from (0,0) at"
            " the top left; a cell that you filled can be filled again."
        )

    def _instance(self) -> tuple[Grid, Grid]:
        """A puzzle and its solution.

        A random full board is emptied cell by cell, as far as its solution stays the only one.
        """
        cells = self.size**2
        rng = self.np_random
        while True:
            wanted = int(rng.integers(self.min_empty, self.max_empty + 1))
            # The search completes a random first row, with the digits in random order. It takes the
            # cells in an order of its own, so rows and columns are shuffled afterwards.
            first = [0] * cells
            first[: self.size] = (rng.permutation(self.size) + 1).tolist()
            (solution,) = self.shape.solutions(first, 1, rng.permutation(self.size) + 1)
            rows = self._shuffled_lines()
            columns = self._shuffled_lines()
            solution = tuple(solution[r * self.size + c] for r in rows for c in columns)
            puzzle = list(solution)
            for cell in rng.permutation(cells):
                if puzzle.count(0) == wanted:
                    return tuple(puzzle), solution
                digit = puzzle[cell]
                puzzle[cell] = 0
                if len(self.shape.solutions(puzzle, 2)) > 1:  # this digit must stay
                    puzzle[cell] = digit

    def _shuffled_lines(self) -> list[int]:
        """Rows (or columns) in an order that keeps the boxes whole."""
        box = self.shape.box
        # Bands of ``box`` lines change places, and lines change places within their band.
        return [
            int(band * box + line)
            for band in self.np_random.permutation(box)
            for line in self.np_random.permutation(box)
        ]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a puzzle of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self.puzzle, self.solution = self.draw(
            requested_split(options), self._instance, lambda made: str(made[0])
        )
        self.grid = list(self.puzzle)
        self._wrong = self.grid.count(0)
        return self.begin()

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Fill a cell; see the class for rewards and Game for info."""
        cell, digit = divmod(self.check_action(action), self.size)
        # An action on a cell of the puzzle changes nothing, and still costs its step.
        gained = 0.0
        if not self.puzzle[cell]:
            right = self.solution[cell]
            gained = float(digit + 1 == self.solution[cell])
            gained -= float(self.grid[cell] == right)  # 0 for the right digit once more
            self.grid[cell] = digit + 1
            self._wrong -= int(gained)
        return self.end_step(self._wrong == 0, gained)

    def cost_to_go(self) -> float:
        """Cells that are not right: each takes one action, whatever stands in it."""
        return float(self._wrong)

    def text(self) -> str:
        """The board, a line for each row; _ is an empty cell."""
        rows = (self.grid[i : i + self.size] for i in range(0, len(self.grid), self.size))
        return "\n".join(
            [" ".join([str(digit) if digit else "_" for digit in row]) for row in rows]
        )

    def solve(self) -> list[int]:
        """A shortest solution: the right digit for each cell that is not right, row by row."""
        plan = []
        for cell, digit in enumerate(self.solution):
            if self.grid[cell] != digit:
                plan.append(cell * self.size + digit - 1)
        return plan

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The solver's digits for one turn, easiest cells first.

        Wrong digits are corrected first. Then comes the cell with the fewest candidates each time.
        The thought is which digits each cell sees in its row, column and box.
        """
        board = list(self.grid)
        thoughts = []
        plan = []
        for _ in range(min(self._wrong, self.max_actions_per_turn)):
            used = self.shape.used(board)
            seen = {
                cell: used[a] | used[b] | used[c]
                for cell, (a, b, c) in enumerate(self.shape.units)
                if board[cell] != self.solution[cell]
            }
            # The key puts filled (so wrong) cells first, then those that see the most digits.
            cell = min(seen, key=lambda cell: (not board[cell], -seen[cell].bit_count()))
            digits = [str(digit + 1) for digit in range(self.size) if seen[cell] >> digit & 1]
            thoughts.append(f"({cell // self.size},{cell % self.size}) {' '.join(digits)}")
            board[cell] = self.solution[cell]
            plan.append(cell * self.size + board[cell] - 1)
        return ", ".join(thoughts), plan

    def guess(self, rng: np.random.Generator) -> list[int]:
        """Random digits in random cells that are not of the puzzle."""
        free = [cell for cell, digit in enumerate(self.puzzle) if not digit]
        cells = rng.choice(free, self.max_actions_per_turn)
        return [int(cell) * self.size + int(rng.integers(self.size)) for cell in cells]
