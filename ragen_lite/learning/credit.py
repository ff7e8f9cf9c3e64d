"""A step's groups with their credit: which are learnt from, and by which advantages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ragen_lite.agents.records import as_record
from ragen_lite.agents.trajectory import Group, Trajectory
from ragen_lite.algorithms.advantages import Advantage, Array, Values
from ragen_lite.algorithms.filters import Filter
from ragen_lite.algorithms.overlong import KeepCut, Overlong
from ragen_lite.algorithms.value_credit import ValueCredit
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.samples import to_samples


@dataclass(frozen=True, slots=True)
class Credited:
    """A trajectory with its advantages, one array a context.

    ``kept`` is whether its group passed the filter. With a critic, ``values`` are what it said, and
    ``returns`` what it should have said, arranged alike.
    """

    trajectory: Trajectory
    advantages: list[Array]
    kept: bool
    values: list[Array] | None = None
    returns: list[Array] | None = None

    def samples(self, turn_mask: bool, overlong: Overlong | None = None) -> list[Sample]:
        """What is trained on, one sample a context.

        A context without a trained token (the first prompt did not fit) has none.
        """
        trains = (overlong or KeepCut()).trains
        samples = to_samples(self.trajectory, self.advantages, turn_mask, trains)
        if self.values is not None and self.returns is not None:
            pairs = zip(self.values, self.returns, strict=True)
            samples = [
                replace(sample, values=values, returns=returns)
                for sample, (values, returns) in zip(samples, pairs, strict=True)
            ]
        return [sample for sample in samples if sample.trained]


def give_credit(
    groups: Sequence[Group],
    credit: Advantage,
    passed: Sequence[bool],
    values: Values | None = None,
) -> list[Credited]:
    """Every trajectory of a step with its credit, which the filter does not change.

    Args:
        groups: of the step, with the rewards that count.
        credit: gives the advantages.
        passed: whether each group passed the filter.
        values: a critic's, where the credit reads them.
    """
    # The credit gives one array a context, in the order of the groups and their members.
    arrays = iter(credit(groups) if values is None else credit(groups, values))
    said = iter(values or [])
    targets: list[Array] = []
    if values is not None:
        targets = cast(ValueCredit, credit).targets(groups, values)
    wanted = iter(targets)
    credited = []
    for group, kept in zip(groups, passed, strict=True):
        for trajectory in group.trajectories:
            number = range(len(trajectory.contexts))
            advantages = [next(arrays) for _ in number]
            found = Credited(trajectory, advantages, kept)
            if targets:
                found = replace(
                    found,
                    values=[next(said) for _ in number],
                    returns=[next(wanted) for _ in number],
                )
            credited.append(found)
    return credited


def passing(groups: Sequence[Group], passes: Filter, wanted: int | None = None) -> list[bool]:
    """Whether each group is learnt from: those that pass, the first ``wanted`` of them at most."""
    flags = passes(groups)
    if wanted is None:
        return flags
    count = 0
    result = []
    for flag in flags:
        count += flag
        result.append(flag and count <= wanted)
    return result


def records_of(
    trajectories: Sequence[Trajectory], credited: Sequence[Credited]
) -> Iterator[dict[str, Any]]:
    """The step's trajectories as JSON, with the advantages of those that are learnt from."""
    learnt = {(c.trajectory.group, c.trajectory.member): c.advantages for c in credited if c.kept}
    for trajectory in trajectories:
        arrays = learnt.get((trajectory.group, trajectory.member))
        numbers = None if arrays is None else [array.tolist() for array in arrays]
        yield as_record(trajectory, numbers)


def kept_share(credited: Sequence[Credited]) -> float:
    """Share of the step's groups that are learnt from."""
    kept = {c.trajectory.group: c.kept for c in credited}
    return sum(kept.values()) / max(1, len(kept))


def credit_metrics(credited: Sequence[Credited]) -> dict[str, float]:
    """The share of groups that were kept; and of a critic, the share of variance it explains."""
    found = {"rollout/kept_groups": kept_share(credited)}
    errors = []
    targets = []
    for each in credited:
        if each.values is None or each.returns is None:
            continue
        masks = [np.array(context.loss_mask, dtype=bool) for context in each.trajectory.contexts]
        for said, target, mask in zip(each.values, each.returns, masks, strict=True):
            targets.append(target[mask])
            errors.append((target - said)[mask])
    if targets:
        variance = float(np.concatenate(targets).var())
        left = float(np.concatenate(errors).var())
        found["train/explained_variance"] = 1 - left / variance if variance else 0.0
    return found
