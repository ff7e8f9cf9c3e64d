"""The head of a large vocabulary: log-probs whose logits never exist as a whole, nor does the
gradient of its weights more than once.

Autograd would give every part of the tokens a gradient of the whole embedding, and add them up.
Here the parts add to one. Cut Cross-Entropy (arXiv:2411.09009) and Liger's fused losses do alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LinearHead(torch.autograd.Function):
    """Log-probs and entropies of a head that is one matrix.

    Logits are worked out ``size`` tokens at a time, once forward and once backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        size: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies, each (N,).

        Args:
            ctx: autograd's, for what the backward pass needs.
            hidden: (N, hidden size).
            weight: (vocabulary, hidden size).
            targets: (N,) token ids.
            temperature: that replies are sampled at.
            size: tokens of a part.
            dtype: of the multiplications; sums have float32 at least.
        """
        logprobs = []
        entropies = []
        normalisers = []
        matrix = weight.to(dtype)
        for begin in range(0, len(hidden), size):
            logits = _logits(hidden[begin : begin + size].to(dtype), matrix, temperature)
            normaliser = torch.logsumexp(logits, dim=-1)
            chosen = logits.gather(-1, targets[begin : begin + size, None])[:, 0]
            logprobs.append(chosen - normaliser)
            probabilities = torch.exp(logits - normaliser[:, None])
            entropies.append(normaliser - probabilities.mul_(logits).sum(-1))
            normalisers.append(normaliser)
        entropy = torch.cat(entropies)
        ctx.save_for_backward(hidden, weight, targets, torch.cat(normalisers), entropy)
        ctx.settings = (temperature, size, dtype)
        # Without a bonus the entropies have no gradient, and cost nothing then.
        ctx.set_materialize_grads(False)
        return torch.cat(logprobs), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients of ``hidden`` and ``weight``.

        With p the probabilities, l the logits, lp a log-prob and H an entropy: d lp / d l is 1 at
        the target less p, and d H / d l is p times the mean of l less l.
        """
        hidden, weight, targets, normalisers, entropy = ctx.saved_tensors
        temperature, size, dtype = ctx.settings
        of_logprob, of_entropy = grads
        if of_logprob is None:
            of_logprob = torch.zeros_like(normalisers)
        matrix = weight.to(dtype)
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for begin in range(0, len(hidden), size):
            part = slice(begin, begin + size)
            tokens = hidden[part].to(dtype)
            logits = _logits(tokens, matrix, temperature)
            norm = normalisers[part, None]
            factor = -of_logprob[part, None]
            if of_entropy is None:
                slope = logits.sub_(norm).exp_().mul_(factor)
            else:
                share = torch.exp(logits - norm)
                mean = norm - entropy[part, None]
                slope = logits.sub_(mean).mul_(-of_entropy[part, None]).add_(factor).mul_(share)
            rows = torch.arange(len(tokens), device=hidden.device)
            slope[rows, targets[part]] += of_logprob[part]
            slope = slope.div_(temperature).to(dtype)
            of_hidden[part] = slope @ matrix
            if of_weight is None:
                continue
            if of_weight.dtype == dtype:
                of_weight.addmm_(slope.T, tokens)
            else:
                of_weight += slope.T @ tokens
        return of_hidden, of_weight, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = hidden @ weight.T
    # A log-softmax over a large vocabulary needs more bits than 16.
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits if temperature == 1.0 else logits / temperature


def by_matrix(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, size: int
) -> tuple[Tensor, Tensor]:
    """See LinearHead; multiplied in autocast's dtype, where that is on."""
    device = hidden.device.type
    dtype = hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    found: tuple[Tensor, Tensor] = LinearHead.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, temperature, size, dtype
    )
    return found
