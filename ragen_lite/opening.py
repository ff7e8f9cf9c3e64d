"""How ``train`` and ``sft`` begin: what they take out of their configuration, and who learns and
plays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.algorithms.critics import NoCritic
from ragen_lite.algorithms.kl import NoKL
from ragen_lite.config.groups import Algorithm, context_of, name_of
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.config.stages import stages_of
from ragen_lite.learning import checkpoint, generation
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.making import LearnerSetup, make_learner
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.players import LocalPlayer, Player
from ragen_lite.models.loading import Policy
from ragen_lite.runs.evaluation import Evaluator, baselines
from ragen_lite.runs.folder import Run
from ragen_lite.runs.session import Session

Note = Callable[[str], None]


def open_run(config: Config, slug: str) -> tuple[Run, dict[str, Any] | None]:
    """The run's folder, and what goes to Weights & Biases, if anything. Raises ConfigError."""
    whole = asdict(config)
    return Run.open(config.run, slug, whole), whole if config.run.wandb else None


def check_solver(spec: EnvSpec, algorithm: Algorithm) -> None:
    """Raise ConfigError for a credit that reads the solver where the task has none."""
    needed = getattr(algorithm.credit, "needs_solver", False)
    if needed and "solver" not in baselines(spec):
        chosen = name_of("credit", algorithm.credit)
        raise ConfigError(f"credit={chosen} is judged by the solver, which {spec.id} does not have")


def open_session(
    config: Config,
    policy: Policy,
    spec: EnvSpec,
    run: Run,
    note: Note,
    algorithm: Algorithm | None = None,
) -> Session:
    """Learner, player and evaluator of a run, with the weights of its checkpoint if it is resumed.

    Args:
        config: whose engine has its real name by now.
        policy: to be trained.
        spec: the task.
        run: its folder.
        note: takes what a user should know.
        algorithm: what reinforcement learning is done by; None: learning is supervised, at a
            temperature of 1.

    Raises:
        StaleWeights: the engine does not take the weights.
    """
    # torch's generator is used by dropout only; every other draw has a key or a generator of its
    # own.
    torch.manual_seed(config.seed)
    setup = learner_setup(config, algorithm)
    learner = make_learner(setup, policy)
    # Before the player is made: its first weights are already those of the checkpoint.
    if run.checkpoint is not None:
        checkpoint.restore(run.checkpoint, learner)
    player = make_player(config, setup.temperature, policy, spec, learner, note)
    # Measured with the longest replies of all stages, before and after alike.
    longest = max(stage.max_tokens for stage in stages_of(config))
    evaluator = Evaluator(player, Sampling(config.sample.temperature, longest))
    session = Session(run, policy, learner, player, evaluator, config.eval.instances, note)
    session.finish(run.start)
    session.saved = run.start
    return session


def learner_setup(config: Config, algorithm: Algorithm | None) -> LearnerSetup:
    """What a run's learner is made from; schedules go by optimiser steps."""
    train = config.train
    # Keys count iterations; an iteration makes this many optimiser steps.
    per_step = train.epochs * train.mini_batches
    optim = Optim(
        lr=train.lr,
        steps=train.steps * per_step,
        warmup=train.warmup * per_step,
        schedule=train.schedule,
        weight_decay=train.weight_decay,
        grad_clip=train.grad_clip,
        microbatch_tokens=train.microbatch_tokens,
    )
    return LearnerSetup(
        model=config.model,
        seed=config.seed,
        optim=optim,
        temperature=config.sample.temperature if algorithm else 1.0,
        penalty=algorithm.kl if algorithm else NoKL(),
        critic=algorithm.critic if algorithm else NoCritic(),
    )


def make_player(
    config: Config,
    temperature: float,
    policy: Policy,
    spec: EnvSpec,
    learner: Learner,
    note: Note,
) -> Player:
    """What plays with the learner's weights, and has them already."""
    engine, sync = generation.start_engine(
        config.engine, policy, temperature, lambda: learner.version, sleeping=True, note=note
    )
    rollout = Rollout(engine, policy.chat, spec, config.seed, context_of(config))
    return LocalPlayer(rollout, sync, config.engine.shard)
