"""A served model from the command line: ``model=openai:NAME@URL`` with its options, checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ragen_lite.agents.contexts import ContextRule
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.served import ServedPolicy
from ragen_lite.config.schema import ConfigError

OPTIONS = ("concurrency", "budget", "retries", "timeout")


def served_policy(
    spec: EnvSpec,
    path: str,
    engine: str,
    options: Mapping[str, Any],
    contexts: ContextRule | None = None,
) -> ServedPolicy:
    """The policy behind ``openai:NAME@URL``.

    Args:
        spec: the task.
        path: of the model.
        engine: engine.name, which must be left alone: the server is the engine.
        options: engine.options.
        contexts: what of the conversation each prompt holds.

    Raises ConfigError for what it cannot be given.
    """
    for name, value in options.items():
        _check_option(name, value)
    if engine != "auto":
        raise ConfigError(
            f"engine={engine} does nothing with model={path}: the server is the engine"
        )
    return ServedPolicy(spec, path, **options, contexts=contexts)


def _check_option(name: str, value: Any) -> None:
    if name not in OPTIONS:
        close = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        known = ", ".join(OPTIONS)
        raise ConfigError(f"engine.options.{name}: model=openai takes {known}{hint}")
    least = 0 if name == "retries" else 1
    whole = type(value) is int and value >= least
    unlimited = name == "budget" and value is None
    seconds = name == "timeout" and isinstance(value, float) and 0 < value < math.inf
    if not (whole or unlimited or seconds):
        raise ConfigError(
            f"engine.options.{name}={value}: concurrency (requests at once), budget (tokens) and "
            "retries are whole numbers from 1 (retries: 0), timeout is in seconds"
        )
