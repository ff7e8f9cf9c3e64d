"""How ``train`` and ``sft`` begin: what they take out of their configuration, and who learns and
plays."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ragen_lite.agents.engines.threads import is_small
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.algorithms.critics import NoCritic
from ragen_lite.algorithms.kl import NoKL
from ragen_lite.cluster.hosts import Host, ProcessHost
from ragen_lite.cluster.learners import Learners, LearnersLost
from ragen_lite.cluster.players import Players, PlayerSetup
from ragen_lite.config.groups import Algorithm, context_of, name_of
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.config.stages import stages_of
from ragen_lite.learning import checkpoint
from ragen_lite.learning.generation import start_engine
from ragen_lite.learning.making import LearnerSetup, make_learner
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.players import LocalPlayer, Player, copy_weights
from ragen_lite.learning.protocol import Learning
from ragen_lite.learning.sync import tolerance_of
from ragen_lite.models.loading import Policy
from ragen_lite.runs.evaluation import Evaluator, baselines
from ragen_lite.runs.folder import Run
from ragen_lite.runs.interruption import StopSignal
from ragen_lite.runs.session import Session

Note = Callable[[str], None]
INSTALL_RAY = "pip install 'ragen-lite[ray]'"


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
    host = open_cluster(config, forked(config, policy), note)
    try:
        return _with_workers(config, policy, spec, run, note, algorithm, host)
    except BaseException:
        host.close()
        raise


def _with_workers(
    config: Config,
    policy: Policy,
    spec: EnvSpec,
    run: Run,
    note: Note,
    algorithm: Algorithm | None,
    host: Host,
) -> Session:
    setup = learner_setup(config, algorithm)
    if config.model.quantize and policy.adapter is None:
        raise ConfigError(
            f"model.quantize={config.model.quantize}: weights of 4 bits are not trained; take "
            "model.lora_rank=16, which trains matrices beside them"
        )
    if config.train.workers:
        if engines_of(config):
            # Its GPU is a worker's, and nobody here calculates with it.
            policy.model.cpu()
            torch.cuda.empty_cache()
        places = range(engines_of(config), engines_of(config) + config.train.workers)
        ranks = Learners(host, places, setup, torch.get_num_threads(), run.checkpoint)
        learner: Learning = ranks

        def write(folder: Path, step: int, ahead: str | None) -> Path:
            return ranks.save(folder, step, ahead, policy.demonstrated)

    else:
        own = make_learner(setup, policy)
        # Before the player is made: its first weights are already those of the checkpoint.
        if run.checkpoint is not None:
            checkpoint.restore(run.checkpoint, own)
        learner = own

        def write(folder: Path, step: int, ahead: str | None) -> Path:
            return checkpoint.save(folder, step, own, policy.tokenizer, ahead)

    player = make_player(config, setup.temperature, policy, spec, learner, host, note)
    # Measured with the longest replies of all stages, before and after alike.
    longest = max(stage.max_tokens for stage in stages_of(config))
    evaluator = Evaluator(player, Sampling(config.sample.temperature, longest))
    session = Session(
        run, policy, learner, player, evaluator, config.eval.instances, note, write, host.close
    )
    session.finish(run.start)
    session.saved = run.start
    return session


def engines_of(config: Config) -> int:
    """How many engines have a process of their own: what is sampled ahead needs one at least."""
    return max(config.engine.workers or 0, min(1, config.train.staleness))


def forked(config: Config, policy: Policy) -> int:
    """How many engines are forked off this process, where nobody says how many there should be.

    Threads do not share the sums of a small model; engines share a step's trajectories.
    """
    engine, train = config.engine, config.train
    if engine.workers is not None or engine.shard is None or train.workers or train.staleness:
        return 0
    # Elsewhere libraries do not survive a fork, nor does what a GPU's driver keeps of a process.
    if sys.platform != "linux" or torch.cuda.is_available() or engine.name != "torch":
        return 0
    if not is_small(policy.model):
        return 0
    parts = math.ceil(train.groups * train.group_size / engine.shard)
    count = min(parts, torch.get_num_threads())
    return count if count > 1 else 0


def open_cluster(config: Config, forks: int, note: Note) -> Host:
    """Where the run's workers live: with Ray where there are several. Raises ConfigError."""
    engines = engines_of(config)
    learners = config.train.workers
    # One player beside the learner needs no cluster.
    if not (config.engine.workers or learners):
        if forks:
            note(f"{forks} engines play, in processes of their own")
        return ProcessHost("fork" if forks else "spawn")
    if engines > 1 and config.engine.shard is None:
        note(
            f"engine.workers={engines} and engine.shard=null: all of a step is one shard, which "
            "one engine plays; give engine.shard, the trajectories of a shard, so that all play"
        )
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"engine.workers={config.engine.workers}, train.workers={learners} need Ray: "
            f"{INSTALL_RAY}"
        )
    from ragen_lite.cluster.ray_host import RayHost

    gpus = config.engine.options.get("tensor_parallel_size", 1)
    if not isinstance(gpus, int) or gpus < 1:
        raise ConfigError(f"engine.options.tensor_parallel_size={gpus!r}: give a number of GPUs")
    return RayHost(engines, gpus, learners, note)


@contextlib.contextmanager
def going_on(run: Run, stop: StopSignal) -> Iterator[None]:
    """Where a learner is lost within it, the run can go on, unless it was asked to stop."""
    try:
        yield
    except LearnersLost as lost:
        if not stop.requested:
            lost.folder = run.folder
        raise


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
        lr_end=train.lr_end,
        betas=(train.betas[0], train.betas[1]),
        name=train.optimizer,
        checkpointing=train.checkpointing,
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
    learner: Learning,
    host: Host,
    note: Note,
) -> Player:
    """What plays with the learner's weights, and has them already."""
    engine = config.engine
    contexts = context_of(config)
    forks = forked(config, policy)
    if count := engines_of(config) or forks:
        setup = PlayerSetup(
            model=config.model,
            engine=engine,
            seed=config.seed,
            temperature=temperature,
            spec=spec,
            contexts=contexts,
            threads=1 if forks else torch.get_num_threads(),
            tolerance=tolerance_of(policy.dtype),
        )
        players = Players(host, setup, count, learner, engine.shard, engine.restarts, note)
        players.hand_over(learner.version)
        return players
    elsewhere = bool(config.train.workers)
    if elsewhere:
        copy_weights(policy.model, learner.tensors())
    generator, sync = start_engine(
        engine, policy, temperature, lambda: learner.version, sleeping=not elsewhere, note=note
    )
    rollout = Rollout(generator, policy.chat, spec, config.seed, contexts)
    if not elsewhere:
        return LocalPlayer(rollout, sync, engine.shard)
    # The canary holds the engine against those that learn, not against the copy in this process.
    sync.score = learner.score
    return LocalPlayer(rollout, sync, engine.shard, learner.tensors)
