"""The critic: a value head on a model's hidden states, with an optimiser of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ragen_lite.agents.trajectory import Group
from ragen_lite.algorithms.advantages import Values
from ragen_lite.algorithms.critics import ValueCritic
from ragen_lite.learning.batches import Batch
from ragen_lite.learning.ranks import ALONE, Ranks, clip_gradients, copy_into, part_of, whole
from ragen_lite.learning.samples import blanks, placed
from ragen_lite.learning.scoring import Cast, forward_of, trained_hidden, worked_out

BETAS = (0.9, 0.999)


class ValueHead:
    """A critic that is a linear head on hidden states; see Critic.

    Args:
        model: the policy's, or its forward pass; an own critic takes a copy of it as it is now.
        options: where the head sits, and how it learns.
        cast: a context for forward passes.
        microbatch_tokens: tokens of one forward pass.
        ranks: who learns with it.
    """

    def __init__(
        self,
        model: Any,
        options: ValueCritic,
        cast: Cast,
        microbatch_tokens: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.policy = forward_of(model)
        self.ranks = ranks
        model = self.policy.model
        self.options = options
        self.cast = cast
        self.microbatch_tokens = microbatch_tokens
        parameter = next(model.parameters())
        # Of what comes out of the decoder, which in some models is not its inner width.
        size = model.get_output_embeddings().weight.shape[1]
        self.head = nn.Linear(size, 1, device=parameter.device, dtype=parameter.dtype)
        # It begins by expecting nothing, so the first advantages are the returns.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.own_trunk = None if options.shared else copy.deepcopy(model.get_decoder())
        for module in (self.head, self.own_trunk):
            if module is not None:
                ranks.shard(module)
        self.named = {f"head.{name}": p for name, p in self.head.named_parameters()}
        if self.own_trunk is not None:
            for name, p in self.own_trunk.named_parameters():
                if p.requires_grad:
                    self.named[f"trunk.{name}"] = p
        self.optimizer = torch.optim.AdamW(
            self.named.values(), betas=BETAS, weight_decay=0.0, fused=True
        )

    def values(self, batch: Batch, hidden: Tensor | None = None) -> Tensor:
        """The value of the state before each trained token, (N,).

        ``hidden`` are the policy's hidden states there, which a critic with its own trunk has no
        use for; without them they are worked out.
        """
        with self.cast():
            if self.own_trunk is not None:
                hidden = trained_hidden(self.own_trunk, batch, self.policy.share)
            elif hidden is None:
                hidden = self.policy(batch, None)[0]
        # In the head's own dtype: returns need more bits than 16.
        found: Tensor = self.head(hidden.to(self.head.weight.dtype))[:, 0]
        return found

    def loss(
        self, batch: Batch, hidden: Tensor, share: float, frozen: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See Critic."""
        values = self.values(batch, hidden.detach() if frozen else hidden)
        per_token = self.options.loss(values, batch.values, batch.returns)
        return self.options.weight * share * per_token.sum(), {"train/value_loss": per_token}

    def score(self, groups: Sequence[Group]) -> Values:
        """See Critic."""
        samples = blanks(groups)
        # A context has none where its first prompt did not fit.
        trained = [sample for sample in samples if sample.trained]
        found = worked_out(
            trained, self.values, self.head.weight, self.microbatch_tokens, self.ranks
        )
        return placed(samples, found)

    def clip(self, grad_clip: float) -> float:
        """See Critic."""
        return clip_gradients(self.named.values(), grad_clip)

    def step(self, lr: float) -> None:
        """See Critic."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * self.options.lr_ratio
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """See Critic."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """See Critic."""
        tensors = {}
        for name, parameter in self.named.items():
            tensors[f"{name}/weight"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{key}"] = value.detach()
        return {name: whole(tensor).clone().contiguous() for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See Critic."""
        for name, parameter in self.named.items():
            copy_into(parameter, tensors.pop(f"{name}/weight"))
        for key, tensor in tensors.items():
            name, _, slot = key.rpartition("/")
            parameter = self.named[name]
            state = self.optimizer.state.setdefault(parameter, {})
            state[slot] = part_of(tensor, parameter)
