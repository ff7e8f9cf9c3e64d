"""What ``train`` and ``sft`` take out of their configuration before they begin."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.config.groups import Algorithm, context_of, name_of
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.config.stages import stages_of
from ragen_lite.learning.protocol import Reference, frozen
from ragen_lite.models.loading import Policy, load_policy
from ragen_lite.models.lora import switched_off
from ragen_lite.runs.evaluation import baselines
from ragen_lite.runs.folder import Run
from ragen_lite.runs.settings import Settings


def open_run(config: Config, slug: str) -> tuple[Run, dict[str, Any] | None]:
    """The run's folder, and what goes to Weights & Biases, if anything. Raises ConfigError."""
    whole = asdict(config)
    return Run.open(config.run, slug, whole), whole if config.run.wandb else None


def settings_of(config: Config) -> Settings:
    """How the run samples, learns and is measured; the engine has its real name by now."""
    # Measured with the longest replies of all stages, before and after alike.
    longest = max(stage.max_tokens for stage in stages_of(config))
    return Settings(
        engine=config.engine,
        train=config.train,
        sampling=Sampling(config.sample.temperature, longest),
        instances=config.eval.instances,
        seed=config.seed,
        contexts=context_of(config),
    )


def check_solver(spec: EnvSpec, algorithm: Algorithm) -> None:
    """Raise ConfigError for a credit that reads the solver where the task has none."""
    needed = getattr(algorithm.credit, "needs_solver", False)
    if needed and "solver" not in baselines(spec):
        chosen = name_of("credit", algorithm.credit)
        raise ConfigError(f"credit={chosen} is judged by the solver, which {spec.id} does not have")


def reference_of(config: Config, algorithm: Algorithm, policy: Policy) -> Reference | None:
    """The starting model, where the KL penalty needs it: with new LoRA, the model without it."""
    if not algorithm.kl.needs_reference:
        return None
    if policy.adapter is not None and policy.fresh:
        return partial(switched_off, policy.adapter)
    return frozen(load_policy(config.model, config.seed).model)
