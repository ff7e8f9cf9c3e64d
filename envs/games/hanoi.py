"""Tower of Hanoi from any legal arrangement, with exact costs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.games.game import Game, or_default
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import requested_split

PEGS = "ABC"
# The pegs (from, to) of each action, as numbers: AB, AC, BA, BC, CA, CB.
MOVES = tuple((i, j) for i in range(3) for j in range(3) if i != j)
Pegs = tuple[int, ...]  # the peg of each disk, the smallest first


def move(pegs: Pegs, action: int) -> Pegs:
    """The arrangement after a move.

    It is unchanged where there is no disk to move, or where a smaller one lies on the other peg.
    """
    source, target = MOVES[action]
    # From the smallest disk on, the first one found on either peg is the top of that peg. Found on
    # the target, it is smaller than every disk of the source.
    for disk, peg in enumerate(pegs):
        if peg == target:
            return pegs
        if peg == source:
            return (*pegs[:disk], target, *pegs[disk + 1 :])
    return pegs


@lru_cache(maxsize=8)
def distances(disks: int) -> dict[Pegs, int]:
    """Fewest moves from every arrangement to all disks on C: 3 to the power of ``disks`` entries.

    A breadth-first search from the goal. Moves can be taken back, so the distances from the goal
    are those to it.
    """
    goal = (2,) * disks
    found = {goal: 0}
    frontier = [goal]
    for pegs in frontier:  # a queue: it grows while the loop reads it
        for action in range(6):
            near = move(pegs, action)
            if near not in found:
                found[near] = found[pegs] + 1
                frontier.append(near)
    return found


class Hanoi(Game):
    """Move all disks to peg C, one at a time, never a larger one onto a smaller one.

    Args:
        min_disks, max_disks: how many disks an instance has (1 to 8); it starts from any legal
            arrangement.
        min_cost: fewest moves an instance must need.
        max_turns, max_actions_per_turn, max_actions: the budgets; they must reach every arrangement
            (2^disks - 1 moves), and by default leave a quarter more.

    Raises:
        ValueError: an option is out of range, or the budgets do not reach every arrangement.
    """

    action_names = tuple(f"{PEGS[i]}{PEGS[j]}" for i, j in MOVES)

    def __init__(
        self,
        min_disks: int = 3,
        max_disks: int = 4,
        min_cost: int = 3,
        max_turns: int | None = None,
        max_actions_per_turn: int = 4,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not 1 <= min_disks <= max_disks <= 8:
            raise ValueError(f"Hanoi takes 1 to 8 disks, not {min_disks} to {max_disks}")
        # The farthest arrangement is the whole tower on another peg: 2^disks - 1 moves.
        if not 1 <= min_cost < 2**min_disks:
            raise ValueError(
                f"min_cost={min_cost}: {min_disks} disks need 1 to {2**min_disks - 1} moves"
            )
        self.min_disks = min_disks
        self.max_disks = max_disks
        self.min_cost = min_cost
        self.render_mode = render_mode
        enough = math.ceil(1.25 * (2**max_disks - 1) / max(1, max_actions_per_turn))
        self.budget(or_default(max_turns, enough), max_actions_per_turn, max_actions)
        if self.max_actions < 2**max_disks - 1:
            raise ValueError(
                f"{max_disks} disks can need {2**max_disks - 1} moves, more than"
                f" max_actions={self.max_actions}: raise max_turns or max_actions_per_turn"
            )
        self.action_space = gym.spaces.Discrete(6)
        # Each disk takes two characters on its peg; the rest is for the three names.
        self.observation_space = text_space(30 + 2 * max_disks)

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        return (
            "You play the Tower of Hanoi: move all disks to peg C.\nDisks are numbered by size, 1"
            " the smallest; a peg is written from bottom to top. A move such as AB takes the top"
            " disk of A to B; it is not carried out onto a smaller disk."
        )

    def _instance(self) -> Pegs:
        # This ends, since every number of disks has arrangements of ``min_cost`` moves and more.
        while True:
            disks = int(self.np_random.integers(self.min_disks, self.max_disks + 1))
            pegs = tuple(self.np_random.integers(3, size=disks).tolist())
            if distances(disks)[pegs] >= self.min_cost:
                return pegs

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw an arrangement of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self.pegs = self.draw(requested_split(options), self._instance, str)
        return self.begin()

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One move; see Game for rewards and info."""
        self.pegs = move(self.pegs, self.check_action(action))
        return self.end_step(all(peg == 2 for peg in self.pegs))

    def cost_to_go(self) -> float:
        """Fewest moves to the goal, from the table of all arrangements."""
        return float(distances(len(self.pegs))[self.pegs])

    def text(self) -> str:
        """The pegs, each from bottom to top."""
        lines = []
        for peg in range(3):
            # The largest lies at the bottom, so it is written first.
            disks = [
                str(disk + 1)
                for disk in range(len(self.pegs) - 1, -1, -1)
                if self.pegs[disk] == peg
            ]
            lines.append(f"{PEGS[peg]}: {' '.join(disks) or '-'}")
        return "\n".join(lines)

    def solve(self) -> list[int]:
        """A shortest solution as actions."""
        known = distances(len(self.pegs))
        pegs = self.pegs
        plan = []
        while known[pegs]:
            # Any move that comes nearer is part of a shortest solution.
            for action in range(6):
                after = move(pegs, action)
                if known[after] < known[pegs]:
                    break
            plan.append(action)
            pegs = after
        return plan

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[int]]:
        """The next moves of a shortest solution; the thought is how many are left."""
        return f"{self.cost_to_go():g} to go", self.solve()[: self.max_actions_per_turn]
