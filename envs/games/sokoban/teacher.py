"""What Sokoban's teacher shows in a turn: a walk to a box, and the pushes straight on."""

from __future__ import annotations

from dataclasses import dataclass

from ragen_lite.envs.games.sokoban.solver import Board


@dataclass(frozen=True, slots=True)
class Push:
    """The first push of a plan.

    ``start`` is the square it is made from, ``end`` the one it ends on, ``action`` its direction,
    ``count`` the plan's actions up to its end.
    """

    start: int
    end: int
    action: int
    count: int


def first_push(board: Board, player: int, boxes: frozenset[int], plan: list[int]) -> Push | None:
    """The first push of a plan, walk and pushes straight on; None where it has none."""
    push: Push | None = None
    for count, action in enumerate(plan, 1):
        after, moved = board.move(player, boxes, action)
        pushes = moved != boxes
        if push and (not pushes or action != push.action):
            break
        if pushes:
            push = Push(push.start if push else player, after, action, count)
        player = after
        boxes = moved
    return push
