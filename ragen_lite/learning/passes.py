"""Forward and backward passes of an optimiser step's micro-batches, one by one or side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from ragen_lite.agents.engines.threads import is_small, one_thread

B = TypeVar("B")
T = TypeVar("T")
Gradients = Sequence[Tensor | None]

MOST_TOKENS = 16_384  # of all passes that go on at once: they need memory at once


def side_by_side(model: Any, tokens: int) -> int:
    """How many passes of ``tokens`` go on at once: one, but with a small model on a CPU as many as
    torch has threads, within 16,384 tokens together."""
    if not is_small(model):
        return 1
    return max(1, min(torch.get_num_threads(), MOST_TOKENS // tokens))


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

    def both(batch: B) -> tuple[Gradients, T]:
        objective, told = forward(batch)
        return torch.autograd.grad(objective, parameters, allow_unused=True), told

    # Threads that begin now take over that they have one each.
    with one_thread(), ThreadPoolExecutor(at_once) as pool:
        begun: deque[Future[tuple[Gradients, T]]] = deque()
        for batch in batches:
            begun.append(pool.submit(both, batch))
            # Gradients that wait for their turn need memory too.
            if len(begun) > 2 * at_once:
                yield _added(parameters, *begun.popleft().result())
        while begun:
            yield _added(parameters, *begun.popleft().result())


def _added(parameters: Sequence[Tensor], gradients: Gradients, told: T) -> T:
    """What is told of a micro-batch, whose gradients are added."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad += gradient
    return told
