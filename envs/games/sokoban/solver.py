"""Sokoban's rules and exact solvers.

Shortest solutions are in actions, where walking counts. A state without a solution is dead-locked.
A square is an index into the grid row by row; a state is (player, boxes) with the boxes in a
frozenset.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from functools import cached_property

ACTIONS = ("Up", "Down", "Left", "Right")


class SearchLimit(RuntimeError):
    """The exact search was given up: the room is too large for it."""


@dataclass(frozen=True)
class Board:
    """What never moves: walls and targets of a room ``width`` squares wide.

    Example, a corridor of 3 floor squares with the target at its right end (``#####`` / ``#__O#`` /
    ``#####``): ``Board(5, (True,)*5 + (True, False, False, False, True) + (True,)*5,
    frozenset({8}))``
    """

    width: int
    walls: tuple[bool, ...]
    targets: frozenset[int]

    @property
    def offsets(self) -> tuple[int, int, int, int]:
        """The index step of Up, Down, Left, Right."""
        return (-self.width, self.width, -1, 1)

    def move(self, player: int, boxes: frozenset[int], action: int) -> tuple[int, frozenset[int]]:
        """The state after one action; unchanged where a wall or a stuck box is in the way.

        Args:
            player: the player's square.
            boxes: the squares of the boxes.
            action: 0 to 3, a place in ACTIONS.
        """
        offset = self.offsets[action]
        to = player + offset
        if self.walls[to]:
            return player, boxes
        if to not in boxes:
            return to, boxes
        beyond = to + offset
        if self.walls[beyond] or beyond in boxes:
            return player, boxes
        return to, boxes - {to} | {beyond}

    @cached_property
    def push_distance(self) -> tuple[int, ...]:
        """Fewest pushes that bring a lone box from each square to any target; -1 where none do.

        A breadth-first search backwards from the targets. The player may stand anywhere, so the
        true number of actions is never lower.
        """
        distance = [-1] * len(self.walls)
        queue = deque(self.targets)
        for target in self.targets:
            distance[target] = 0
        while queue:
            box = queue.popleft()
            for offset in self.offsets:
                source = box - offset
                player = box - 2 * offset
                # ``player`` can lie outside of the grid where ``source`` is in the outer wall.
                if not 0 <= player < len(self.walls) or self.walls[source] or self.walls[player]:
                    continue
                if distance[source] < 0:
                    distance[source] = distance[box] + 1
                    queue.append(source)
        return tuple(distance)

    def distances(self) -> list[int]:
        """Exact cost, in actions, of every state of a one-box room; -1 where it is dead-locked.

        The list has size * size entries, where size is the number of squares. That of a state is
        ``player * size + box``. One breadth-first search backwards from the solved states, undoing
        walks and pushes.
        """
        size = len(self.walls)
        walls = self.walls
        (target,) = self.targets
        cost = [-1] * (size * size)
        frontier: list[int] = []
        for offset in self.offsets:  # a solving push leaves the player behind the box
            player = target - offset
            if not walls[player]:
                cost[player * size + target] = 0
                frontier.append(player * size + target)
        depth = 0
        while frontier:
            depth += 1
            after = frontier  # the states whose cost is depth - 1
            frontier = []
            for state in after:
                player, box = divmod(state, size)
                for offset in self.offsets:
                    before = player - offset
                    if walls[before] or before == box:
                        continue
                    if depth > 1:  # no walk ends in a solved state: the last action is a push
                        walk = before * size + box
                        if cost[walk] < 0:
                            cost[walk] = depth
                            frontier.append(walk)
                    # The box came from the player's square. No push starts on the target, where the
                    # room would have been solved already.
                    if player + offset == box and player != target:
                        pull = before * size + player
                        if cost[pull] < 0:
                            cost[pull] = depth
                            frontier.append(pull)
        for player in range(size):
            if not walls[player]:
                cost[player * size + target] = 0  # solved, wherever the player stands
        return cost

    def walks(self, player: int, boxes: frozenset[int]) -> dict[int, tuple[int, int]]:
        """Squares the player can walk to: square -> (number of steps, last action).

        The player's own square is among them, with 0 steps and action -1.
        """
        reached = {player: (0, -1)}
        queue = deque([player])
        while queue:
            square = queue.popleft()
            steps = reached[square][0] + 1
            for action, offset in enumerate(self.offsets):
                to = square + offset
                if to not in reached and not self.walls[to] and to not in boxes:
                    reached[to] = (steps, action)
                    queue.append(to)
        return reached

    def path(self, walks: dict[int, tuple[int, int]], square: int) -> list[int]:
        """The actions that walk to ``square``, from the result of ``walks``."""
        actions = []
        # Backwards from the end; the action -1 marks the start.
        while (action := walks[square][1]) >= 0:
            actions.append(action)
            square -= self.offsets[action]
        return actions[::-1]

    def pushes(
        self, walks: dict[int, tuple[int, int]], boxes: frozenset[int]
    ) -> list[tuple[int, int]]:
        """The pushes open to the player, as (square to push from, action), in a fixed order."""
        found = []
        for box in sorted(boxes):
            for action, offset in enumerate(self.offsets):
                to = box + offset
                if box - offset in walks and not self.walls[to] and to not in boxes:
                    found.append((box - offset, action))
        return found

    def frozen(self, box: int, boxes: frozenset[int]) -> bool:
        """Whether ``box`` stands in a 2x2 block of walls and boxes with a box off target.

        Nothing in such a block can ever be pushed, so the room is dead-locked. Other dead-locks are
        not seen here.
        """
        # The four blocks that hold ``box``: up or down, and left or right of it.
        for vertical in self.offsets[:2]:
            for horizontal in self.offsets[2:]:
                block = (box, box + vertical, box + horizontal, box + vertical + horizontal)
                full = all(self.walls[s] or s in boxes for s in block)
                if full and any(s in boxes and s not in self.targets for s in block):
                    return True
        return False

    def solve(self, player: int, boxes: frozenset[int], limit: int = 200_000) -> list[int] | None:
        """A shortest solution as actions, or None where the state is dead-locked. A* over pushes.

        The bound is the sum over the boxes of the pushes each would need alone, which never
        overestimates.

        Raises:
            SearchLimit: after ``limit`` expanded states.
        """
        bound = self.push_distance
        if any(bound[b] < 0 for b in boxes):
            return None
        start = (player, boxes)
        cost = {start: 0}
        parent: dict[tuple[int, frozenset[int]], tuple[tuple[int, frozenset[int]], int, int]] = {}
        # (cost so far + bound, -cost so far, number, state): of equal sums the one nearest to its
        # end comes first. The number keeps two states from being compared.
        queue = [(sum(bound[b] for b in boxes), 0, 0, start)]
        pushed = 1
        closed = set()
        while queue:
            _, _, _, state = heapq.heappop(queue)
            if state in closed:  # an older entry of a state that was reached at less cost since
                continue
            closed.add(state)
            if len(closed) > limit:
                raise SearchLimit(
                    f"no proof after {limit:,} states; raise the limit or take a smaller room"
                )
            player, boxes = state
            if boxes <= self.targets:
                return self._actions(parent, start, state)
            walks = self.walks(player, boxes)
            for square, action in self.pushes(walks, boxes):
                offset = self.offsets[action]
                box = square + offset
                to = square + 2 * offset
                after = (box, boxes - {box} | {to})
                # ``bound`` alone sees a lone box that is stuck in a corner.
                if (
                    bound[to] < 0
                    or after in closed
                    or (len(boxes) > 1 and self.frozen(to, after[1]))
                ):
                    continue
                total = cost[state] + walks[square][0] + 1  # the walk, and the push itself
                if total < cost.get(after, 1 << 30):  # 1 << 30 is above any cost
                    cost[after] = total
                    parent[after] = (state, square, action)
                    heapq.heappush(
                        queue, (total + sum(bound[b] for b in after[1]), -total, pushed, after)
                    )
                    pushed += 1
        return None

    def _actions(
        self,
        parent: dict[tuple[int, frozenset[int]], tuple[tuple[int, frozenset[int]], int, int]],
        start: tuple[int, frozenset[int]],
        state: tuple[int, frozenset[int]],
    ) -> list[int]:
        """The actions from ``start`` to ``state``: the walks between its pushes are put back in."""
        actions: list[int] = []
        while state != start:
            state, square, action = parent[state]
            actions = [*self.path(self.walks(*state), square), action, *actions]
        return actions
