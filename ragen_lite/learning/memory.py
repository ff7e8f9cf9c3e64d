"""What makes a learner's memory smaller: fewer activations, an optimiser of 8 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ragen_lite.config.schema import ConfigError, require
from ragen_lite.learning.optim import Optim


def block_names(module: nn.Module) -> frozenset[str]:
    """The classes of a model's blocks, as transformers names them."""
    names: set[str] = set()
    for part in module.modules():
        names |= set(getattr(part, "_no_split_modules", None) or ())
    return frozenset(names)


def checkpoint_blocks(module: nn.Module, offload: bool, names: frozenset[str]) -> None:
    """Have each block of a model computed again in the backward pass (arXiv:1604.06174).

    Of a block only what goes in is kept. The blocks stay out of training mode, which
    transformers' own switch would ask for: with dropout, the log-probs would not be those of the
    model that sampled.

    Args:
        module: a decoder, whose blocks are changed in place.
        offload: whether what is kept lies in the CPU's memory until then.
        names: the classes of its blocks.

    Raises ConfigError for a model without them.
    """
    found = False
    for block in module.modules():
        # A block that lies in parts on several ranks has a class of its own over that of the model.
        if any(kind.__name__ in names for kind in type(block).__mro__):
            block.forward = _computed_again(block.forward, offload)  # type: ignore[method-assign]
            found = True
    if not found:
        raise ConfigError(
            "train.checkpointing: this model does not say what its blocks are; leave it off"
        )


def _computed_again(inner: Any, offload: bool) -> Any:
    pinned = torch.cuda.is_available()

    def forward(*args: Any, **kwargs: Any) -> Any:
        # An engine, or a score, keeps nothing for a backward pass.
        if not torch.is_grad_enabled():
            return inner(*args, **kwargs)
        kept: Any = contextlib.nullcontext()
        if offload:
            kept = torch.autograd.graph.save_on_cpu(pin_memory=pinned)
        with kept:
            return checkpoint(inner, *args, use_reentrant=False, **kwargs)

    return forward


def make_optimizer(parameters: Iterable[nn.Parameter], optim: Optim) -> Any:
    """AdamW, with moments of 32 bits, or of 8 by bitsandbytes (arXiv:2110.02861).

    Raises ConfigError where bitsandbytes is not installed.
    """
    common: dict[str, Any] = {
        "lr": optim.lr,
        "betas": optim.betas,
        "weight_decay": optim.weight_decay,
    }
    if optim.name == "adamw":
        # One kernel for all parameters.
        return torch.optim.AdamW(parameters, fused=True, **common)
    require("bitsandbytes", "train.optimizer=adamw_8bit", "quantized")
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(parameters, **common)


def saved(value: Any) -> Tensor:
    """An entry of an optimiser's state as a tensor; bitsandbytes counts steps by an integer."""
    tensor: Tensor = torch.as_tensor(value)
    return tensor.detach()


def is_count(tensor: Tensor) -> bool:
    """Whether a saved entry was an integer."""
    return tensor.dim() == 0 and tensor.dtype == torch.int64


def halved(budget: int, longest: int) -> int:
    """Tokens of a micro-batch after one did not fit the memory; 0 where it cannot be smaller.

    >>> halved(16384, 3000), halved(3500, 3000), halved(3000, 3000)
    (8192, 3000, 0)
    """
    # A row is never cut, so a micro-batch has at least the longest one.
    return max(budget // 2, longest) if budget > longest else 0
