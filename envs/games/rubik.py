"""The 2x2 Rubik's cube with exact distances.

They stand in a table of all 3,674,160 states, which is made when it is first wanted.

One corner (down, back, left) is held fast, so the six quarter turns of U, R and F reach every
state; turning D, B or L is the same as turning the opposite face and the cube as a whole. Distances
are in quarter turns; the farthest is 14.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ragen_lite.envs.games.game import Game
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

FACES = "URFDLB"
COLOURS = "WRGYOB"  # of the faces in that order when solved
# The stickers of a face are numbered 0 1 / 2 3, faces in the order of FACES: sticker 4 * face +
# place. A corner is its three stickers, the one on U or D first, then clockwise. Corners 0 to 6
# move; the last one is held fast.
CORNERS = (
    (3, 4, 9),  # up right front
    (1, 20, 5),  # up back right
    (0, 16, 21),  # up left back
    (2, 8, 17),  # up front left
    (13, 11, 6),  # down front right
    (12, 19, 10),  # down left front
    (15, 7, 22),  # down right back
    (14, 23, 18),  # down back left
)
# A clockwise turn as cycles of corners (a -> b: the cubie at a goes to b) and the twist that it
# takes on the way.
TURNS = {
    "U": (((0, 3), (3, 2), (2, 1), (1, 0)), (0, 0, 0, 0)),
    "R": (((0, 1), (1, 6), (6, 4), (4, 0)), (1, 2, 1, 2)),
    "F": (((0, 4), (4, 5), (5, 3), (3, 0)), (2, 1, 2, 1)),
}
ACTIONS = ("U", "U'", "R", "R'", "F", "F'")
State = tuple[tuple[int, ...], tuple[int, ...]]  # the cubie at each of seven places, and its twist
# 7! orders of the cubies, and for each 3^6 twists: 5040 * 729 states.
SOLVED: State = (tuple(range(7)), (0,) * 7)


def _clockwise(state: State, face: str) -> State:
    """The state after a clockwise quarter turn of a face: U, R or F."""
    cubies, twists = state
    cycle, twist = TURNS[face]
    after = list(cubies)
    turned = list(twists)
    for (source, target), extra in zip(cycle, twist, strict=True):
        after[target] = cubies[source]
        turned[target] = (twists[source] + extra) % 3
    return tuple(after), tuple(turned)


def turn(state: State, action: int) -> State:
    """The state after a quarter turn; ``action`` is a place in ACTIONS."""
    # Odd actions are counterclockwise, which is three times clockwise.
    for _ in range(3 if action % 2 else 1):
        state = _clockwise(state, ACTIONS[action][0])
    return state


ORDERS = list(permutations(range(7)))
ORDER_NUMBER = {order: i for i, order in enumerate(ORDERS)}


def number(state: State) -> int:
    """The state's place in the table of distances: 729 twists an order.

    The twists of six places are written in base 3. The seventh follows from them, since the twists
    of a cube add up to a multiple of 3.
    """
    twist = 0
    for value in state[1][:6]:
        twist = 3 * twist + value
    return ORDER_NUMBER[state[0]] * 729 + twist


def _twists(value: int) -> tuple[int, ...]:
    """The twists of all seven places, from their number below 729."""
    six: list[int] = []
    for _ in range(6):
        value, digit = divmod(value, 3)
        six.insert(0, digit)
    return (*six, -sum(six) % 3)


@lru_cache(maxsize=1)
def distances() -> NDArray[np.int8]:
    """Quarter turns from solved, (5040 * 729,): a breadth-first search of about a second."""
    # A turn changes the order whatever the twists are, and the twists whatever the order is. So two
    # small tables, (5040, 6) and (729, 6), tell where each turn leads from every state.
    order_moves = np.array(
        [[ORDER_NUMBER[turn((order, SOLVED[1]), a)[0]] for a in range(6)] for order in ORDERS]
    )
    twist_moves = np.array(
        [[number(turn((SOLVED[0], _twists(t)), a)) % 729 for a in range(6)] for t in range(729)]
    )
    found = np.full(5040 * 729, -1, dtype=np.int8)
    found[number(SOLVED)] = 0
    frontier = np.array([number(SOLVED)])
    depth = 0
    while len(frontier):
        depth += 1
        orders, twists = np.divmod(frontier, 729)
        near = (order_moves[orders] * 729 + twist_moves[twists]).ravel()
        near = near[found[near] < 0]  # -1 where the search has not been
        found[near] = depth
        frontier = np.unique(near)
    return found


@lru_cache(maxsize=14)
def states_at(distance: int) -> NDArray[np.int64]:
    """The numbers (as ``number`` gives them) of all states at a distance in quarter turns."""
    return np.flatnonzero(distances() == distance)


class Rubik(Game):
    """Solve a 2x2 cube.

    Args:
        min_scramble, max_scramble: quarter turns that the instance is away from solved, exactly (1
            to 14).
        max_turns, max_actions_per_turn, max_actions: the budgets.

    Raises:
        ValueError: a scramble is out of range, or the budgets do not reach it.
    """

    action_names = ACTIONS

    def __init__(
        self,
        min_scramble: int = 2,
        max_scramble: int = 4,
        max_turns: int = 3,
        max_actions_per_turn: int = 4,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not 1 <= min_scramble <= max_scramble <= 14:
            raise ValueError(
                f"a 2x2 cube is 1 to 14 quarter turns away from solved, not {min_scramble} to"
                f" {max_scramble}"
            )
        self.min_scramble = min_scramble
        self.max_scramble = max_scramble
        self.render_mode = render_mode
        self.budget(max_turns, max_actions_per_turn, max_actions)
        if max_scramble > self.max_actions:
            raise ValueError(
                f"max_scramble={max_scramble} is more than max_actions={self.max_actions}: raise"
                " the budgets"
            )
        self.action_space = gym.spaces.Discrete(6)
        self.observation_space = text_space(60)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            "You solve a 2x2 Rubik's cube: every face must show one colour.\nEach line is a face (U"
            " up, R right, F front, D down, L left, B back) with its four stickers row by row, as"
            " seen from outside.\nU, R and F turn a face a quarter clockwise, U', R' and F'"
            " counterclockwise."
        )

    def _instance(self) -> State:
        """Any state at a drawn distance, all alike."""
        near = states_at(int(self.np_random.integers(self.min_scramble, self.max_scramble + 1)))
        order, twists = divmod(int(near[self.np_random.integers(len(near))]), 729)
        return ORDERS[order], _twists(twists)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a cube of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self.state = self.draw(requested_split(options), self._instance, str)
        return self.begin()

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """A quarter turn; see Game for rewards and info."""
        self.state = turn(self.state, self.check_action(action))
        return self.end_step(self.state == SOLVED)

    def cost_to_go(self) -> float:
        """Quarter turns to solved, from the table of all states."""
        return float(distances()[number(self.state)])

    def text(self) -> str:
        """The stickers, a line for each face."""
        stickers = [""] * 24
        for place, corner in enumerate(CORNERS):
            cubie = self.state[0][place] if place < 7 else 7
            twist = self.state[1][place] if place < 7 else 0
            for k in range(3):
                # The cubie's sticker k stands ``twist`` places further round its corner.
                stickers[corner[(k + twist) % 3]] = COLOURS[CORNERS[cubie][k] // 4]
        return "\n".join(
            f"{face} {' '.join(stickers[4 * i : 4 * i + 4])}" for i, face in enumerate(FACES)
        )

    def solve(self) -> list[int]:
        """A shortest solution as actions."""
        known = distances()
        state = self.state
        plan = []
        while left := int(known[number(state)]):
            for action in range(6):
                after = turn(state, action)
                if known[number(after)] == left - 1:
                    break
            plan.append(action)
            state = after
        return plan

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The next turns of a shortest solution; the thought is how many are left."""
        return f"{self.cost_to_go():g} to go", self.solve()[: self.max_actions_per_turn]
