"""When a run has had enough before its last step: a budget is spent, or nothing gets better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def why_enough(
    rows: Sequence[Mapping[str, Any]], tokens: int | None = None, patience: int = 0
) -> str | None:
    """Why a run ends here; None where it goes on.

    Args:
        rows: of metrics.jsonl, so that a resumed run goes on counting.
        tokens: to be sampled in training; None: as many as there are.
        patience: evaluations without a better one that are borne; 0: all.
    """
    sampled = sum(row.get("rollout/tokens") or 0 for row in rows)
    if tokens is not None and sampled >= tokens:
        return f"{sampled:,.0f} tokens were sampled, and train.tokens={tokens}"
    watched = [row["eval/success"] for row in rows if "eval/success" in row]
    if patience and watched:
        best = watched.index(max(watched))
        waited = len(watched) - 1 - best
        if waited >= patience:
            return (
                f"the best of {len(watched)} evaluations on the val split, {max(watched):.1%}, is "
                f"{waited} evaluations ago, and eval.patience={patience}"
            )
    return None
