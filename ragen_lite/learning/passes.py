"""Forward and backward passes of an optimiser step's micro-batches, one by one or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

B = TypeVar("B")
T = TypeVar("T")

SMALL = 20_000_000  # parameters of a model whose sums are too small for several threads to share


def side_by_side(parameters: Sequence[Tensor]) -> int:
    """How many passes of a model go on at once: on a CPU as many as torch has threads, where the
    model is small; else one, whose sums the threads share."""
    small = sum(p.numel() for p in parameters) <= SMALL
    alone = parameters[0].device.type != "cpu" or not small
    return 1 if alone else torch.get_num_threads()


def backward(
    forward: Callable[[B], tuple[Tensor, T]],
    batches: Iterable[B],
    parameters: Sequence[Tensor],
    at_once: int,
) -> Iterator[T]:
    """Add the gradients of all micro-batches to those of the parameters, in order.

    How many passes go on at once changes no byte: each has its gradient for itself, and they are
    added in the order of the micro-batches.

    Args:
        forward: of a micro-batch, the scalar to minimise and whatever is to be told of it.
        batches: the micro-batches.
        parameters: that are trained.
        at_once: passes that go on at once, each in a thread of its own.

    Yields what is told of each micro-batch.
    """
    if at_once == 1:
        for batch in batches:
            objective, told = forward(batch)
            objective.backward()  # type: ignore[no-untyped-call]
            yield told
        return

    def both(batch: B) -> tuple[Sequence[Tensor | None], T]:
        objective, told = forward(batch)
        return torch.autograd.grad(objective, parameters, allow_unused=True), told

    threads = torch.get_num_threads()
    # Those that begin now take this number over.
    torch.set_num_threads(max(1, threads // at_once))
    try:
        with ThreadPoolExecutor(at_once) as pool:
            for gradients, told in pool.map(both, batches):
                _add(parameters, gradients)
                yield told
    finally:
        torch.set_num_threads(threads)


def _add(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad += gradient
