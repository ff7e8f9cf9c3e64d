"""The learner: a transformers model, AdamW, and gradients that do not depend on how a step is cut up."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ragen_lite.batch import Batch, Sample, collate, plan, to_device
from ragen_lite.loss import LossInputs, k3

CHUNK = 2**24  # logits held at once; times 4 bytes, times about 4 copies in the backward pass

Score = Callable[[Sequence[Sample]], list[NDArray[np.float64]]]
Loss = Callable[[LossInputs], tuple[Tensor, dict[str, Tensor]]]


class NotFinite(RuntimeError):
    """Three optimiser steps in a row had a loss or gradient that is no number."""


def head(
    output: Any, hidden: Tensor, targets: Tensor, temperature: float, entropy_grad: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probs of ``targets`` (N,) and entropies (N,) from hidden states (N, hidden), at the sampling temperature.

    The entropy's gradient costs several copies of the logits, so it is left out where no bonus needs it.
    """
    logits = output(hidden)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = torch.logsumexp(logits, dim=-1)
    with contextlib.nullcontext() if entropy_grad else torch.no_grad():
        entropy = normaliser - (torch.exp(logits - normaliser[:, None]) * logits).sum(-1)
    return logits.gather(-1, targets[:, None])[:, 0] - normaliser, entropy


def token_logprobs(
    model: Any, batch: Batch, temperature: float, chunk: int = CHUNK, entropy_grad: bool = True
) -> tuple[Tensor, Tensor]:
    """The learner's log-probs and entropies of a batch's trained tokens, each (N,).

    Only positions that are trained go through the vocabulary projection, ``chunk`` logits at a time: with a
    vocabulary of 151,936 the logits of a whole batch never exist; the backward pass computes each chunk again.
    """
    decoder = model.get_decoder()
    hidden = decoder(
        input_ids=batch.token_ids,
        attention_mask=None,
        use_cache=False,  # causal; pads only at the right
    ).last_hidden_state
    hidden = hidden.flatten(0, 1)[batch.predictors]
    size = max(1, chunk // model.config.vocab_size)
    return chunked_head(model.get_output_embeddings(), hidden, batch.targets, temperature, size, entropy_grad)


def chunked_head(
    output: Any, hidden: Tensor, targets: Tensor, temperature: float, size: int, entropy_grad: bool = True
) -> tuple[Tensor, Tensor]:
    """``head``, ``size`` tokens at a time, each part computed again in the backward pass."""
    if len(hidden) <= size:
        return head(output, hidden, targets, temperature, entropy_grad)
    parts = [
        checkpoint(
            head, output, hidden[i : i + size], targets[i : i + size], temperature, entropy_grad, use_reentrant=False
        )
        for i in range(0, len(hidden), size)
    ]
    return torch.cat([p for p, _ in parts]), torch.cat([e for _, e in parts])


@dataclass(frozen=True, slots=True)
class Optim:
    """How the learner steps: peak learning rate, its schedule over ``steps`` optimiser steps, clipping, batching;
    ``entropy_grad`` is whether the loss has an entropy bonus."""

    lr: float
    steps: int
    warmup: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    microbatch_tokens: int = 8192
    entropy_grad: bool = True

    def lr_at(self, step: int) -> float:
        """The learning rate of optimiser step ``step``, from 0: linear warm-up, then flat, linear or cosine to 10%."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        shape = {"constant": 1.0, "linear": 1 - 0.9 * done, "cosine": 0.55 + 0.45 * math.cos(math.pi * done)}
        return self.lr * shape[self.schedule]


def casting(model: Any, autocast: bool) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A context for forward passes: bfloat16 arithmetic where ``autocast`` is on."""
    device = next(model.parameters()).device.type
    return (lambda: torch.autocast(device, torch.bfloat16)) if autocast else contextlib.nullcontext


def scorer(
    model: Any,
    temperature: float,
    cast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    microbatch_tokens: int = 16_384,
) -> Score:
    """A function that gives the model's log-probs of each sample's trained tokens, without a gradient."""
    parameter = next(model.parameters())

    def score(samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
        found: list[NDArray[np.float64]] = [np.zeros(0)] * len(samples)
        for part in plan([len(s.token_ids) for s in samples], microbatch_tokens):
            batch = to_device(collate(samples, [1.0] * len(samples), part, 0, parameter.dtype), parameter.device)
            with torch.no_grad(), cast():
                logprobs, _ = token_logprobs(model, batch, temperature, entropy_grad=False)
            ends = np.cumsum([int(samples[i].trained.sum()) for i in part])
            for i, values in zip(part, np.split(logprobs.double().cpu().numpy(), ends[:-1]), strict=True):
                found[i] = values
        return found

    return score


class Learner:
    """Owns the model being trained and its optimiser.

    fp32 on a CPU; with ``autocast`` the weights stay fp32 and the arithmetic is bfloat16. ``reference`` is a frozen
    model for the KL, or None. ``temperature`` is the one replies are sampled at.
    """

    def __init__(
        self, model: Any, optim: Optim, temperature: float = 1.0, reference: Any = None, autocast: bool = False
    ) -> None:
        self.model, self.optim, self.temperature, self.reference = model, optim, temperature, reference
        self.device = next(model.parameters()).device
        self.cast = casting(model, autocast)
        self.score = scorer(model, temperature, self.cast, optim.microbatch_tokens)
        self.steps = 0
        self.version = 0  # the iteration whose weights these are
        self.skipped = self._skipped_in_a_row = 0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=optim.lr, betas=(0.9, 0.95), weight_decay=optim.weight_decay, fused=True
        )

    def gradient(self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss) -> dict[str, float]:
        """Add the gradient of one optimiser step to the parameters; returns the step's metrics.

        The sum over micro-batches is the same, to rounding, for any number of them.
        """
        dtype = next(self.model.parameters()).dtype
        pad = self.model.config.pad_token_id or 0
        totals: dict[str, float] = {}
        tokens = padding = 0
        trained = sum(int(s.trained.sum()) for s in samples)
        gaps: list[Tensor] = []
        for part in plan([len(s.token_ids) for s in samples], self.optim.microbatch_tokens):
            batch = to_device(collate(samples, weights, part, pad, dtype), self.device)
            with self.cast():
                logprobs, entropy = token_logprobs(
                    self.model, batch, self.temperature, entropy_grad=self.optim.entropy_grad
                )
                reference = None
                if self.reference is not None:
                    with torch.no_grad():
                        reference = token_logprobs(self.reference, batch, self.temperature)[0].to(dtype)
            # nan: never sampled, so the ratio is 1 by definition
            behaviour = torch.where(batch.behaviour.isnan(), logprobs.detach().to(dtype), batch.behaviour)
            advantages, shares = batch.advantages, batch.weights
            inputs = LossInputs(logprobs.to(dtype), behaviour, reference, entropy, advantages, shares, 1 / trained)
            value, metrics = loss(inputs)
            value.backward()  # type: ignore[no-untyped-call]
            for name, metric in {"train/loss": value.detach(), **metrics}.items():
                totals[name] = totals.get(name, 0.0) + float(metric)
            gap = logprobs.detach().to(dtype) - behaviour
            gaps.append(gap.abs().max())
            totals["train/mismatch_kl"] = totals.get("train/mismatch_kl", 0.0) + float(k3(gap).sum()) / trained
            tokens, padding = tokens + batch.tokens, padding + batch.padding
        totals["train/padding"] = padding / max(1, tokens + padding)
        totals["train/logprob_gap"] = float(torch.stack(gaps).max())
        return totals

    def step(self, samples: Sequence[Sample], weights: Sequence[float], loss: Loss) -> dict[str, float]:
        """One optimiser step. A loss or gradient that is no number skips it; the third in a row raises NotFinite."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.gradient(samples, weights, loss)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.grad_clip))
        metrics |= {"train/grad_norm": norm, "train/lr": self.optim.lr_at(self.steps), "train/skipped": 0.0}
        if np.isfinite(metrics["train/loss"]) and math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = metrics["train/lr"]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)  # its memory is the engine's until the next step
            self._skipped_in_a_row = 0
        else:
            metrics["train/skipped"] = 1.0
            self.skipped += 1
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row >= 3:
                raise NotFinite(
                    f"loss {metrics['train/loss']} and gradient norm {norm} in three optimiser steps in a row: lower "
                    "train.lr or train.grad_clip, or resume from a checkpoint before it"
                )
        self.steps += 1
        self.model.eval()
        return metrics
