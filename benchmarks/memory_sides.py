"""The two sides of benchmarks/memory.py, and what both are given."""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.learner import resident
from benchmarks.trl_side import library
from ragen_lite.algorithms.critics import NoCritic
from ragen_lite.algorithms.kl import NoKL
from ragen_lite.algorithms.losses import PPO, token_weights
from ragen_lite.config.schema import ModelConfig
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.making import LearnerSetup, make_learner
from ragen_lite.learning.optim import Optim
from ragen_lite.models.loading import load_policy, quantized
from ragen_lite.models.lora import add_lora

LR = 1e-6
STEPS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared.

    Attributes:
        told: for the table.
        prompt: whether all rows have one prompt.
        again: whether blocks are computed again in the backward pass.
        optimizer: adamw, or adamw_8bit.
        rank: of LoRA's matrices; 0: all weights are trained.
        quantize: nf4, or None.
    """

    told: str
    prompt: bool = False
    again: bool = False
    optimizer: str = "adamw"
    rank: int = 0
    quantize: str | None = None

    @property
    def packages(self) -> list[str]:
        """What it needs beside TRL."""
        eight = self.optimizer != "adamw" or self.quantize is not None
        return ["bitsandbytes"] * eight + ["peft"] * (self.rank > 0)


@dataclass
class Measured:
    """A side of a case: seconds, losses and gradient norms by step, memory in bytes."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    peak: float = 0.0
    weights: float = 0.0
    gradients: float = 0.0
    moments: float = 0.0

    @property
    def state(self) -> float:
        """What no pass can do without."""
        return self.weights + self.gradients + self.moments

    def begin(self) -> None:
        """A step begins."""
        self._began = time.process_time(), time.perf_counter()

    def end(self) -> None:
        """A step is over."""
        self.cpu.append(time.process_time() - self._began[0])
        self.wall.append(time.perf_counter() - self._began[1])

    def measure_state(self, model: Any, optimizer: Any) -> None:
        """The sizes of the tensors there are after a step, gradients as while they were there."""
        parameters = list(model.parameters())
        scales = [p.quant_state.absmax for p in parameters if hasattr(p, "quant_state")]
        self.weights = size_of([*parameters, *scales])
        self.gradients = size_of(p for p in parameters if p.requires_grad)
        self.moments = size_of(
            value
            for entry in optimizer.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        )


def size_of(tensors: Iterable[Tensor]) -> float:
    """The bytes of tensors, those that share memory once."""
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return float(sum(sizes.values()))


# ---- what both are given ----


@dataclass(frozen=True, slots=True)
class Tokens:
    """Rows of one length, of which the last tokens are trained.

    Attributes:
        ids: rows x tokens.
        logprobs: rows x trained tokens, of when they were sampled.
        advantages: one a row.
    """

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    advantages: NDArray[np.float64]

    @property
    def before(self) -> int:
        """The tokens of a prompt."""
        return int(self.ids.shape[1] - self.logprobs.shape[1])

    def samples(self) -> list[Sample]:
        """For the learner."""
        mask = np.arange(self.ids.shape[1]) >= self.before
        pairs = zip(self.ids, self.logprobs, self.advantages, strict=True)
        return [
            Sample(
                token_ids=ids.tolist(),
                loss_mask=mask,
                behaviour_logprobs=np.concatenate([np.zeros(self.before), logprobs]),
                advantages=np.where(mask, advantage, 0.0),
                sampled=mask,
            )
            for ids, logprobs, advantage in pairs
        ]

    def inputs(self) -> dict[str, Tensor]:
        """For TRL's loss."""
        prompts, replies = np.split(self.ids, [self.before], axis=1)
        return {
            "prompt_ids": torch.from_numpy(prompts),
            "prompt_mask": torch.ones(prompts.shape, dtype=torch.long),
            "completion_ids": torch.from_numpy(replies),
            "completion_mask": torch.ones(replies.shape, dtype=torch.long),
            "old_per_token_logps": torch.from_numpy(self.logprobs).float(),
            "advantages": torch.from_numpy(self.advantages).float(),
        }


def draw_tokens(rows: int, tokens: int, completion: int, vocabulary: int, prompt: bool) -> Tokens:
    """Tokens as a model of random weights might have sampled them; always the same ones.

    Args:
        rows: replies.
        tokens: of a row.
        completion: how many of them are trained.
        vocabulary: of the model.
        prompt: whether all rows have one prompt.
    """
    source = np.random.default_rng(0)
    ids = source.integers(vocabulary, size=(rows, tokens))
    if prompt:
        ids[:, : tokens - completion] = ids[0, : tokens - completion]
    # Far enough from any such model's for some ratios to be clipped.
    logprobs = source.normal(-np.log(vocabulary), 0.3, size=(rows, completion))
    return Tokens(ids, logprobs, source.normal(size=rows))


# ---- one side of a case, in a process of its own ----


def forget_peak(model: Any) -> None:
    """Have the high-water mark of this process's memory begin anew (Linux), with the model loaded."""
    # One weight that lies in the file's pages keeps all of them resident; 4 bits need but a part.
    for parameter in model.parameters():
        if not hasattr(parameter, "quant_state"):
            parameter.data = parameter.data.clone()
    Path("/proc/self/clear_refs").write_text("5")


def run_ours(case: Case, tokens: Tokens, folder: str, measured: Measured) -> None:
    """Our two steps."""
    model = ModelConfig(folder, "float32", quantize=case.quantize, lora_rank=case.rank)
    optim = Optim(
        LR,
        STEPS,
        name=case.optimizer,
        checkpointing="blocks" if case.again else "off",
        microbatch_tokens=tokens.ids.size,
    )
    policy = load_policy(model)
    learner = make_learner(LearnerSetup(model, 0, optim, 1.0, NoKL(), NoCritic()), policy)
    samples = tokens.samples()
    weights = token_weights([sample.trained for sample in samples], "token")
    forget_peak(policy.model)
    for _ in range(STEPS):
        measured.begin()
        metrics = learner.step(samples, weights, PPO())
        measured.end()
        measured.losses.append(metrics["train/loss"])
        measured.norms.append(metrics["train/grad_norm"])
    measured.measure_state(policy.model, learner.optimizer)


class Steps(TrainerCallback):  # type: ignore[misc]
    """Tells when TRL's steps begin and end."""

    def __init__(self, measured: Measured) -> None:
        self.on_step_begin = lambda *_, **__: measured.begin()
        self.on_step_end = lambda *_, **__: measured.end()


def settings(case: Case, tokens: Tokens, folder: str) -> Any:
    """TRL's configuration: the same work, and nothing beside it."""
    rows, completion = tokens.logprobs.shape
    return library().GRPOConfig(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=rows,
        num_generations=rows,
        max_completion_length=completion,
        loss_type="bnpo",  # all trained tokens alike
        epsilon=PPO.clip_low,
        epsilon_high=PPO.clip_high,
        beta=0.0,
        optim="adamw_torch_fused" if case.optimizer == "adamw" else "adamw_8bit",
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        gradient_checkpointing=case.again,
        use_cpu=True,
        bf16=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
    )


def noted(method: Callable[..., Any], found: list[float]) -> Callable[..., Any]:
    """A method whose results are kept as numbers."""

    def call(*arguments: Any, **named: Any) -> Any:
        value = method(*arguments, **named)
        found.append(float(value))
        return value

    return call


def run_theirs(case: Case, tokens: Tokens, folder: str, measured: Measured) -> None:
    """TRL's two steps."""
    options = quantized(case.quantize, torch.device("cpu"), "float32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    if case.rank:
        # As ours makes them, so that the first matrices are the same.
        model = add_lora(model, case.rank, 2.0 * case.rank, 0)
    trained = [(p, p.data) for p in model.parameters() if p.requires_grad]
    prompts = [{"prompt": "a"}] * len(tokens.ids)
    with tempfile.TemporaryDirectory() as output:
        trainer = library().GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=settings(case, tokens, output),
            train_dataset=importlib.import_module("datasets").Dataset.from_list(prompts),
            processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
            callbacks=[Steps(measured)],
        )
        # Beside weights of 4 bits TRL rounds LoRA's matrices to bfloat16: that is other work.
        for parameter, values in trained:
            parameter.data = values
        trainer._generate_and_score_completions = lambda _: tokens.inputs()
        trainer.training_step = noted(trainer.training_step, measured.losses)
        trainer._clip_grad_norm = noted(trainer._clip_grad_norm, measured.norms)
        forget_peak(model)
        trainer.train()
    measured.measure_state(model, trainer.optimizer)


def run(side: str, case: Case, tokens: Tokens, folder: str) -> Measured:
    """Run a side's steps on the model of a folder, and measure them."""
    if side == "TRL":
        # What is imported later would count as the step's.
        library()
        importlib.import_module("trl.trainer.grpo_trainer")
    for package in case.packages:
        importlib.import_module(package)
    before = resident("VmRSS")
    measured = Measured()
    (run_ours if side == "ours" else run_theirs)(case, tokens, folder, measured)
    measured.peak = (resident("VmHWM") - before) * 2**20
    return measured
