"""SIGINT and SIGTERM: the first asks for a clean end, the second ends at once."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


class StopSignal:
    """Whether somebody asked the run to stop; it listens from the time it is made."""

    def __init__(self) -> None:
        self.number: int | None = None
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # After the first signal the usual handlers come back, so that a second one ends at once.
        self.number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.number is not None

    def check(self) -> None:
        """Raise Interrupted where a stop was asked for."""
        if self.requested:
            raise Interrupted

    def leave(self) -> None:
        """End the process as a signal ends one: 130 for SIGINT, 143 for SIGTERM.

        Whoever waits for the process (a shell's ``&&``, a job scheduler, the next job of a sweep)
        must not take it for one that is done. Raises SystemExit.
        """
        raise SystemExit(128 + (self.number or signal.SIGINT))
