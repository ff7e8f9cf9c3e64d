"""Text that is not ours, on its way to a terminal."""

from __future__ import annotations

from rich.text import Text

_CODES = (*range(32), *range(127, 160))
CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in _CODES if chr(code) not in "\n\t"}


def safe(text: str) -> Text:
    """A model's or an environment's text as it is.

    There is no markup in it, and no control sequence reaches the terminal.
    """
    return Text(text.translate(CONTROL))
