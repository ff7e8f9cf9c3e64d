"""The configuration: one schema for all commands, each key with its meaning."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

from ragen_lite.agents.chat import DATE
from ragen_lite.agents.errors import UserError


class ConfigError(UserError, ValueError):
    """Input that cannot work: what came, what is allowed, what to do."""


def require(package: str, what: str, extra: str) -> None:
    """Raise ConfigError where a package is not installed that an ``extra`` of ours brings."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{what} needs {package}: pip install 'ragen-lite[{extra}]'")


@dataclass
class EnvConfig:
    """The task. ``env=sokoban`` is one of ours by its short name, ``env=my_package:MyEnv-v0`` any
    registered id; a file of configs/env sets these keys together."""

    id: str = "ragen_lite/Sokoban-v0"
    """Gymnasium id; ``module:Name-v0`` imports the module first."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Options of the task, each as env.kwargs.NAME=VALUE."""
    protocol: str | None = None
    """How replies are read: think_answer, answer, boxed, free; null takes the task's own."""
    prefill: str | None = None
    """Text that every reply begins with, unsampled, such as <think>; null takes the task's own."""


@dataclass
class ModelConfig:
    """The policy. ``model=tiny`` is the embedded one, ``model=PATH`` a Hugging Face folder or hub
    name."""

    path: str = "tiny"
    """tiny, smollm2, a folder (of a model, or of a LoRA adapter) or a hub name;
    scratch:HIDDENxLAYERSxHEADS for random weights (96x4x3 where left out), to be taught by sft; for
    evaluate and play also random, solver and openai:NAME@URL."""
    dtype: str = "auto"
    """Arithmetic: auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16, float64. Weights
    are never 16 bit."""
    quantize: str | None = None
    """nf4: frozen weights of 4 bits by bitsandbytes, with LoRA's matrices beside them (QLoRA,
    arXiv:2305.14314); null: as they are."""
    lora_rank: int = 0
    """Rank of LoRA's matrices, which are trained in place of the weights; 0: all weights are. A
    LoRA adapter's folder as the model brings its own."""
    lora_alpha: float | None = None
    """LoRA's scale, divided by its rank; null: twice the rank."""
    template: str | None = None
    """Chat template in place of the tokenizer's: plain (User: and Assistant:, for base models), or
    a .jinja file; null: the tokenizer's own."""
    date: str = DATE
    """The day told to chat templates that ask for it (Llama 3.2's, SmolLM3's), as YEAR-MONTH-DAY: a
    run has the same prompts on every day."""


@dataclass
class EngineConfig:
    """Where replies are generated."""

    name: str = "auto"
    """auto (vllm where it is installed and a GPU is there, else torch), torch (the learner's own
    model), vllm."""
    slots: int = 256
    """Trajectories under way at once; bounds the cache's memory."""
    options: dict[str, Any] = field(default_factory=dict)
    """engine.options.NAME=VALUE: vLLM's engine arguments that are no keys here, such as
    gpu_memory_utilization (the share of the GPU's memory for weights and cache) or
    tensor_parallel_size; of model=openai: concurrency, budget, retries, timeout."""
    lora: str = "merged"
    """What an engine with a model of its own (vllm) is given of LoRA: merged (all weights, the
    matrices added to them) or adapter (the frozen weights once, then the matrices alone)."""
    max_model_len: int | None = None
    """Longest trajectory in tokens; null: what the model allows, at most 4096."""
    shard: int | None = None
    """Trajectories that share a batch: a step's are cut into shards of this size, played one after
    the other, or by several workers at once; null: all are one shard. The last bits of the
    log-probs depend on it, never on who plays."""
    workers: int | None = None
    """Engines in processes of their own, by Ray: on this machine, or in the cluster of RAY_ADDRESS;
    0: one, in this process; null: 0, but with a small model, without a GPU, under Linux and
    without train.staleness or train.workers: one a shard of a step, at most as many as torch has
    threads (OMP_NUM_THREADS), without Ray."""
    restarts: int = 3
    """Engines of a run that may be lost; each is started again, and its shard played again."""


@dataclass
class SampleConfig:
    """How replies are drawn."""

    temperature: float = 1.0
    """Temperature in training and in sampled evaluation; the learner's log-probs are taken at it
    too."""
    max_tokens: int = 48
    """Longest reply in tokens."""


@dataclass
class TrainConfig:
    """The training loop, of ``train`` and of ``sft``."""

    steps: int = 100
    """Iterations; each samples groups x group_size trajectories (sft: demonstrations) and makes
    epochs x mini_batches optimiser steps."""
    groups: int = 16
    """Task instances an iteration."""
    group_size: int = 8
    """Trajectories of each instance."""
    epochs: int = 1
    """Passes over an iteration's trajectories."""
    mini_batches: int = 4
    """Optimiser steps a pass."""
    lr: float = 1e-6
    """Peak learning rate of AdamW."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's decay rates of the gradient's mean and of its square."""
    warmup: int = 0
    """Iterations of linear warm-up."""
    schedule: str = "constant"
    """After the warm-up: constant, or linear or cosine down to train.lr_end."""
    lr_end: float = 0.1
    """What a schedule ends at, as a share of the peak."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    optimizer: str = "adamw"
    """adamw, or adamw_8bit: moments of 8 bits, by bitsandbytes."""
    checkpointing: str = "off"
    """off; blocks: each block of the model is computed again in the backward pass; offload: and
    what it begins with lies in the CPU's memory until then."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    stages: list[dict[str, int]] = field(default_factory=list)
    """Sizes from an iteration on, one set a stage: [{from: 41, max_tokens: 96, group_size: 16}];
    what a stage does not name stays."""
    workers: int = 0
    """Learners in processes of their own, by Ray, each with a part of the weights (FSDP2) and its
    share of the samples; 0: one, in this process."""
    restarts: int = 1
    """How often a run that lost a learner may go on from its newest checkpoint."""
    staleness: int = 0
    """Steps between the weights that sample and those that learn: the trajectories of step k are
    sampled with the weights of step k - 1 - staleness, while the learner works. 0: they take
    turns; 1 is all the overlap there is."""
    tokens: int | None = None
    """Sampled tokens of the whole run, after which it ends; null: train.steps alone says."""
    microbatch_tokens: int = 16384
    """Tokens of one forward and backward pass, padding included; bounds memory, never changes the
    gradient. Where they do not fit a GPU's memory, they are halved; of a small model on a CPU
    several passes go on at once, within 16,384 tokens together."""


@dataclass
class EvalConfig:
    """Evaluation, within ``train`` and by ``evaluate``."""

    every: int = 20
    """Iterations between evaluations on the val split; 0: only before and after, on the test split.
    """
    instances: int = 256
    """Held-out instances; of a data set or another finite set at most each once."""
    samples: int = 1
    """Episodes of each instance in the sampled pass of ``evaluate``; its intervals take those of
    one instance as alike."""
    patience: int = 0
    """Evaluations on the val split without a better one after which training ends; 0: never."""
    split: str = "test"
    """Split that ``evaluate`` measures on: train, val, test, or all (every row of a benchmark's
    file, which nothing was trained on)."""
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
    """no, auto (from the last good checkpoint of the newest run of this env and name that has one;
    else a new run), or a run folder."""
    save_every: int = 50
    """Iterations between checkpoints; the last is always saved, the three newest are kept."""
    wandb: bool = False
    """Log to Weights & Biases too."""


@dataclass
class Config:
    """Everything a command can be told.

    ``context``, ``credit``, ``critic``, ``loss``, ``filter``, ``instances``, ``overlong``, ``kl``
    and ``correction`` are choices from tables, each with the options of its own (config/groups.py).
    """

    env: EnvConfig = field(default_factory=EnvConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    context: Any = None
    credit: Any = None
    critic: Any = None
    loss: Any = None
    filter: Any = None
    instances: Any = None
    overlong: Any = None
    kl: Any = None
    correction: Any = None
    engine: EngineConfig = field(default_factory=EngineConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = 0
    """Owns every draw of a run: instances, replies, the order of mini-batches."""
    scale: str = "full"
    """full, or smoke: three short steps of any recipe, to see that it runs; what is cut is said,
    and a published data set gives way to a few rows of its form."""
    demos: str = "teacher"
    """What sft learns from: teacher (the task's own demonstrations), solver, or a file: a run's
    trajectories, or conversations as messages, conversations, or instruction and output."""
