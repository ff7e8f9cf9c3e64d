"""Trajectories as plain JSON, for a run's folder; records of older versions are read too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ragen_lite.agents.answer import plain
from ragen_lite.agents.trajectory import Context, Exchange, Outcome, Trajectory, Turn

_TEXT = tuple(f.name for f in fields(Exchange) if f.name != "info")


def as_record(
    trajectory: Trajectory, advantages: Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    """A trajectory as plain JSON types: text, ids, mask, log-probs, rewards and seeds.

    ``advantages`` are one number a token, context by context; None where the filter dropped the
    group.
    """
    contexts = [
        {
            "token_ids": list(context.token_ids),
            "loss_mask": [int(sampled) for sampled in context.loss_mask],
            "behaviour_logprobs": list(context.behaviour_logprobs),
            "advantages": None if advantages is None else list(advantages[number]),
        }
        for number, context in enumerate(trajectory.contexts)
    ]
    return {
        "env_id": trajectory.env_id,
        "seed": trajectory.seed,
        "group": trajectory.group,
        "member": trajectory.member,
        "outcome": str(trajectory.outcome),
        "returns": trajectory.returns,
        "error": trajectory.error,
        "system": trajectory.system,
        "turns": [_turn(turn) for turn in trajectory.turns],
        "contexts": contexts,
    }


def _turn(turn: Turn) -> dict[str, Any]:
    spans = {"context": turn.context, "start": turn.start, "stop": turn.stop, "cut": turn.cut}
    text = {name: plain(getattr(turn, name)) for name in _TEXT}
    return {**text, **spans, "info": dict(turn.info)}


def restored(record: dict[str, Any]) -> Trajectory:
    """A trajectory from what JSON keeps of ``dataclasses.asdict``: exactly the one it was."""
    turns = []
    for turn in record["turns"]:
        actions = turn["actions"]
        turns.append(Turn(**{**turn, "actions": None if actions is None else tuple(actions)}))
    contexts = [
        Context(**{name: tuple(values) for name, values in context.items()})
        for context in record["contexts"]
    ]
    rebuilt = {
        "turns": tuple(turns),
        "contexts": tuple(contexts),
        "outcome": Outcome(record["outcome"]),
    }
    return Trajectory(**{**record, **rebuilt})


def upgrade_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record in today's form; one of version 0.1 had its one context's arrays on top.

    Old names: ``reward`` (returns), ``sampled`` (loss_mask), ``logprobs`` (behaviour_logprobs), and
    a turn's typed fields within its ``info``. What is not there is left out: a record for
    supervised learning needs its turns' texts only.
    """
    # Demonstrations by hand have texts only, and need no change.
    if "contexts" in record or "token_ids" not in record:
        return record
    record = dict(record)
    context = {
        "token_ids": record.pop("token_ids"),
        "loss_mask": record.pop("sampled", None),
        "behaviour_logprobs": record.pop("logprobs", None),
        "advantages": record.pop("advantages", None),
    }
    returns = record.pop("reward", None)
    turns = []
    for turn in record["turns"]:
        info = dict(turn.get("info", {}))
        typed = {name: info.pop(name) for name in _TEXT if name in info}
        turns.append({**turn, **typed, "context": 0, "info": info})
    return {**record, "returns": returns, "turns": turns, "contexts": [context]}
