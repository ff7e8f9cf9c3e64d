"""Do groups whose returns differ more teach more? The gradient of the widest and of the narrowest.

Source: the probe by which RAGEN-2 justifies its filters by spread.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.filters import spread_of
from ragen_lite.algorithms.losses import Loss, token_weights
from ragen_lite.algorithms.overlong import Overlong
from ragen_lite.learning.credit import Credited
from ragen_lite.learning.protocol import Learning


def gradient_by_spread(
    learner: Learning, credited: Sequence[Credited], loss: Loss, overlong: Overlong
) -> dict[str, float]:
    """The gradient norms of two quarters of a step's groups: of the widest spread, and the least.

    All tokens of a quarter weigh alike. Groups without a spread are left out; empty where fewer
    than two have one.
    """
    groups: dict[int, list[Credited]] = {}
    for each in credited:
        groups.setdefault(each.trajectory.group, []).append(each)
    spreads = {}
    for number, members in groups.items():
        # Asked of the returns, since rounding leaves a spread where all are equal.
        if len({c.trajectory.returns for c in members}) > 1:
            spreads[number] = spread_of(Group(tuple(c.trajectory for c in members)))
    ordered = sorted(spreads, key=spreads.__getitem__)
    if len(ordered) < 2:
        return {}
    quarter = max(1, len(ordered) // 4)
    found = {}
    for name, chosen in (("narrow", ordered[:quarter]), ("wide", ordered[-quarter:])):
        members = [c for n in chosen for c in groups[n]]
        samples = [s for c in members for s in c.samples(loss.turn_mask, overlong)]
        if not samples:
            return {}
        weights = token_weights([sample.trained for sample in samples], "token")
        measured = learner.step(samples, weights, loss, moves=False)
        found[f"train/grad_norm_{name}"] = measured["train/grad_norm"]
    return found
