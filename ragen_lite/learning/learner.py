"""The learner: a model, AdamW, and gradients that do not depend on how a step is cut up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.advantages import Values
from ragen_lite.algorithms.kl import NoKL, Penalty
from ragen_lite.algorithms.losses import Loss, LossInputs, LossOutput
from ragen_lite.learning.batches import Batch, Sample, collate, free_padding, to_device
from ragen_lite.learning.memory import halved, make_optimizer
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.passes import backward, side_by_side
from ragen_lite.learning.protocol import Critic, Reference
from ragen_lite.learning.ranks import ALONE, Ranks, clip_gradients, whole
from ragen_lite.learning.scoring import PolicyForward, Score, casting, forward_of, scorer
from ragen_lite.learning.totals import Told, Totals

MOST_SKIPPED = 3  # optimiser steps in a row


class NotFinite(UserError, RuntimeError):
    """Three optimiser steps in a row had a loss or gradient that is no number."""


class Learner:
    """Owns the model being trained and its optimiser.

    Args:
        model: or its forward pass; float32 on a CPU. With ``autocast`` the weights stay float32
            and the arithmetic is bfloat16.
        optim: how it steps.
        temperature: replies are sampled at; log-probs are taken at it.
        penalty: the KL to ``reference``.
        reference: gives the model of the penalty, where it needs one.
        autocast: whether the arithmetic is bfloat16.
        adapter: peft's wrapper of the model, where only LoRA's matrices are trained.
        critic: learns beside the policy, where there is one.
        ranks: who learns with it; what is called of one is called of all at once.
    """

    def __init__(
        self,
        model: Any,
        optim: Optim,
        temperature: float = 1.0,
        penalty: Penalty | None = None,
        reference: Reference | None = None,
        autocast: bool = False,
        adapter: Any = None,
        critic: Critic | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.forward = forward_of(model)
        self.ranks = ranks
        self.forward.share = ranks.alone
        self.forward.in_parts = not ranks.alone
        ranks.shard(self.forward)
        # Never in training mode: with dropout, or a router's noise, the log-probs trained on would
        # not be those of the model that sampled.
        self.model = self.forward.eval().model
        self.optim = optim
        self.temperature = temperature
        self.penalty = penalty or NoKL()
        self.reference = reference
        self.adapter = adapter
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.device = next(self.model.parameters()).device
        self.dtype = next(self.model.parameters()).dtype
        self.cast = casting(self.model, autocast)
        self.score = self._scorer(self.forward)
        self.critic = critic
        # These may be asked by one pass at a time only; and what spares memory has one.
        asked = critic is not None or reference is not None or not ranks.alone
        self.in_turn = asked or optim.checkpointing != "off"
        self.iteration = 1
        self.steps = 0  # where the schedule is, in optimiser steps
        self.updates = 0  # optimiser steps that moved the weights, in this process
        self.version = 0  # the iteration whose weights these are
        self.skipped = 0
        self._skipped_in_a_row = 0
        self.optimizer = make_optimizer(self.trained, optim)
        self.microbatch_tokens = optim.microbatch_tokens
        size = sum(p.numel() for p in self.model.parameters())
        self.free_padding = free_padding(size, self.device)

    def _scorer(self, forward: PolicyForward) -> Score:
        budget = self.optim.microbatch_tokens
        return scorer(forward, self.temperature, self.cast, budget, self.ranks)

    def _forward_of(self, model: Any) -> PolicyForward:
        """The forward pass of a reference, which may be the policy's own model."""
        return self.forward if model is self.model else forward_of(model)

    def reference_gap(self, samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
        """log policy - log reference of each sample's trained tokens, in nats."""
        assert self.reference is not None
        own = self.score(samples)
        with self.reference() as model:
            other = self._scorer(self._forward_of(model))(samples)
        return [mine - theirs for mine, theirs in zip(own, other, strict=True)]

    def values(self, groups: Sequence[Group]) -> Values | None:
        """A critic's values of all sampled tokens, one array a context; None without a critic."""
        return None if self.critic is None else self.critic.score(groups)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that are trained, whole, by their names in the model."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                yield name, whole(parameter.detach())

    def begin_iteration(self, iteration: int, optimiser_steps: int) -> None:
        """Put the schedule where iteration ``iteration``, from 1, begins.

        It goes by the iteration: one without a kept group, or with fewer samples than mini-batches,
        makes fewer than ``optimiser_steps``, and must not stretch warm-up and decay.
        """
        self.iteration = iteration
        self.steps = (iteration - 1) * optimiser_steps

    def step(
        self,
        samples: Sequence[Sample],
        weights: Sequence[float],
        loss: Loss,
        moves: bool = True,
    ) -> dict[str, float]:
        """One optimiser step; returns its metrics.

        The gradient is the same, to rounding, for any number of micro-batches. A loss or gradient
        that is no number skips the step.

        Args:
            samples: of the whole optimiser step.
            weights: one number a sample, the weight of each of its trained tokens.
            loss: says what is minimised.
            moves: whether the step is made; else its gradient is measured.

        Raises:
            NotFinite: the third step in a row is skipped.
        """
        trained = sum(sample.trained for sample in samples)

        def forward(batch: Batch) -> tuple[Tensor, Told]:
            # A share is of the whole step: how that is cut does not change the gradient.
            tokens, hidden = self._forward(batch, 1 / trained, loss.entropy_coef > 0)
            value, metrics = self._penalised(loss(tokens), tokens, loss)
            objective, own = self._with_critic(value, batch, hidden, tokens.share, moves)
            return objective, (batch, tokens, value, metrics | own)

        totals = None
        while totals is None:
            self._forget()
            totals = Totals(trained)
            at_once = 1 if self.in_turn else side_by_side(self.model, self.microbatch_tokens)
            try:
                batches = self._micro_batches(samples, weights)
                for told in backward(forward, batches, self.trained, at_once):
                    totals.add(*told)
            except torch.OutOfMemoryError as error:
                failed, totals = error, None
            # Outside, since an error that is being handled holds the tensors of its frames.
            if totals is None:
                self._halve(samples, failed)
        if not moves:
            norm = clip_gradients(self.trained, math.inf)
            self._forget()
            return totals.metrics(self.ranks) | {"train/grad_norm": norm}
        return self._update(totals.metrics(self.ranks))

    def _halve(self, samples: Sequence[Sample], failed: Exception) -> None:
        """Take smaller micro-batches after one that did not fit; raises where they cannot be."""
        failed.__traceback__ = None
        longest = max(len(sample.token_ids) for sample in samples)
        smaller = halved(self.microbatch_tokens, longest)
        # Ranks must cut alike, and only this one knows.
        if not smaller or not self.ranks.alone:
            raise failed
        self.microbatch_tokens = smaller
        torch.cuda.empty_cache()

    def _with_critic(
        self, value: Tensor, batch: Batch, hidden: Tensor, share: float, moves: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The policy's objective and, where a step is made, its critic's; and its metrics."""
        if self.critic is None or not moves:
            return value, {}
        alone = self.iteration <= self.critic.options.warmup
        extra, own = self.critic.loss(batch, hidden, share, alone)
        # While the critic learns alone, the policy has no gradient, and stays.
        return extra if alone else value + extra, own

    def _forget(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.critic is not None:
            self.critic.forget()

    def _micro_batches(
        self, samples: Sequence[Sample], weights: Sequence[float]
    ) -> Iterator[Batch]:
        pad = self.model.config.pad_token_id or 0
        lengths = [len(sample.token_ids) for sample in samples]
        for part in self.ranks.share(lengths, self.microbatch_tokens, self.free_padding):
            yield to_device(collate(samples, weights, part, pad, self.dtype), self.device)

    def _penalised(
        self, output: LossOutput, tokens: LossInputs, loss: Loss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise: the weighted sum of loss, KL and entropy; and their metrics."""
        per_token = output.per_token
        metrics = dict(output.metrics)
        if self.penalty.needs_reference:
            metrics["train/kl"] = self.penalty.estimate(tokens)
            coef = self.penalty.coef_in_loss(self.iteration)
            per_token = per_token + coef * metrics["train/kl"]
        if loss.entropy_coef:
            per_token = per_token - loss.entropy_coef * tokens.entropy
        metrics["train/entropy"] = tokens.entropy
        return (tokens.weights * per_token).sum(), metrics

    def _forward(self, batch: Batch, share: float, entropy_grad: bool) -> tuple[LossInputs, Tensor]:
        """The log-probs of a micro-batch's trained tokens, and the hidden states they come from."""
        reference = None
        with self.cast():
            logprobs, entropy, hidden = self.forward(batch, self.temperature, entropy_grad)
            if self.reference is not None:
                with torch.no_grad(), self.reference() as model:
                    scores = self._forward_of(model)(batch, self.temperature)[0]
                    reference = scores.to(self.dtype)
        # What no engine sampled has a ratio of 1 by definition.
        own = logprobs.detach().to(self.dtype)
        behaviour = torch.where(batch.sampled, batch.behaviour_logprobs, own)
        inputs = LossInputs(
            logprobs=logprobs.to(self.dtype),
            behaviour_logprobs=behaviour,
            reference_logprobs=reference,
            entropy=entropy,
            advantages=batch.advantages,
            weights=batch.weights,
            sequences=batch.rows,
            share=share,
        )
        return inputs, hidden

    def _update(self, metrics: dict[str, float]) -> dict[str, float]:
        """Clip the gradient and step, or skip; returns the metrics with those of the update."""
        norm = clip_gradients(self.trained, self.optim.grad_clip)
        lr = self.optim.lr_at(self.steps)
        watched = {"loss": metrics["train/loss"], "gradient norm": norm}
        if self.critic is not None:
            watched["critic's loss"] = metrics["train/value_loss"]
            watched["critic's gradient norm"] = self.critic.clip(self.optim.grad_clip)
        finite = all(math.isfinite(value) for value in watched.values())
        # One bad batch must not put a nan into every weight and into Adam's moments.
        if finite:
            self._apply(lr)
        else:
            self._skip(watched)
        self.steps += 1
        measured = {
            "train/grad_norm": norm,
            "train/lr": lr,
            "train/skipped": float(not finite),
            "train/microbatch_tokens": float(self.microbatch_tokens),
        }
        return metrics | measured

    def _apply(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if self.critic is not None:
            self.critic.step(lr)
        self.updates += 1
        self.optimizer.zero_grad(set_to_none=True)  # its memory is the engine's until the next step
        self._skipped_in_a_row = 0

    def _skip(self, watched: dict[str, float]) -> None:
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            told = ", ".join(f"{name} {value}" for name, value in watched.items())
            raise NotFinite(
                f"{told} in three optimiser steps in a row: lower "
                "train.lr or train.grad_clip, or resume from a checkpoint before it"
            )
