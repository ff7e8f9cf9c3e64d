"""The processes that learn as one: alone in this one, or several that each hold a part of the
weights and work on a part of the samples.

A part of a weight is torch's DTensor; ``whole`` and ``part_of`` are all that the learner needs to
know of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ragen_lite.learning.batches import plan

T = TypeVar("T")


class Ranks:
    """What a learner asks of the others that learn with it; all of them call the same at once.

    This is one process that has everything; cluster/fsdp.py has several.
    """

    first = True
    """Whether this is the one that writes files."""
    alone = True
    """Whether its forward passes are nobody else's matter."""

    def shard(self, module: nn.Module) -> None:
        """Leave this rank its part of a module's weights; a forward pass brings them together."""

    def share(self, lengths: Sequence[int], budget: int, free: int = 0) -> list[list[int]]:
        """This rank's micro-batches of samples, by number; as many as any rank has, the last ones
        empty.

        Args:
            lengths: of all samples, in tokens.
            budget: tokens of a micro-batch, padding included.
            free: padding tokens of a micro-batch that need not be spared.
        """
        return plan(lengths, budget, free)

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over the ranks."""
        return dict(values)

    def largest(self, value: float) -> float:
        """The largest over the ranks."""
        return value

    def gather(self, own: Mapping[int, T]) -> dict[int, T]:
        """What all ranks have, by the numbers of the samples."""
        return dict(own)


ALONE = Ranks()


def in_parts(tensor: Tensor) -> bool:
    """Whether this rank holds a part of a tensor only."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which this rank may hold a part only, with all its parts."""
    parts: Any = tensor
    return parts.full_tensor() if in_parts(tensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What a rank holds of a whole tensor, cut and placed as ``like`` is."""
    placed = tensor.to(like.device)
    # An optimiser's count of steps is a number, which all have.
    if not in_parts(like) or tensor.dim() == 0:
        return placed
    # Half a second to import, which a run in one process need not wait for.
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = like
    # Every rank has the whole, so none is sent anything.
    return distribute_tensor(placed, mesh.device_mesh, mesh.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[Tensor], most: float) -> float:
    """Scale the gradients down to a norm of at most ``most``; returns the norm before."""
    return float(whole(nn.utils.clip_grad_norm_(parameters, most)))


def copy_into(parameter: Tensor, values: Tensor) -> None:
    """Give a parameter, or this rank's part of it, the values of a whole tensor."""
    with torch.no_grad():
        parameter.copy_(part_of(values, parameter))
