"""What is refused before anything is made: values that cannot work, or would do nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from ragen_lite.agents.engines.table import ENGINES
from ragen_lite.config.groups import Algorithm, algorithm_of, context_of
from ragen_lite.config.schema import Config, ConfigError, ModelConfig, TrainConfig
from ragen_lite.config.stages import Stage, stages_of

MOST_TRAJECTORIES = 1_000_000  # of one iteration
MOST_SEED = 2**63  # torch's generator takes no more
LONGEST_NAME = 100  # characters; a folder's name may have 255, with date and env

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "engine.name": ("auto", *ENGINES),
    "model.dtype": ("auto", "float32", "bfloat16", "float64"),
    "engine.lora": ("merged", "adapter"),
    "train.schedule": ("constant", "linear", "cosine"),
    "eval.split": ("train", "val", "test", "all"),
    "scale": ("full", "smoke"),
    "model.quantize": (None, "nf4"),
    "train.optimizer": ("adamw", "adamw_8bit"),
    "train.checkpointing": ("off", "blocks", "offload"),
}
_POSITIVE = """
    engine.slots sample.max_tokens sample.temperature
    train.steps train.groups train.group_size train.epochs train.mini_batches train.lr
    train.grad_clip train.microbatch_tokens eval.instances eval.samples run.save_every
""".split()
_NOT_NEGATIVE = (
    "train.warmup train.weight_decay eval.every eval.patience seed model.lora_rank "
    "engine.restarts train.workers train.restarts train.staleness".split()
)


def get(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def check(config: Config) -> None:
    """Refuse what cannot work or would silently do nothing. Raises ConfigError."""
    for key, allowed in _CHOICES.items():
        if get(config, key) not in allowed:
            told = ", ".join(choice or "null" for choice in allowed)
            raise ConfigError(f"{key}={get(config, key)!r}: choose one of {told}")
    # Said apart from the rule below, since 0 is a fair temperature elsewhere.
    if config.sample.temperature == 0:
        raise ConfigError(
            "sample.temperature=0: greedy replies of a group are all the same; take a temperature "
            "above 0"
        )
    _each(config, _POSITIVE, lambda value: value > 0, "it must be above 0")
    _each(config, _NOT_NEGATIVE, lambda value: value >= 0, "it must not be below 0")
    _check_model(config.model)
    _check_optimiser(config.train)
    _check_ranks(config)
    algorithm = algorithm_of(config)
    context_of(config)
    _check_critic(config, algorithm)
    _check_rewards(config, algorithm)
    for stage in stages_of(config):
        _check_sizes(config, algorithm, stage)
    _check_run(config)
    _check_ends(config)
    for key in ("engine.max_model_len", "engine.shard", "train.tokens"):
        if get(config, key) is not None and get(config, key) <= 0:
            raise ConfigError(f"{key}={get(config, key)}: it must be above 0, or null")
    if config.engine.workers is not None and config.engine.workers < 0:
        raise ConfigError(f"engine.workers={config.engine.workers}: from 0, or null")


def _check_ends(config: Config) -> None:
    """What ends a run early must be something that happens."""
    if config.eval.patience and not config.eval.every:
        raise ConfigError(
            f"eval.patience={config.eval.patience} does nothing with eval.every=0: nothing is "
            "measured on the way"
        )


def _check_optimiser(train: TrainConfig) -> None:
    """AdamW's rates, and a schedule that falls."""
    if len(train.betas) != 2 or not all(0 <= beta < 1 for beta in train.betas):
        raise ConfigError(f"train.betas={train.betas}: two numbers from 0 to below 1")
    if train.schedule == "constant" and train.lr_end != TrainConfig().lr_end:
        raise ConfigError(f"train.lr_end={train.lr_end} does nothing with train.schedule=constant")
    if not 0 <= train.lr_end <= 1:
        raise ConfigError(f"train.lr_end={train.lr_end}: a share of the peak, from 0 to 1")


def _check_ranks(config: Config) -> None:
    """What cannot lie in parts on several learners."""
    eight = config.train.optimizer if config.train.optimizer != "adamw" else None
    for key, value in (("model.quantize", config.model.quantize), ("train.optimizer", eight)):
        if value and config.train.workers:
            raise ConfigError(f"{key}={value} with train.workers: it is for one learner")


def _check_model(model: ModelConfig) -> None:
    """LoRA's numbers, and a date that there is."""
    alpha = model.lora_alpha
    if alpha is not None and not model.lora_rank:
        raise ConfigError(f"model.lora_alpha={alpha} does nothing without model.lora_rank")
    if alpha is not None and not alpha > 0:
        raise ConfigError(f"model.lora_alpha={alpha}: it must be above 0, or null")
    try:
        datetime.date.fromisoformat(model.date)
    except ValueError as error:
        raise ConfigError(f"model.date={model.date}: give YEAR-MONTH-DAY ({error})") from error


def _each(config: Config, keys: list[str], fits: Callable[[Any], bool], rule: str) -> None:
    for key in keys:
        value = get(config, key)
        if not fits(value):
            raise ConfigError(f"{key}={value}: {rule}")


def _check_run(config: Config) -> None:
    """A name that every file system takes, and a seed that every generator takes."""
    name = config.run.name
    if not name or len(name) > LONGEST_NAME or set(name) & set("/\\\0"):
        raise ConfigError(
            f"run.name={name[:40]!r}: it is the end of a folder's name, so 1 to {LONGEST_NAME} "
            "characters without slashes"
        )
    if config.seed >= MOST_SEED:
        raise ConfigError(f"seed={config.seed}: it must be below 2^63")


def _check_critic(config: Config, algorithm: Algorithm) -> None:
    """A credit that reads values has a critic, and a critic has such a credit."""
    needed = getattr(algorithm.credit, "needs_values", False)
    credit = config.credit.name
    if needed and not algorithm.critic.active:
        raise ConfigError(
            f"credit={credit} reads a critic's values: take critic=own or "
            "critic=shared, or algo=ppo"
        )
    if needed and not algorithm.loss.turn_mask:
        raise ConfigError(
            "loss.turn_mask=false: a critic values the policy's own tokens, not those of "
            "observations; take a credit without a critic"
        )
    if algorithm.critic.active and not needed:
        raise ConfigError(
            f"critic={config.critic.name} does nothing with credit={credit}: take credit=gae or "
            "credit=bi_level_gae, or critic=off"
        )


def _check_rewards(config: Config, algorithm: Algorithm) -> None:
    """What is charged on top of the rewards: a credit must read it, and bear it."""
    charges = []
    if getattr(algorithm.kl, "place", "loss") == "reward":
        charges.append("kl.place=reward")
    if config.overlong.buffer:
        charges.append(f"overlong.buffer={config.overlong.buffer}")
    credit = config.credit.name
    if charges and getattr(algorithm.credit, "from_zero", False):
        raise ConfigError(f"{charges[0]} makes returns below 0, which credit={credit} cannot take")
    if config.overlong.name == "zero":
        charges.append("overlong=zero")
    if charges and not getattr(algorithm.credit, "reads_rewards", True):
        raise ConfigError(f"{charges[0]} does nothing with credit={credit}, which reads no reward")
    if config.overlong.buffer > config.sample.max_tokens:
        raise ConfigError(
            f"overlong.buffer={config.overlong.buffer}: replies have at most "
            f"sample.max_tokens={config.sample.max_tokens}, so every one would be charged"
        )
    steps = config.train.steps
    for key, last in (("critic.warmup", steps - 1), ("kl.start", steps)):
        group, _, name = key.partition(".")
        value = getattr(getattr(algorithm, group), name, 0)
        if value > last:
            raise ConfigError(f"{key}={value}: the run has no more than train.steps={steps}")


def _check_sizes(config: Config, algorithm: Algorithm, stage: Stage) -> None:
    """An iteration's trajectories: enough for a baseline and for the mini-batches."""
    train = config.train
    whole = stage.groups * stage.group_size
    product = f"train.groups={stage.groups} x train.group_size={stage.group_size}"
    alone = not getattr(algorithm.credit, "compares_members", True)
    if stage.group_size < 2 and not (alone and config.filter.name == "none"):
        raise ConfigError(
            "train.group_size=1: a group of one has no baseline, so nothing is learnt; take 2 or "
            "more, or a critic (algo=ppo)"
        )
    if stage.start > train.steps:
        raise ConfigError(
            f"train.stages: one begins at {stage.start}, and the run ends at "
            f"train.steps={train.steps}"
        )
    if whole > MOST_TRAJECTORIES:
        raise ConfigError(f"{product}: more than a million trajectories")
    if train.mini_batches > whole:
        raise ConfigError(
            f"train.mini_batches={train.mini_batches}: more than the {whole} trajectories of an "
            "iteration (train.groups x train.group_size)"
        )
