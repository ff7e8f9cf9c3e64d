"""Where Sokoban rooms come from.

There are three sources: our reverse play, gym-sokoban's generator made reproducible, and Boxoban
text files.
"""

from __future__ import annotations

import importlib.util
import random
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ragen_lite.envs.games.sokoban.solver import Board
from ragen_lite.envs.splits import belongs, shuffled

WALL_PROBABILITY = 0.18  # of a square inside the outer walls
# Held while gym-sokoban draws from the generators of the whole process.
_global_rng = threading.Lock()


@dataclass(frozen=True)
class Level:
    """A room as it stands at the start: the board, the player's square and the boxes' squares."""

    board: Board
    player: int
    boxes: frozenset[int]

    @property
    def content(self) -> str:
        """The canonical text of the room, by which it is assigned to a split."""
        symbols = [
            "#" if wall else "." if i in self.board.targets else " "
            for i, wall in enumerate(self.board.walls)
        ]
        for box in self.boxes:
            symbols[box] = "*" if box in self.board.targets else "$"
        symbols[self.player] = "+" if self.player in self.board.targets else "@"
        width = self.board.width
        starts = range(0, len(symbols), width)
        rows = ["".join(symbols[i : i + width]) for i in starts]
        return "\n".join(rows)


def parse_level(text: str, where: str = "level") -> Level:
    """A level from the usual symbols.

    They are # wall, space floor, . target, $ box, @ player; on a target, * box and + player.

    Args:
        text: the rows, one a line.
        where: the name of the level in error messages.

    Raises:
        ValueError: ragged rows, unknown symbols, an open border, no player, or a number of boxes
            that differs from the number of targets. The message names ``where`` and the row.
    """
    rows = text.split("\n")
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(
                f"{where}, row {number}: {len(row)} squares, but the first row has {width}: {row!r}"
            )
        if odd := set(row) - set("# .$@*+"):
            raise ValueError(
                f"{where}, row {number}: unknown symbol {min(odd)!r}; allowed are # space . $ @ * +"
            )
        # A closed border keeps every move inside the grid, so the rules need no check of their own.
        if row[0] != "#" or row[-1] != "#" or (number in (1, len(rows)) and set(row) != {"#"}):
            raise ValueError(
                f"{where}, row {number}: the room must be closed by walls (#) all around"
            )
    cells = "".join(rows)
    players = [i for i, c in enumerate(cells) if c in "@+"]
    boxes = frozenset(i for i, c in enumerate(cells) if c in "$*")
    targets = frozenset(i for i, c in enumerate(cells) if c in ".*+")
    if len(players) != 1:
        raise ValueError(f"{where}: {len(players)} players (@); exactly one is needed")
    if not boxes or len(boxes) != len(targets):
        raise ValueError(
            f"{where}: {len(boxes)} boxes and {len(targets)} targets; as many of each, at least one"
        )
    return Level(Board(width, tuple(c == "#" for c in cells), targets), players[0], boxes)


@lru_cache(maxsize=8)
def read_boxoban(path: str) -> tuple[Level, ...]:
    """All levels of a Boxoban text file (google-deepmind/boxoban-levels).

    Each room follows a line ``; number``.

    Raises:
        ValueError: the file cannot be read, holds no level, or holds one that is malformed.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read the level file {path}: {error.strerror}") from error
    levels = []
    rows = []
    title = "level 0"
    for line in [*lines, ""]:  # the empty line ends the last room
        if line.strip() and not line.startswith(";"):
            rows.append(line.rstrip("\r\n"))
            continue
        # A blank line or a title ends the room before it.
        if rows:
            levels.append(parse_level("\n".join(rows), f"{path}, {title}"))
            rows = []
        if line.startswith(";"):
            title = f"level {line[1:].strip()}"
    if not levels:
        raise ValueError(
            f"{path} holds no level; a Boxoban file has '; 0' and then the rows of a room"
        )
    return tuple(levels)


def random_board(rng: np.random.Generator, height: int, width: int, boxes: int) -> Board:
    """A walled room with some walls inside and ``boxes`` targets on its floor.

    Raises:
        RuntimeError: none of 1,000 rooms has floor enough.
    """
    for _ in range(1000):
        # True is a wall: all of the border, and some squares inside.
        grid = np.ones((height, width), dtype=bool)
        grid[1:-1, 1:-1] = rng.random((height - 2, width - 2)) < WALL_PROBABILITY
        floor = np.flatnonzero(~grid)
        # The targets, the boxes and the player must find squares of their own.
        if len(floor) > 2 * boxes:
            targets = frozenset(rng.choice(floor, boxes, replace=False).tolist())
            return Board(width, tuple(grid.ravel().tolist()), targets)
    raise RuntimeError(
        f"{boxes} boxes do not fit a room of {height}x{width}: take fewer, or a larger room"
    )


def one_box_level(
    rng: np.random.Generator, height: int, width: int, min_cost: int, max_cost: int
) -> tuple[Level, list[int]]:
    """A room with one box whose shortest solution has ``min_cost`` to ``max_cost`` actions.

    Reverse play in full: the search backwards from the solved states finds every start, one is
    drawn evenly. Returns the level and the cost table of its states (see ``Board.distances``).

    Raises:
        RuntimeError: none of 10,000 rooms has such a start.
    """
    for _ in range(10_000):
        board = random_board(rng, height, width, 1)
        cost = board.distances()
        array = np.array(cost)
        starts = np.flatnonzero((array >= min_cost) & (array <= max_cost))
        if len(starts):
            # The inverse of the table's index, player * size + box.
            player, box = divmod(int(starts[rng.integers(len(starts))]), len(board.walls))
            return Level(board, player, frozenset({box})), cost
    raise RuntimeError(
        f"no room of {height}x{width} needs {min_cost} to {max_cost} actions: allow more of either"
    )


def reverse_play(
    rng: np.random.Generator, height: int, width: int, boxes: int, pulls: int
) -> Level | None:
    """A room played backwards from its solution by random pulls.

    A pull undone is a push, so a room that is made this way can be solved. None where it came to a
    dead end, or where a box still stands on a target.
    """
    board = random_board(rng, height, width, boxes)
    placed = board.targets  # solved: a box on each target
    floor = [i for i, wall in enumerate(board.walls) if not wall and i not in placed]
    player = floor[rng.integers(len(floor))]
    for _ in range(pulls):
        reached = board.walks(player, placed)
        # A pull needs the player beside the box and a free square behind the player. ``sorted``
        # gives the draw a fixed order, which a set does not have.
        options = [
            (box, offset)
            for box in sorted(placed)
            for offset in board.offsets
            if box + offset in reached
            and not board.walls[box + 2 * offset]
            and box + 2 * offset not in placed
        ]
        if not options:
            return None
        box, offset = options[rng.integers(len(options))]
        placed = placed - {box} | {box + offset}
        player = box + 2 * offset
    if placed & board.targets:
        return None
    # The player starts anywhere within reach but on a target.
    squares = sorted(board.walks(player, placed).keys() - board.targets)
    return Level(board, squares[rng.integers(len(squares))], placed) if squares else None


@lru_cache(maxsize=1)
def _room_utils() -> ModuleType:
    """gym-sokoban's module of room generation."""
    # The file alone: gym_sokoban's package imports the unmaintained gym.
    package = importlib.util.find_spec("gym_sokoban")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "gym-sokoban's generator and sprites need: pip install gym-sokoban"
        )
    spec = importlib.util.spec_from_file_location(
        "gym_sokoban_room_utils", Path(package.origin).parent / "envs" / "room_utils.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gym_sokoban_level(rng: np.random.Generator, height: int, width: int, boxes: int) -> Level:
    """A room from gym-sokoban's own generator, a function of ``rng`` alone.

    It draws from the process-wide generators, so these are seeded, used under a lock and put back.
    A draw that it gives up on (RuntimeError, RuntimeWarning) is followed by the next.

    Raises:
        RuntimeError: it gave up on 1,000 draws.
        ModuleNotFoundError: gym-sokoban is not installed.
    """
    utils = _room_utils()
    for _ in range(1000):
        # All that an attempt takes from ``rng``: gym-sokoban's generators are seeded with it.
        seed = int(rng.integers(2**32))
        with _global_rng:
            before = random.getstate()
            numpy_before = np.random.get_state()
            try:
                random.seed(seed)
                np.random.seed(seed)
                # The number of steps is gym-sokoban's own default for a room of this size.
                fixed, state, _ = utils.generate_room(
                    (height, width), num_steps=int(1.7 * (height + width)), num_boxes=boxes
                )
            except (RuntimeError, RuntimeWarning):
                continue
            finally:
                random.setstate(before)
                np.random.set_state(numpy_before)
        # Its codes: 0 wall, 1 floor, 2 target, 3 and 4 box (on a target, off it), 5 player.
        flat = np.asarray(state).ravel()
        fixed = np.asarray(fixed).ravel()
        board = Board(
            width, tuple((fixed == 0).tolist()), frozenset(np.flatnonzero(fixed == 2).tolist())
        )
        placed = frozenset(np.flatnonzero((flat == 3) | (flat == 4)).tolist())
        return Level(board, int(np.flatnonzero(flat == 5)[0]), placed)
    raise RuntimeError(
        f"gym-sokoban finds no room of {height}x{width} with {boxes} boxes: take fewer, or a larger"
        " room"
    )


@lru_cache(maxsize=16)
def stored_levels(path: str, split: str) -> tuple[Level, ...]:
    """The levels of a Boxoban file that belong to the split, within a task's budgets or not.

    Raises:
        ValueError: the file has none.
    """
    stored = [level for level in read_boxoban(path) if belongs(level.content, split)]
    if not stored:
        raise ValueError(
            f"{path} has no level in the {split} split (splits go by content): give it more"
        )
    return tuple(stored) if split == "train" else shuffled(stored, lambda level: level.content)
