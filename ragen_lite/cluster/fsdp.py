"""Learners that hold a part of the weights each: torch's FSDP2.

Every rank runs the same code on the same samples, and works on its own share of them. The weights
of a loss are those of the whole optimiser step, so the gradients of the shares add up to the single
learner's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from ragen_lite.learning.batches import plan
from ragen_lite.learning.memory import block_names
from ragen_lite.learning.ranks import Ranks

T = TypeVar("T")


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Samples by number, dealt to ``count`` ranks so that all have about as many tokens.

    >>> shares([5, 9, 2, 3], 2)
    [[1], [0, 3, 2]]
    """
    dealt: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    # The longest first, each to the rank with the fewest tokens; ties go by number.
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = tokens.index(min(tokens))
        dealt[rank].append(i)
        tokens[rank] += lengths[i]
    return dealt


class FSDPRanks(Ranks):
    """This process as one of several ranks; see Ranks.

    Args:
        rank: its number, from 0.
        count: how many there are.
        address: tcp://HOST:PORT, where rank 0 is found.
    """

    alone = False

    def __init__(self, rank: int, count: int, address: str) -> None:
        self.rank = rank
        self.count = count
        self.first = rank == 0
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # Numbers and samples' scores go by gloo, weights on GPUs by NCCL.
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=count)
        self._mesh = dist.device_mesh.init_device_mesh(device, (count,))

    def shard(self, module: nn.Module) -> None:
        """See Ranks; each of a model's blocks is brought together for its own forward pass."""
        blocks = block_names(module)
        for part in list(module.modules()):
            if part is not module and type(part).__name__ in blocks:
                self._shard(part)
        self._shard(module)

    def _shard(self, module: nn.Module) -> None:
        # Slow to import, and needed by ranks only.
        from torch.distributed.fsdp import fully_shard

        sharded: Any = fully_shard(module, mesh=self._mesh)
        # FSDP would average, and the weights of a loss are global already.
        sharded.set_gradient_divide_factor(1.0)
        # Gloo has no operation that scales on the way.
        sharded.set_force_sum_reduction_for_comms(True)

    def share(self, lengths: Sequence[int], budget: int, free: int = 0) -> list[list[int]]:
        """See Ranks."""
        planned = []
        for dealt in shares(lengths, self.count):
            parts = plan([lengths[i] for i in dealt], budget, free)
            planned.append([[dealt[i] for i in part] for part in parts])
        # A forward pass brings weights together, so every rank must make as many.
        most = max(len(parts) for parts in planned)
        own = planned[self.rank]
        return own + [[] for _ in range(most - len(own))]

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """See Ranks; every rank has the same names."""
        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(numbers)
        return dict(zip(values, numbers.tolist(), strict=True))

    def largest(self, value: float) -> float:
        """See Ranks."""
        number = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(number, op=dist.ReduceOp.MAX)
        return float(number)

    def gather(self, own: Mapping[int, T]) -> dict[int, T]:
        """See Ranks."""
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, dict(own))
        return {i: value for part in parts for i, value in part.items()}
