"""Sokoban: RAGEN's symbols and rewards, gym-sokoban's dynamics, an exact solver for every room.

Rewards (gym-sokoban 0.0.6, RAGEN): -0.1 an action, +1 a box pushed onto a target, -1 one pushed
off, +10 solved.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ragen_lite.envs.games.game import Game, or_default
from ragen_lite.envs.games.sokoban.levels import (
    Level,
    gym_sokoban_level,
    one_box_level,
    read_boxoban,
    reverse_play,
    stored_levels,
)
from ragen_lite.envs.games.sokoban.solver import ACTIONS, Board, SearchLimit
from ragen_lite.envs.games.sokoban.sprites import picture
from ragen_lite.envs.games.sokoban.teacher import first_push
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import one_of, pick, requested_split

BOX_ON = 1.0
BOX_OFF = -1.0
# States searched for one cost: about a second, enough for most 10x10 rooms of four boxes.
SEARCH = 20_000
GENERATED = ("reverse", "gym_sokoban")
OBSERVATIONS = ("grid", "coords", "grid_coords")


class Sokoban(Game):
    """Push every box (X) onto a target (O).

    Args:
        height, width: size of the room in squares, its outer walls included.
        boxes: number of boxes, and of targets.
        levels: ``reverse`` (our generator), ``gym_sokoban`` (its generator, made reproducible) or
            the path of a Boxoban text file, whose rooms are taken as they are.
        observation: ``grid``, ``coords`` or ``grid_coords``.
        min_cost, max_cost: fewest and most actions a room must need; None is ``max_actions``.
        max_turns, max_actions_per_turn, max_actions: the budgets.
        regret: whether ``info`` carries the optimal cost and the regret; an exact search at each
            new state of a room with several boxes.

    ``info``: Game's, and boxes_on_target. The costs are None where the exact search was given up.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}
    action_names = ACTIONS

    def __init__(
        self,
        height: int = 6,
        width: int = 6,
        boxes: int = 1,
        levels: str = "reverse",
        observation: str = "grid_coords",
        min_cost: int = 3,
        max_cost: int | None = None,
        max_turns: int = 5,
        max_actions_per_turn: int = 5,
        max_actions: int = 12,
        regret: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if min(height, width) < 4 or boxes < 1:
            raise ValueError(
                f"Sokoban needs at least 4x4 squares and one box, not {height}x{width} and {boxes}"
            )
        one_of("observation", observation, OBSERVATIONS)
        most = or_default(max_cost, max_actions)
        if not 1 <= min_cost <= most <= max_actions:
            meet = f"1 <= min_cost {min_cost} <= max_cost {most} <= max_actions {max_actions}"
            raise ValueError(f"budgets that no room can meet: {meet}")
        self.budget(max_turns, max_actions_per_turn, max_actions)
        self.height = height
        self.width = width
        self.boxes = boxes
        self.levels = levels
        self.observation = observation
        self.min_cost = min_cost
        self.max_cost = most
        self.regret = regret
        self.render_mode = render_mode
        self.action_space = gym.spaces.Discrete(4)
        self._table: list[int] | None = None  # the cost of every state of a one-box board
        self._table_board: Board | None = None  # the board that ``_table`` was last set for
        if levels not in GENERATED:
            boards = [level.board for level in read_boxoban(levels)]
            self.height = max(len(board.walls) // board.width for board in boards)
            self.width = max(board.width for board in boards)
            self.boxes = max(len(board.targets) for board in boards)
        # Two characters a square, and up to 8 for each place, such as " (10,10)".
        places = 8 * (3 * self.boxes + 3)
        self.observation_space = text_space(40 + 2 * self.height * self.width + places)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        board = self._table_board  # rooms of a file have sizes of their own
        width = board.width if board else self.width
        height = len(board.walls) // width if board else self.height
        return (
            f"You play Sokoban in a room of {height}x{width} squares: push every box X onto a"
            " target O.\nSymbols: # wall, _ floor, O target, X box, √ box on target, P you, S you"
            " on a target. Positions are (row,column), counted from (0,0) at the top left.\nUp,"
            " Down, Left and Right move you one square; moving into a box pushes it if the square"
            " behind it is free."
        )

    # ---- rooms ----

    def instance_count(self, split: str) -> int | None:
        """The rooms of a split of a file; None where they are generated."""
        return None if self.levels in GENERATED else len(stored_levels(self.levels, split))

    def _new_level(self, split: str, seed: int | None) -> Level:
        if self.levels == "reverse" and self.boxes == 1:
            level, table = one_box_level(
                self.np_random, self.height, self.width, self.min_cost, self.max_cost
            )
            self._table = table  # it is made with the room, so ``load`` need not make it again
            self._table_board = level.board
            return level
        if self.levels not in GENERATED:
            return pick(stored_levels(self.levels, split), split, seed, self.np_random)
        for _ in range(20_000):
            candidate = self._candidate()
            if candidate and self.min_cost <= self._search(candidate) <= self.max_cost:
                return candidate
        raise RuntimeError(
            f"no room between min_cost={self.min_cost} and max_cost={self.max_cost} actions"
            f" in 20,000 draws of levels={self.levels!r} at {self.height}x{self.width} with"
            f" {self.boxes} boxes: allow more"
        )

    def _candidate(self) -> Level | None:
        if self.levels == "gym_sokoban":
            return gym_sokoban_level(self.np_random, self.height, self.width, self.boxes)
        # 2 to 6 pulls a box: some rooms come out easy and some hard.
        pulls = int(self.np_random.integers(2 * self.boxes, 6 * self.boxes + 1))
        return reverse_play(self.np_random, self.height, self.width, self.boxes, pulls)

    def _search(self, level: Level) -> float:
        try:
            solution = level.board.solve(level.player, level.boxes)
        except SearchLimit:
            return math.inf  # not known to fit the budget, so not taken
        return math.inf if solution is None else len(solution)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a room of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        split = requested_split(options)
        level = self.draw(split, lambda: self._new_level(split, seed), lambda made: made.content)
        return self.load(level)

    def load(self, level: Level) -> tuple[str, dict[str, Any]]:
        """Start from a given room; returns observation and info as ``reset`` does."""
        self.board = level.board
        self.player = level.player
        self.placed = level.boxes
        if self._table_board is not self.board:
            single = self.regret and len(self.board.targets) == 1
            self._table = self.board.distances() if single else None
            self._table_board = self.board
        self._floor = ["#" if wall else "_" for wall in self.board.walls]  # what never moves
        for target in self.board.targets:
            self._floor[target] = "O"
        self._known: dict[tuple[int, frozenset[int]], float | None] = {}  # costs found so far
        self._on = len(self.placed & self.board.targets)
        return self.begin(boxes_on_target=self._on)

    # ---- dynamics ----

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action; see the class for rewards and info."""
        self.player, self.placed = self.board.move(
            self.player, self.placed, self.check_action(action)
        )
        before = self._on
        self._on = len(self.placed & self.board.targets)
        # A push from one target onto another gains nothing and loses nothing.
        gained = BOX_ON if self._on > before else BOX_OFF if self._on < before else 0.0
        return self.end_step(self._on == len(self.placed), gained, boxes_on_target=self._on)

    def cost_to_go(self) -> float | None:
        """Actions of a shortest solution; inf in a dead-lock, None where the room is too large."""
        if self._table is not None:
            return self._look_up(self.player, self.placed)
        state = (self.player, self.placed)
        if state not in self._known:
            self._remember_solution()
        return self._known[state]

    def _look_up(self, player: int, boxes: frozenset[int]) -> float:
        assert self._table is not None
        (box,) = boxes
        cost = self._table[player * len(self.board.walls) + box]
        return math.inf if cost < 0 else float(cost)

    def _remember_solution(self) -> None:
        state = (self.player, self.placed)
        try:
            solution = self.board.solve(*state, limit=SEARCH)
        except SearchLimit:
            self._known[state] = None
            return
        if solution is None:
            self._known[state] = math.inf
            return
        # The rest of a shortest solution is shortest as well, so every state on it gets its cost.
        for left, action in zip(range(len(solution), 0, -1), solution, strict=True):
            self._known[state] = float(left)
            state = self.board.move(*state, action)
        self._known[state] = 0.0

    # ---- what the player sees ----

    def text(self) -> str:
        """The room, the places of things, or both."""
        width = self.board.width
        targets = self.board.targets
        cells = self._floor.copy()
        for box in self.placed:
            cells[box] = "√" if box in targets else "X"
        cells[self.player] = "S" if self.player in targets else "P"
        grid = "\n".join([" ".join(cells[i : i + width]) for i in range(0, len(cells), width)])
        if self.observation == "grid":
            return grid
        names = [
            ("P", [self.player]),
            ("X", sorted(self.placed - targets)),
            ("O", sorted(targets - self.placed)),
            ("√", sorted(self.placed & targets)),
        ]
        places = ", ".join([" ".join([name, *map(self.place, at)]) for name, at in names if at])
        return places if self.observation == "coords" else f"{grid}\n{places}"

    def place(self, square: int) -> str:
        """A square as ``(row,column)``."""
        row, column = divmod(square, self.board.width)
        return f"({row},{column})"

    def render(self) -> str | NDArray[np.uint8] | None:  # type: ignore[override]
        """The room as text, or in gym-sokoban's sprites: (16 x height, 16 x width, 3)."""
        if self.render_mode == "rgb_array":
            return picture(self.board, self.player, self.placed)
        return self.text() if self.render_mode == "ansi" else None

    # ---- solver and teacher ----

    def solve(self) -> list[int] | None:
        """A shortest solution; None where it is dead-locked. Raises SearchLimit without a table."""
        if self._table is None:
            return self.board.solve(self.player, self.placed)
        cost = self.cost_to_go()
        state = (self.player, self.placed)
        plan = []
        # Downhill in the table, by any action that comes one nearer.
        while cost and not math.isinf(cost):
            cost -= 1
            plan.append(
                next(a for a in range(4) if self._look_up(*self.board.move(*state, a)) == cost)
            )
            state = self.board.move(*state, plan[-1])
        return None if cost else plan

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """One turn of the teacher: it names its next push, walks there and pushes."""
        plan = self.solve()
        return self._push(plan) if plan else self.wander(rng)

    def wander(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """Walk to and make any push that is open."""
        walks = self.board.walks(self.player, self.placed)
        options = self.board.pushes(walks, self.placed)
        if not options:
            return self._push([int(rng.integers(4))])
        square, action = options[rng.integers(len(options))]
        return self._push([*self.board.path(walks, square), action])

    def _push(self, plan: list[int]) -> tuple[str, list[int]]:
        """The turn of a plan's first push, cut at the turn's budget."""
        push = first_push(self.board, self.player, self.placed, plan)
        if push is None:
            return "walk", plan[: self.max_actions_per_turn]
        start = self.place(push.start)
        thought = f"push {ACTIONS[push.action]} from {start} to {self.place(push.end)}"
        return thought, plan[: min(push.count, self.max_actions_per_turn)]
