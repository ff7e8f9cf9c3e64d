"""What the rows of a micro-batch begin with, read once: a system prompt, or a group's first prompt.

Its keys and values are those of every row, and the gradients of all rows flow through them, so
log-probs and gradients are those of whole rows, to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

WORTH = 256  # tokens that are spared; for fewer, a forward pass of its own does not pay


def shared_length(token_ids: Tensor, first: int) -> int:
    """How many tokens all rows begin with; 0 where it does not pay to read them once.

    Args:
        token_ids: (B, T).
        first: the first position whose hidden state is needed.
    """
    rows = len(token_ids)
    if first * (rows - 1) < WORTH:
        return 0
    alike = (token_ids[:, :first] == token_ids[0, :first]).all(0)
    shared = int(alike.int().cumprod(0).sum())
    return shared if shared * (rows - 1) >= WORTH else 0


def empty_cache(decoder: Any) -> DynamicCache | None:
    """A cache for a decoder; None where a layer keeps something else of a prefix than the keys and
    values of all of it, such as those of a window."""
    cache = DynamicCache(config=decoder.config)
    whole = all(type(layer) is DynamicLayer for layer in cache.layers)
    return cache if whole and cache.layers else None


def hidden_after(decoder: Any, token_ids: Tensor, shared: int, cache: DynamicCache) -> Tensor:
    """The hidden states after the first ``shared`` tokens, which all rows have: (B, T - shared, H).

    Args:
        decoder: without its head.
        token_ids: (B, T), padded at the right.
        shared: from 1 to T - 1.
        cache: an empty one.
    """
    rows, width = token_ids.shape
    decoder(
        input_ids=token_ids[:1, :shared], attention_mask=None, past_key_values=cache, use_cache=True
    )
    for layer in cache.layers:
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
    output = decoder(
        input_ids=token_ids[:, shared:],
        attention_mask=None,
        position_ids=torch.arange(shared, width, device=token_ids.device)[None],
        past_key_values=cache,
        use_cache=True,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden
