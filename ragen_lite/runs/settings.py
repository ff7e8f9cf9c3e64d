"""What a run does with its model, out of the configuration of its command."""

from __future__ import annotations

from dataclasses import dataclass

from ragen_lite.agents.contexts import ContextRule, FullContext
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.config.schema import EngineConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run samples, learns and is measured.

    ``engine`` has its real name; ``instances`` are those of the test split; ``seed`` owns every
    draw; ``contexts`` says what of a conversation each prompt holds.
    """

    engine: EngineConfig
    train: TrainConfig
    sampling: Sampling
    instances: int
    seed: int
    contexts: ContextRule = FullContext()
