"""A room in gym-sokoban's pictures."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragen_lite.envs.games.sokoban.solver import Board

# The names of gym-sokoban's files, in the order of its codes; a box_target is an empty target.
SPRITES = ("wall", "floor", "box_target", "box_on_target", "box", "player", "player_on_target")
SIZE = 16  # pixels of a square's side
Picture = NDArray[np.uint8]


def picture(board: Board, player: int, boxes: frozenset[int]) -> Picture:
    """The room as RGB pixels, (16 x height, 16 x width, 3).

    Raises:
        ModuleNotFoundError: gym-sokoban, whose pictures these are, is not installed.
    """
    # Later marks cover earlier ones: what stands on a target has a code of its own.
    codes = [0 if wall else 1 for wall in board.walls]
    for target in board.targets:
        codes[target] = 2
    for box in boxes:
        codes[box] = 3 if box in board.targets else 4
    codes[player] = 6 if player in board.targets else 5
    tiles = _sprites()[np.array(codes).reshape(-1, board.width)]
    height, width = tiles.shape[:2]
    # From (row, column, y, x, colour) to (row, y, column, x, colour), to be joined to one picture.
    rows = tiles.transpose(0, 2, 1, 3, 4)
    whole: Picture = rows.reshape(height * SIZE, width * SIZE, 3)
    return whole


@lru_cache(maxsize=1)
def _sprites() -> NDArray[np.uint8]:
    """gym-sokoban's seven 16x16 pictures, by its codes: (7, 16, 16, 3)."""
    import imageio.v3 as imageio

    package = importlib.util.find_spec("gym_sokoban")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the sprites belong to gym-sokoban: pip install gym-sokoban")
    folder = Path(package.origin).parent / "envs" / "surface"
    return np.stack([imageio.imread(folder / f"{name}.png")[..., :3] for name in SPRITES])
