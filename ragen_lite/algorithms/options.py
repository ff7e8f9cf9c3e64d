"""What an algorithm says of an option that cannot work."""

from __future__ import annotations


class BadOption(ValueError):
    """An option of an algorithm that cannot work: ``key`` names it, the text says why."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


def share(key: str, value: float) -> None:
    """Raise BadOption for a value that is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise BadOption(key, f"{value}: it must be from 0 to 1")


def above_zero(key: str, value: float) -> None:
    """Raise BadOption for a value that is not above 0."""
    if not value > 0:
        raise BadOption(key, f"{value}: it must be above 0")


def not_negative(key: str, value: float) -> None:
    """Raise BadOption for a value below 0."""
    if not value >= 0:
        raise BadOption(key, f"{value}: it must not be below 0")
