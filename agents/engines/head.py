"""From hidden states to logits, as the model's own forward pass does it.

The engine and the learner call a model's decoder and its head apart, so that the logits of a whole
batch never exist. What a family does to its logits after the projection is therefore done here, by
the names that ``transformers`` gives it in the configuration.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def text_config(model: Any) -> Any:
    """The configuration of a model's language part, which of most models is the whole."""
    return model.config.get_text_config()


def vocabulary_size(model: Any) -> int:
    """The rows of the output embedding: how many tokens the model can say."""
    return int(model.get_output_embeddings().weight.shape[0])


def matrix_of(model: Any) -> Tensor | None:
    """The weights of a head that is one matrix; None where it is, or does, anything more."""
    config = text_config(model)
    more = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    head = model.get_output_embeddings()
    # An adapter, or weights of 4 bits, make it another class.
    plain = type(head) is torch.nn.Linear and head.bias is None
    if not plain or any(getattr(config, name, None) is not None for name in more):
        return None
    weight: Tensor = head.weight
    return weight


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits (N, vocabulary) of hidden states (N, hidden size)."""
    config = text_config(model)
    logits: Tensor = model.get_output_embeddings()(hidden)
    # Cohere's and Granite's.
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    # Gemma 2's.
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
