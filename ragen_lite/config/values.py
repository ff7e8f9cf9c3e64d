"""Values of the command line that Hydra's grammar would not take as they were meant."""

from __future__ import annotations

import re
from pathlib import Path

WEIGHTS = re.compile(r"[\w-]+:-?[\d.]+(,[\w-]+:-?[\d.]+)*")


def as_value(key: str, value: str) -> str:
    """A value as Hydra's grammar writes it.

    ``~`` is the home folder. A value that names a file, or that the grammar cannot read, is a text,
    whatever signs it has. ``name:2,other:1``, which a shell leaves alone, is a dictionary.
    """
    if value.startswith("~/"):
        value = f"{Path.home()}{value[1:]}"
    if key.startswith("env.kwargs.") and WEIGHTS.fullmatch(value):
        return f"{{{value}}}"
    return quoted(value) if _is_file(value) or not _readable(key, value) else value


def quoted(text: str) -> str:
    """A text in Hydra's quotes."""
    # Bars before a quote, and before the end, stand for themselves only where they are doubled; and
    # what looks like an interpolation is none.
    text = re.sub(r"(\\*)(?='|$)", r"\1\1", text).replace("'", r"\'").replace("${", r"\${")
    return f"'{text}'"


def _is_file(value: str) -> bool:
    try:
        return Path(value).exists() and not re.fullmatch(r"[\w./:-]*", value, re.ASCII)
    except (OSError, ValueError):  # too long, or with characters that no path has
        return False


def _readable(key: str, value: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return False
    return True
