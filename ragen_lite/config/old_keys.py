"""Keys of version 0.1, so that who writes one is told the new one, and old runs are still read."""

from __future__ import annotations

from typing import Any

NEW_KEYS = {
    "algo.credit": "credit",
    "algo.normalize": "credit.normalize",
    "algo.loss": "loss",
    "algo.clip_low": "loss.clip_low",
    "algo.clip_high": "loss.clip_high",
    "algo.aggregation": "loss.aggregation",
    "algo.kl": "kl",
    "algo.kl_coef": "kl.coef",
    "algo.entropy_coef": "loss.entropy_coef",
    "algo.filter": "filter",
    "algo.correction": "correction",
    "algo.turn_mask": "loss.turn_mask",
}
NEW_NAMES = {
    ("credit", "turn"): "turn_return",
    ("loss", "clip"): "ppo",
    ("algo", "turn"): "turn_return",
}


def renew(key: str, value: str) -> str | None:
    """How an old ``key=value`` is written now; None where it is no old one.

    >>> renew("algo.credit", "turn"), renew("algo", "turn"), renew("algo", "grpo")
    ('credit=turn_return', 'algo=turn_return', None)
    """
    new = NEW_KEYS.get(key, key)
    name = NEW_NAMES.get((new, value), value)
    return None if (new, name) == (key, value) else f"{new}={name}"


def upgrade_values(values: dict[str, Any]) -> dict[str, Any]:
    """A run's values by key, those of version 0.1 under their new keys.

    Where an old value did nothing (a clip ratio beside a loss without clipping) it is left out.
    """
    if "algo.credit" not in values:
        return values
    new = {NEW_KEYS.get(key, key): value for key, value in values.items()}
    for group in ("credit", "loss"):
        new[group] = NEW_NAMES.get((group, new[group]), new[group])
    # Version 0.1 wrote every key, used or not.
    if new["loss"] == "reinforce":
        del new["loss.clip_low"]
        del new["loss.clip_high"]
    if new["kl"] == "off":
        del new["kl.coef"]
    if new["correction"] != "off":
        new["correction.truncation"] = 2.0
    return new
