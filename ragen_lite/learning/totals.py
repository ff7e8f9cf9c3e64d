"""What the micro-batches of an optimiser step add up to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ragen_lite.algorithms.inputs import LossInputs
from ragen_lite.algorithms.kl import k3
from ragen_lite.learning.batches import Batch
from ragen_lite.learning.ranks import Ranks

# A micro-batch, its tokens, its loss, and its metrics: one number a token.
Told = tuple[Batch, LossInputs, Tensor, dict[str, Tensor]]


@dataclass(slots=True)
class Totals:
    """What the micro-batches of one optimiser step add up to; ``trained`` are its tokens."""

    trained: int
    sums: dict[str, float] = field(default_factory=dict)
    gaps: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    padding: int = 0

    def add(
        self, batch: Batch, tokens: LossInputs, value: Tensor, metrics: dict[str, Tensor]
    ) -> None:
        """Add one micro-batch's share: its loss, its metrics, and its gap to the engine."""
        # Before the first update this gap is the difference of two implementations of the same
        # model.
        gap = tokens.logprobs.detach() - tokens.behaviour_logprobs
        if len(gap):
            self.gaps.append(gap.abs().max())
        self._sum("train/loss", float(value.detach()))
        self._sum("train/mismatch_kl", float(k3(-gap).sum()) / self.trained)
        for name, metric in metrics.items():
            self._sum(name, float((tokens.share * metric).sum().detach()))
        self.tokens += batch.tokens
        self.padding += batch.padding

    def _sum(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value

    def metrics(self, ranks: Ranks) -> dict[str, float]:
        """The whole step's metrics, by the names of metrics.jsonl."""
        sums = ranks.total({**self.sums, "tokens": self.tokens, "padding": self.padding})
        tokens = sums.pop("tokens")
        padding = sums.pop("padding")
        gap = float(torch.stack(self.gaps).max()) if self.gaps else 0.0
        return sums | {
            "train/padding": padding / max(1, tokens + padding),
            "train/logprob_gap": ranks.largest(gap),
        }
