"""What Sokoban's teacher shows in a turn: a walk to a box, and the pushes straight on."""

from __future__ import annotations

from dataclasses import dataclass

from ragen_lite.envs.games.sokoban.solver import Board


@dataclass(frozen=True, slots=True)
class Push:
    """The first push of a plan, over one square or several straight on.

    Attributes:
        start: the player's square before it.
        end: the player's square after it.
        action: its direction, a place in ACTIONS.
        count: the plan's actions up to its end, the walk to the box included.
    """

    start: int
    end: int
    action: int
    count: int


def first_push(board: Board, player: int, boxes: frozenset[int], plan: list[int]) -> Push | None:
    """The first push of a plan, walk and pushes straight on; None where it has none.

    Args:
        board: the room.
        player: the player's square.
        boxes: the squares of the boxes.
        plan: actions from that state on.
    """
    push: Push | None = None
    for count, action in enumerate(plan, 1):
        after, moved = board.move(player, boxes, action)
        pushes = moved != boxes  # boxes move by pushes alone
        # A walk or a turn ends the push, even where the same box is pushed on later.
        if push and (not pushes or action != push.action):
            break
        if pushes:
            # Extended square by square: the start stays, end and count move on.
            push = Push(push.start if push else player, after, action, count)
        player = after
        boxes = moved
    return push
