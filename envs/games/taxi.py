"""Taxi: Gymnasium's own city and passenger, described in words."""

from __future__ import annotations

from ragen_lite.envs.games.described import Described

# The four places in the order in which Gymnasium numbers them, and their (row, column).
PLACES = ("Red", "Green", "Yellow", "Blue")
CORNERS = ((0, 0), (0, 4), (4, 0), (4, 3))


class Taxi(Described):
    """Fetch a passenger and bring them to their destination (Gymnasium's Taxi-v4).

    An instance is a start: taxi, passenger and destination. A pick-up where nobody waits, and a
    drop-off with nobody aboard or away from the places, cost 1; at another place than the
    destination the passenger gets off.
    """

    action_names = ("South", "North", "East", "West", "Pickup", "Dropoff")

    def __init__(
        self,
        max_turns: int = 6,
        max_actions_per_turn: int = 6,
        max_actions: int = 30,
        render_mode: str | None = None,
    ) -> None:
        super().__init__("Taxi-v4", {}, max_turns, max_actions_per_turn, max_actions, render_mode)
        # What a full turn costs at worst: 0.1 for each step, and 1 for each action punished.
        self.turn_penalty = 1.1 * max_actions_per_turn

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        places = ", ".join(
            f"{name} ({row},{column})" for name, (row, column) in zip(PLACES, CORNERS, strict=True)
        )
        return (
            "You drive a taxi in a city of 5x5 squares: fetch the passenger and bring them to the"
            " destination.\nPositions are (row,column), counted from (0,0) at the top left. The"
            f" places are {places}. Walls stand on both sides between columns 1 and 2 in rows 0 and"
            " 1, between columns 0 and 1 and between columns 2 and 3 in rows 3 and 4.\nSouth,"
            " North, East and West drive one square; Pickup where nobody waits, and Dropoff with"
            " nobody aboard or away from the places, cost 1."
        )

    def describe(self, state: int) -> str:  # type: ignore[override]
        """Where the taxi, the passenger and the destination are."""
        row, column, passenger, destination = self.inner.decode(int(state))
        # Gymnasium counts the taxi as the passenger's fifth place.
        where = "in the taxi" if passenger == 4 else f"at {PLACES[passenger]}"
        return f"Taxi ({row},{column}), passenger {where}, destination {PLACES[destination]}"
