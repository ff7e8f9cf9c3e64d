"""CliffWalking: Gymnasium's own field and cliff, described in words."""

from __future__ import annotations

from ragen_lite.envs.games.described import Described, squares
from ragen_lite.envs.games.game import or_default


class CliffWalking(Described):
    """Walk to the goal past the cliff (Gymnasium's CliffWalking-v1).

    A fall costs 1 and puts you back to the corner (3,0). The episode goes on. An instance is a
    start: any square but the cliff's and the goal's.

    Args:
        slippery: whether a move slides sideways with probability 2/3.
        max_turns, max_actions_per_turn, max_actions: the budgets; null takes 5, 5 and 20, or 100,
            1 and 100 where it is slippery.
    """

    action_names = ("Up", "Right", "Down", "Left")

    def __init__(
        self,
        slippery: bool = False,
        max_turns: int | None = None,
        max_actions_per_turn: int | None = None,
        max_actions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        # On slippery ground the way takes long, and a plan of several actions is soon out of date.
        turns, each, total = (100, 1, 100) if slippery else (5, 5, 20)
        super().__init__(
            "CliffWalking-v1",
            {"is_slippery": slippery},
            or_default(max_turns, turns),
            or_default(max_actions_per_turn, each),
            or_default(max_actions, total),
            render_mode,
        )
        # What a full turn costs at worst: 0.1 for each step, and 1 for each fall.
        self.turn_penalty = 1.1 * self.max_actions_per_turn

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        slip = (
            " The ground is slippery: two moves in three slide to a side."
            if self.stochastic
            else ""
        )
        return (
            "You walk in a field of 4x12 squares to the goal G, past a cliff.\nSymbols: P you, _"
            " ground, C cliff, G goal. Positions are (row,column), counted from (0,0) at the top"
            " left.\nUp, Right, Down and Left move you one square. A step onto the cliff costs 1"
            f" and puts you back to (3,0).{slip}"
        )

    def wins(self, reward: float, terminated: bool) -> bool:
        """Whether a transition reaches the goal: nothing else ends Gymnasium's episode."""
        return terminated

    def begin_inner(self) -> int:
        """Any square above the cliff, or the corner beside it; returns its number."""
        # Gymnasium always starts in the corner, so its seed decides nothing.
        self.inner.reset(seed=0)
        # Squares are numbered row by row: 0 to 35 are the three free rows, 36 is the corner.
        self.inner.s = int(self.np_random.integers(37))
        self.inner.lastaction = None
        return int(self.inner.s)

    def describe(self, state: int) -> str:  # type: ignore[override]
        """The field, and where you and the goal are."""
        rows = [["_"] * 12 for _ in range(4)]
        rows[3][1:] = ["C"] * 10 + ["G"]
        row, column = divmod(int(state), 12)
        rows[row][column] = "P"
        return f"{squares(rows)}\nP ({row},{column}), G (3,11)"
