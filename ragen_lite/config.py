"""The configuration: one schema for all commands, each key with its meaning and its limits."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


class ConfigError(ValueError):
    """Input that cannot work: what came, what is allowed, what to do."""


@dataclass
class EnvConfig:
    """The task. ``env=sokoban`` takes configs/env/sokoban.yaml, ``env=my_package:MyEnv-v0`` any registered id."""

    id: str = "ragen_lite/Sokoban-v0"
    """Gymnasium id; ``module:Name-v0`` imports the module first."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Options of the task, each as env.kwargs.NAME=VALUE."""
    protocol: str | None = None
    """How replies are read: think_answer, answer, boxed, free; null takes the task's own."""


@dataclass
class ModelConfig:
    """The policy. ``model=tiny`` is the embedded one, ``model=PATH`` a Hugging Face folder or hub name."""

    path: str = "tiny"
    """tiny, a folder or a hub name; scratch:HIDDENxLAYERSxHEADS for random weights (96x4x3 where left out), to be
    taught by sft; for evaluate and play also random, solver and openai:NAME@URL."""
    dtype: str = "auto"
    """Arithmetic: auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16, float64. Weights are never 16 bit."""


@dataclass
class AlgoConfig:
    """Credit and loss, as algo=grpo, dr_grpo, rloo, turn or reinforce set them."""

    credit: str = "grpo"
    """Advantages from a group: grpo (return against the group), rloo (against the others), turn (from each turn on)."""
    normalize: bool = True
    """Divide advantages by the group's standard deviation."""
    loss: str = "clip"
    """clip (PPO's, with the two clip ratios below) or reinforce (no clipping)."""
    clip_low: float = 0.2
    """Lower clip ratio: a ratio below 1 - clip_low earns no more."""
    clip_high: float = 0.28
    """Upper clip ratio: a ratio above 1 + clip_high earns no more (DAPO's clip-higher)."""
    aggregation: str = "token"
    """Weight of a token: token (all of an optimiser step alike), sequence (all trajectories alike), constant (1 over
    sample.max_tokens)."""
    kl: str = "off"
    """Estimator of the KL to the frozen starting model, added to the loss: off, k1 (whose gradient is zero in
    expectation), k2 or k3."""
    kl_coef: float = 0.0
    """Weight of the KL; needs kl other than off."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    filter: str = "outcome"
    """Groups kept: outcome (some members succeeded, some did not), spread (returns differ), none (all)."""
    correction: str = "off"
    """Truncated importance weights for an engine whose log-probs are not the learner's own: off, token or sequence
    (the whole trajectory's ratio); costs one more forward pass a step."""
    turn_mask: bool = True
    """Train on sampled tokens only; false trains on observations too, to show what that breaks."""


@dataclass
class EngineConfig:
    """Where replies are generated."""

    name: str = "auto"
    """auto (vllm where it is installed and a GPU is there, else torch), torch (the learner's own model), vllm."""
    slots: int = 256
    """Trajectories under way at once; bounds the cache's memory."""
    options: dict[str, Any] = field(default_factory=dict)
    """engine.options.NAME=VALUE: vLLM's engine arguments that are no keys here, such as gpu_memory_utilization (the
    share of the GPU's memory for weights and cache) or tensor_parallel_size; of model=openai: concurrency, budget,
    retries, timeout."""
    max_model_len: int | None = None
    """Longest trajectory in tokens; null: what the model allows, at most 4096."""


@dataclass
class SampleConfig:
    """How replies are drawn."""

    temperature: float = 1.0
    """Temperature in training and in sampled evaluation; the learner's log-probs are taken at it too."""
    max_tokens: int = 48
    """Longest reply in tokens."""


@dataclass
class TrainConfig:
    """The training loop, of ``train`` and of ``sft``."""

    steps: int = 100
    """Iterations; each samples groups x group_size trajectories (sft: demonstrations) and makes epochs x mini_batches
    optimiser steps."""
    groups: int = 16
    """Task instances an iteration."""
    group_size: int = 8
    """Trajectories of each instance."""
    epochs: int = 1
    """Passes over an iteration's trajectories."""
    mini_batches: int = 4
    """Optimiser steps a pass."""
    lr: float = 1e-6
    """Peak learning rate of AdamW (betas 0.9, 0.95)."""
    warmup: int = 0
    """Iterations of linear warm-up."""
    schedule: str = "constant"
    """After the warm-up: constant, or linear or cosine down to 10%."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    microbatch_tokens: int = 16384
    """Tokens of one forward and backward pass, padding included; bounds memory, never changes the gradient."""


@dataclass
class EvalConfig:
    """Evaluation, within ``train`` and by ``evaluate``."""

    every: int = 20
    """Iterations between evaluations on the val split; 0: only before and after, on the test split."""
    instances: int = 256
    """Held-out instances."""
    split: str = "test"
    """Split that ``evaluate`` measures on: train, val or test."""
    compare: str | None = None
    """A second model for ``evaluate``, compared pair by pair on the same instances."""


@dataclass
class RunConfig:
    """The run's folder and its logs."""

    dir: str = "runs"
    """Where run folders are made."""
    name: str = "run"
    """The last part of the folder's name."""
    resume: str = "no"
    """no, auto (from the last good checkpoint of the newest run of this env and name that has one; else a new run), or
    a run folder."""
    save_every: int = 50
    """Iterations between checkpoints; the last is always saved, the three newest are kept."""
    wandb: bool = False
    """Log to Weights & Biases too."""


@dataclass
class Config:
    """Everything a command can be told."""

    env: EnvConfig = field(default_factory=EnvConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    algo: AlgoConfig = field(default_factory=AlgoConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    """Owns every draw of a run: instances, replies, the order of mini-batches."""
    demos: str = "teacher"
    """What sft learns from: teacher (the task's own demonstrations), solver, or a JSONL file of trajectories."""


# ---- checking ----

_CHOICES = {
    "model.dtype": ("auto", "float32", "bfloat16", "float64"),
    "algo.kl": ("off", "k1", "k2", "k3"),
    "algo.correction": ("off", "token", "sequence"),
    "engine.name": ("auto", "torch", "vllm"),
    "train.schedule": ("constant", "linear", "cosine"),
    "eval.split": ("train", "val", "test"),
}
_POSITIVE = (
    *("engine.slots", "sample.max_tokens", "train.steps", "train.groups", "train.group_size", "train.epochs"),
    *(
        "train.mini_batches",
        "train.lr",
        "train.grad_clip",
        "train.microbatch_tokens",
        "eval.instances",
        "run.save_every",
    ),
)
_NOT_NEGATIVE = (
    *("algo.clip_low", "algo.clip_high", "algo.kl_coef", "algo.entropy_coef", "sample.temperature", "train.warmup"),
    *("train.weight_decay", "eval.every", "seed"),
)


def get(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def check(config: Config) -> None:
    """Refuse what cannot work or would silently do nothing. Raises ConfigError."""
    from ragen_lite.loss import AGGREGATIONS, CREDITS, FILTERS, LOSSES

    tables = {"algo.credit": tuple(CREDITS), "algo.loss": tuple(LOSSES), "algo.filter": tuple(FILTERS)}
    tables["algo.aggregation"] = AGGREGATIONS
    for key, allowed in {**_CHOICES, **tables}.items():
        if get(config, key) not in allowed:
            raise ConfigError(f"{key}={get(config, key)!r}: choose one of {', '.join(allowed)}")
    for key in _POSITIVE:
        if not get(config, key) > 0:
            raise ConfigError(f"{key}={get(config, key)}: it must be above 0")
    for key in _NOT_NEGATIVE:
        if not get(config, key) >= 0:
            raise ConfigError(f"{key}={get(config, key)}: it must not be below 0")
    algo, train = config.algo, config.train
    if (algo.kl == "off") != (algo.kl_coef == 0):
        raise ConfigError(
            f"algo.kl={algo.kl} with algo.kl_coef={algo.kl_coef:g} does nothing: set both (such as algo.kl=k3 "
            "algo.kl_coef=0.001) or neither"
        )
    if algo.loss == "reinforce" and (algo.clip_low, algo.clip_high) != (0.2, 0.28):
        raise ConfigError("algo.clip_low and algo.clip_high do nothing with algo.loss=reinforce: take algo.loss=clip")
    if train.group_size < 2:
        raise ConfigError("train.group_size=1: a group of one has no baseline, so nothing is learnt; take 2 or more")
    if train.groups * train.group_size > 1_000_000:
        raise ConfigError(
            f"train.groups={train.groups} x train.group_size={train.group_size}: more than a million trajectories"
        )
    if train.mini_batches > train.groups * train.group_size:
        raise ConfigError(
            f"train.mini_batches={train.mini_batches}: more than the {train.groups * train.group_size} trajectories "
            "of an iteration (train.groups x train.group_size)"
        )
    if config.engine.max_model_len is not None and config.engine.max_model_len <= 0:
        raise ConfigError(f"engine.max_model_len={config.engine.max_model_len}: it must be above 0, or null")
    if config.sample.temperature == 0:
        raise ConfigError(
            "sample.temperature=0: greedy replies of a group are all the same; take a temperature above 0"
        )


# ---- the schema as text ----


def documented(node: type = Config, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every field as (dotted key, default, the line documented under it), read from the source."""
    tree = ast.parse(inspect.getsource(node)).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[ast.unparse(before.target)] = " ".join(str(after.value.value).split())
    for item in fields(node):
        default = getattr(node(), item.name)
        if is_dataclass(default):
            yield from documented(type(default), f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", default, docs.get(item.name, "")
