"""Minesweeper without guessing: deduction alone clears every board from its first square on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import comb
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.games.game import Game
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

HIDDEN = -1  # in a view, whose other entries are the numbers of mines around open squares


@lru_cache(maxsize=8)
def neighbours(rows: int, columns: int) -> tuple[tuple[int, ...], ...]:
    """The squares around each square, 3 to 8 of them; squares are numbered row by row."""
    return tuple(
        tuple(
            r * columns + c
            for r in range(max(0, row - 1), min(rows, row + 2))
            for c in range(max(0, column - 1), min(columns, column + 2))
            if (r, c) != (row, column)
        )
        for row in range(rows)
        for column in range(columns)
    )


def placements(
    rules: list[tuple[tuple[int, ...], int]], squares: list[int], mines: int
) -> Iterator[frozenset[int]]:
    """Every way to lay at most ``mines`` mines on ``squares`` so that all rules hold.

    A rule (squares, count) says how many mines lie on its squares. A backtracking search.
    """
    rules_of = {
        square: [k for k, (where, _) in enumerate(rules) if square in where] for square in squares
    }
    need = [count for _, count in rules]  # mines that each rule still lacks
    free = [len(where) for where, _ in rules]  # squares of each rule that are not decided
    chosen: list[int] = []

    def place(i: int) -> Iterator[frozenset[int]]:
        """Decide the squares from number i on; those before it are decided."""
        if i == len(squares):
            yield frozenset(chosen)
            return
        mine = rules_of[squares[i]]
        for k in mine:
            free[k] -= 1
        if all(need[k] <= free[k] for k in mine):  # without a mine here
            yield from place(i + 1)
        if len(chosen) < mines and all(need[k] > 0 for k in mine):
            for k in mine:
                need[k] -= 1
            chosen.append(squares[i])
            if all(need[k] <= free[k] for k in mine):
                yield from place(i + 1)
            chosen.pop()  # from here on everything is put back for the caller
            for k in mine:
                need[k] += 1
        for k in mine:
            free[k] += 1

    yield from place(0)


def components(rules: list[tuple[tuple[int, ...], int]]) -> list[list[tuple[tuple[int, ...], int]]]:
    """The rules divided so that no square is in two parts."""
    parts: list[list[tuple[tuple[int, ...], int]]] = []
    for rule in rules:
        # A rule that shares squares with several parts joins them into one.
        touching = [part for part in parts if any(set(rule[0]) & set(where) for where, _ in part)]
        parts = [part for part in parts if part not in touching]
        parts.append([*(r for part in touching for r in part), rule])
    return parts


def times(a: list[int], b: list[int]) -> list[int]:
    """The product of two polynomials: ways to lay i mines here and j there, by i + j."""
    product = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] += x * y
    return product


@lru_cache(maxsize=20_000)
def risks(view: tuple[int, ...], rows: int, columns: int, mines: int) -> dict[int, float]:
    """The exact probability of each hidden square to be a mine, given what is open.

    All placements are equally likely. Squares beside open ones fall into parts that know nothing of
    each other. Each part is searched by itself, and the parts' counts by number of mines are
    multiplied together, with the ways to lay the rest elsewhere.
    """
    around = neighbours(rows, columns)
    hidden = [square for square, shown in enumerate(view) if shown == HIDDEN]
    rules = []
    for square, shown in enumerate(view):
        if shown != HIDDEN and (where := tuple(s for s in around[square] if view[s] == HIDDEN)):
            rules.append((where, shown))
    # (ways by number of mines, for each square those of them that have a mine on it)
    parts = []
    for part in components(rules):
        squares = sorted({square for where, _ in part for square in where})
        ways = [0] * (len(squares) + 1)
        on = {square: [0] * (len(squares) + 1) for square in squares}
        for found in placements(part, squares, mines):
            ways[len(found)] += 1
            for square in found:
                on[square][len(found)] += 1
        parts.append((ways, on))
    inner = len(hidden) - sum(len(on) for _, on in parts)  # hidden squares beside no open one
    outside = [comb(inner, k) for k in range(inner + 1)]

    def laid(polynomial: list[int]) -> int:
        """The ways to lay exactly ``mines`` mines."""
        return polynomial[mines] if mines < len(polynomial) else 0

    # A square's count needs the product of all parts but its own: ``before[k]`` is that of the
    # parts before k, and ``after`` that of the parts behind it and the squares outside.
    before = [[1]]
    total = outside
    for ways, _ in parts:
        before.append(times(before[-1], ways))
        total = times(total, ways)
    chances = {}
    after = outside
    for k in range(len(parts) - 1, -1, -1):
        rest = times(before[k], after)
        for square, ways in parts[k][1].items():
            chances[square] = laid(times(rest, ways)) / laid(total)
        after = times(after, parts[k][0])
    if inner:
        # One mine is this square's; the others lie in the parts and on the inner - 1 squares left.
        elsewhere = times(before[-1], [0, *(comb(inner - 1, j) for j in range(inner))])
        chances |= dict.fromkeys(
            [s for s in hidden if s not in chances], laid(elsewhere) / laid(total)
        )
    return {square: chances[square] for square in hidden}


class Minesweeper(Game):
    """Open every square without a mine.

    Args:
        rows, columns, mines: size of the field, and how many mines lie in it.
        max_turns, max_actions_per_turn, max_actions: the budgets; null for the last takes the
            product of the others.

    A first square is open at the start. Rewards are Game's, and up to +1 in all for squares opened.
    A mine ends it. The regret of an action is the chance that it was a mine, where a safe square
    was known; there always is one.
    """

    def __init__(
        self,
        rows: int = 4,
        columns: int = 4,
        mines: int = 3,
        max_turns: int = 4,
        max_actions_per_turn: int = 4,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not (2 <= rows <= 12 and 2 <= columns <= 12 and 1 <= mines <= rows * columns // 4):
            raise ValueError(
                f"{rows}x{columns} squares with {mines} mines: 2 to 12 rows and columns, a quarter"
                " mines at most"
            )
        self.rows = rows
        self.columns = columns
        self.mines = mines
        self.render_mode = render_mode
        self.budget(max_turns, max_actions_per_turn, max_actions)
        self.action_names = tuple(
            f"({row},{column})" for row in range(rows) for column in range(columns)
        )
        self.action_space = gym.spaces.Discrete(rows * columns)
        self.observation_space = text_space(2 * rows * columns)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            f"You play Minesweeper on {self.rows}x{self.columns} squares with {self.mines} mines:"
            " open every square without a mine.\n# is a hidden square, a digit an open one with so"
            " many mines around it. Around a 0 all is opened. You never need to guess."
        )

    @property
    def action_help(self) -> str:  # type: ignore[override]
        """How a square is opened."""
        return "(row,column) opens a square, such as (0,1), counted from (0,0) at the top left."

    def _instance(self) -> tuple[frozenset[int], int]:
        """Mines and a first square from which deduction clears the field within the budget."""
        n = self.rows * self.columns
        for _ in range(10_000):
            squares = self.np_random.permutation(n)
            mines = frozenset(squares[: self.mines].tolist())
            first = int(squares[self.mines])
            if self._can_be_cleared(mines, first):
                return mines, first
        raise RuntimeError(
            f"no {self.rows}x{self.columns} field with {self.mines} mines that deduction clears in"
            f" {self.max_turns} turns of {self.max_actions_per_turn} and {self.max_actions}"
            " actions, in 10,000 draws: allow more, or fewer mines"
        )

    def _can_be_cleared(self, mines: frozenset[int], first: int) -> bool:
        """Whether opening what is safe, turn by turn, clears the field within the budgets."""
        view = self._opened((HIDDEN,) * (self.rows * self.columns), mines, first)
        turns = actions = 0
        while view.count(HIDDEN) > self.mines:
            safe = self._safe(view)[: self.max_actions_per_turn]
            turns = turns + 1
            actions = actions + len(safe)
            if not safe or turns > self.max_turns or actions > self.max_actions:
                return False
            for square in safe:
                view = self._opened(view, mines, square)
        return turns > 0  # False where the first square opens everything

    def _opened(self, view: tuple[int, ...], mines: frozenset[int], square: int) -> tuple[int, ...]:
        around = neighbours(self.rows, self.columns)
        shown = list(view)
        queue = [square]
        while queue:
            square = queue.pop()
            if shown[square] == HIDDEN:
                shown[square] = len(mines.intersection(around[square]))
                if not shown[square]:  # no mine around it, so all around it is opened too
                    queue += around[square]
        return tuple(shown)

    def _risks(self, view: tuple[int, ...]) -> dict[int, float]:
        return risks(view, self.rows, self.columns, self.mines)

    def _safe(self, view: tuple[int, ...]) -> list[int]:
        return [square for square, risk in self._risks(view).items() if risk == 0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a field of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        nothing = (HIDDEN,) * (self.rows * self.columns)
        # Two first squares that open the same are the same instance.
        self.laid, first = self.draw(
            requested_split(options),
            self._instance,
            lambda made: f"{sorted(made[0])} {self._opened(nothing, *made)}",
        )
        self.view = self._opened(nothing, self.laid, first)
        self._open_at_start = len(self.view) - self.view.count(HIDDEN)
        return self.begin()

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Open a square; see the class for rewards."""
        square = self.check_action(action)
        risk = self._risks(self.view).get(square, 0.0)  # an open square is no risk
        hidden = self.view.count(HIDDEN)
        if square in self.laid:
            text, reward, terminated, truncated, info = self.end_step(False, over=True)
            return text, reward, terminated, truncated, info | {"regret": risk}
        self.view = self._opened(self.view, self.laid, square)
        # The share of what was to be opened at the start, so that all shares add up to 1.
        gained = (hidden - self.view.count(HIDDEN)) / (
            len(self.view) - self.mines - self._open_at_start
        )
        text, reward, terminated, truncated, info = self.end_step(
            self.view.count(HIDDEN) == self.mines, gained
        )
        return text, reward, terminated, truncated, info | {"regret": risk}

    def text(self) -> str:
        """The field as it is seen."""
        rows = (self.view[i : i + self.columns] for i in range(0, len(self.view), self.columns))
        return "\n".join(
            [" ".join(["#" if shown == HIDDEN else str(shown) for shown in row]) for row in rows]
        )

    def solve(self) -> list[int]:
        """Squares that what is seen proves safe, as many as a turn allows."""
        return self._safe(self.view)[: self.max_actions_per_turn]

    def guess(self, rng: np.random.Generator) -> list[int]:
        """Random hidden squares."""
        hidden = [square for square, shown in enumerate(self.view) if shown == HIDDEN]
        return [int(square) for square in rng.permutation(hidden)[: self.max_actions_per_turn]]
