"""What ``train`` and ``sft`` take out of their configuration alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ragen_lite.agents.trajectory import Sampling
from ragen_lite.config.schema import Config
from ragen_lite.runs.folder import Run
from ragen_lite.runs.settings import Settings


def open_run(config: Config, slug: str) -> tuple[Run, dict[str, Any] | None]:
    """The run's folder, and what goes to Weights & Biases, if anything. Raises ConfigError."""
    whole = asdict(config)
    return Run.open(config.run, slug, whole), whole if config.run.wandb else None


def settings_of(config: Config) -> Settings:
    """How the run samples, learns and is measured; the engine has its real name by now."""
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    return Settings(config.engine, config.train, sampling, config.eval.instances, config.seed)
