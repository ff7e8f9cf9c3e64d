"""How the learner steps: AdamW's options and the schedule of its rate."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Optim:
    """How the learner steps.

    Attributes:
        lr: peak learning rate.
        steps: optimiser steps of the whole run, for the schedule.
        warmup: optimiser steps of linear warm-up.
        schedule: constant, linear or cosine; the last two down to ``lr_end`` of the peak.
        betas: AdamW's.
        name: adamw, or adamw_8bit.
        checkpointing: off, blocks or offload.
        weight_decay: AdamW's.
        grad_clip: largest norm of the gradient.
        microbatch_tokens: tokens of one forward and backward pass, padding included.
    """

    lr: float
    steps: int
    warmup: int = 0
    schedule: str = "constant"
    lr_end: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    name: str = "adamw"
    checkpointing: str = "off"
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    microbatch_tokens: int = 8192

    def lr_at(self, step: int) -> float:
        """The learning rate of optimiser step ``step``, from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.schedule == "linear":
            return self.lr * (1 - (1 - self.lr_end) * done)
        if self.schedule == "cosine":
            half = (1 - self.lr_end) / 2
            return self.lr * (1 - half + half * math.cos(math.pi * done))
        return self.lr
