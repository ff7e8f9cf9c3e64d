"""Stages: sizes of an iteration that change as training goes on (DeepScaleR's 8k, 16k, 24k)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragen_lite.config.schema import Config, ConfigError

SIZES = ("groups", "group_size", "max_tokens")


@dataclass(frozen=True, slots=True)
class Stage:
    """The sizes of the iterations from ``start`` on.

    ``groups`` instances of ``group_size`` trajectories each, with replies of up to ``max_tokens``.
    """

    start: int
    groups: int
    group_size: int
    max_tokens: int


def stages_of(config: Config) -> list[Stage]:
    """The stages of a run, in order; one where there are no others. Raises ConfigError.

    A stage keeps what it does not name of the one before.
    """
    train = config.train
    stages = [Stage(1, train.groups, train.group_size, config.sample.max_tokens)]
    for told in train.stages:
        unknown = sorted(told.keys() - {"from", *SIZES})
        if unknown or "from" not in told:
            raise ConfigError(
                f"train.stages: {dict(told)}: give from, and of {', '.join(SIZES)} what changes"
            )
        last = stages[-1]
        sizes = {name: told.get(name, getattr(last, name)) for name in SIZES}
        stage = Stage(start=told["from"], **sizes)
        if stage.start <= last.start or min(sizes.values()) < 1:
            raise ConfigError(
                f"train.stages: {dict(told)}: it must begin after iteration {last.start}, with "
                "sizes above 0"
            )
        stages.append(stage)
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage that iteration ``step`` is in."""
    return [stage for stage in stages if stage.start <= step][-1]
