"""The model's log-probs of given tokens, without the logits of a whole batch ever existing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ragen_lite.agents.engines.head import logits_of, matrix_of, vocabulary_size
from ragen_lite.learning.batches import Batch, Sample, collate, to_device
from ragen_lite.learning.linear_head import by_matrix
from ragen_lite.learning.prefixes import empty_cache, hidden_after, shared_length
from ragen_lite.learning.ranks import ALONE, Ranks

CHUNK = 2**24  # logits held at once; times 4 bytes, times about 4 copies in the backward pass

Score = Callable[[Sequence[Sample]], list[NDArray[np.float64]]]
Cast = Callable[[], contextlib.AbstractContextManager[Any]]


def casting(model: Any, autocast: bool) -> Cast:
    """A context for forward passes: bfloat16 arithmetic where ``autocast`` is on."""
    if not autocast:
        return contextlib.nullcontext
    device = next(model.parameters()).device.type
    return lambda: torch.autocast(device, torch.bfloat16)


def head(
    output: Any, hidden: Tensor, targets: Tensor, temperature: float, entropy_grad: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies, each (N,), in nats, at the sampling temperature.

    The entropy's gradient costs several copies of the logits, so it is left out where no bonus
    needs it.

    Args:
        output: gives the logits of hidden states.
        hidden: (N, hidden size).
        targets: (N,) token ids.
        temperature: that replies are sampled at.
        entropy_grad: whether the entropy has a gradient.
    """
    logits = output(hidden)
    # A log-softmax over a large vocabulary needs more bits than 16.
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = torch.logsumexp(logits, dim=-1)
    with contextlib.nullcontext() if entropy_grad else torch.no_grad():
        probabilities = torch.exp(logits - normaliser[:, None])
        entropy = normaliser - (probabilities * logits).sum(-1)
    return logits.gather(-1, targets[:, None])[:, 0] - normaliser, entropy


def chunked_head(
    output: Any,
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    size: int,
    entropy_grad: bool = True,
) -> tuple[Tensor, Tensor]:
    """``head``, ``size`` tokens at a time, each part computed again in the backward pass."""
    if len(hidden) <= size:
        return head(output, hidden, targets, temperature, entropy_grad)
    parts = []
    for i in range(0, len(hidden), size):
        # Each part's logits are freed after its forward pass and computed again in the backward
        # pass.
        tokens = (hidden[i : i + size], targets[i : i + size])
        part = checkpoint(head, output, *tokens, temperature, entropy_grad, use_reentrant=False)
        parts.append(part)
    logprobs = torch.cat([part[0] for part in parts])
    entropies = torch.cat([part[1] for part in parts])
    return logprobs, entropies


class PolicyForward(nn.Module):
    """The learner's forward pass of a causal LM as one module, decoder and head together.

    Where the weights are in parts, they are brought together when a module is called; the head is
    called apart from the decoder, so both are within this one.
    """

    share = True
    """Whether what all rows begin with may be read in a forward pass of its own.

    Where the weights are in parts, every rank must make the same forward passes, so there it is
    not.
    """

    in_parts = False
    """Whether the weights lie in parts on several ranks."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        batch: Batch,
        temperature: float | None,
        entropy_grad: bool = False,
        chunk: int = CHUNK,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs and entropies of a batch's trained tokens, each (N,), in nats, and the hidden
        states that predict them, (N, hidden size).

        Only positions that are trained go through the vocabulary projection, ``chunk`` logits at a
        time: with a vocabulary of 151,936 the logits of a whole batch never exist. Without a
        ``temperature`` there are hidden states only.
        """
        hidden = trained_hidden(self.model.get_decoder(), batch, self.share)
        if temperature is None:
            return hidden, hidden, hidden
        size = max(1, chunk // vocabulary_size(self.model))
        matrix = None if self.in_parts else matrix_of(self.model)
        if matrix is not None and len(hidden) > size:
            logprobs, entropy = by_matrix(hidden, matrix, batch.targets, temperature, size)
            return logprobs, entropy if entropy_grad else entropy.detach(), hidden
        output_of = partial(logits_of, self.model)
        logprobs, entropy = chunked_head(
            output_of, hidden, batch.targets, temperature, size, entropy_grad
        )
        return logprobs, entropy, hidden


def forward_of(model: Any) -> PolicyForward:
    """The forward pass of a model, or the one that is given."""
    return model if isinstance(model, PolicyForward) else PolicyForward(model)


def token_logprobs(
    model: Any, batch: Batch, temperature: float, chunk: int = CHUNK, entropy_grad: bool = True
) -> tuple[Tensor, Tensor]:
    """The log-probs and entropies of a model, or of its forward pass; see PolicyForward."""
    logprobs, entropy, _ = forward_of(model)(batch, temperature, entropy_grad, chunk)
    return logprobs, entropy


def trained_hidden(decoder: Any, batch: Batch, share: bool = True) -> Tensor:
    """The hidden states that predict a batch's trained tokens, (N, hidden size).

    With ``share`` what all rows begin with is read once, where that pays.
    """
    width = batch.token_ids.shape[1]
    # The logits at a position predict the next token, hence the tokens before the trained ones.
    places = batch.predictors % width
    first = int(places.min()) if share and len(places) else 0
    shared = shared_length(batch.token_ids, first)
    cache = empty_cache(decoder) if shared else None
    # Without a mask: attention is causal, and pads stand at the right only.
    if cache is None:
        output = decoder(input_ids=batch.token_ids, attention_mask=None, use_cache=False)
        hidden: Tensor = output.last_hidden_state.flatten(0, 1)[batch.predictors]
        return hidden
    after = hidden_after(decoder, batch.token_ids, shared, cache)
    return after[batch.predictors // width, places - shared]


def scorer(
    model: Any,
    temperature: float,
    cast: Cast = contextlib.nullcontext,
    microbatch_tokens: int = 16_384,
    ranks: Ranks = ALONE,
) -> Score:
    """A function that gives the model's log-probs of each sample's trained tokens.

    They are in nats, in float64, and without a gradient. ``model`` may be its forward pass, and in
    parts on several ranks, which then call it together.
    """
    forward = forward_of(model)
    parameter = next(forward.parameters())

    def logprobs(batch: Batch) -> Tensor:
        with cast():
            return token_logprobs(forward, batch, temperature, entropy_grad=False)[0]

    def score(samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
        return worked_out(samples, logprobs, parameter, microbatch_tokens, ranks)

    return score


def worked_out(
    samples: Sequence[Sample],
    numbers: Callable[[Batch], Tensor],
    parameter: Tensor,
    microbatch_tokens: int,
    ranks: Ranks = ALONE,
) -> list[NDArray[np.float64]]:
    """One number for each trained token of each sample, in float64, without a gradient.

    Args:
        samples: whatever their number and lengths.
        numbers: gives those of a micro-batch, (N,).
        parameter: whose device and dtype the tensors get.
        microbatch_tokens: tokens of one forward pass, padding included.
        ranks: who works on them together.
    """
    found: dict[int, NDArray[np.float64]] = {}
    for part in ranks.share([len(sample.token_ids) for sample in samples], microbatch_tokens):
        batch = collate(samples, [1.0] * len(samples), part, 0, parameter.dtype)
        with torch.no_grad():
            flat = numbers(to_device(batch, parameter.device)).double().cpu().numpy()
        ends = np.cumsum([samples[i].trained for i in part], dtype=np.int64)
        for i, scores in zip(part, np.split(flat, ends)[:-1], strict=True):
            found[i] = scores
    everyone = ranks.gather(found)
    return [everyone[i] for i in range(len(samples))]
