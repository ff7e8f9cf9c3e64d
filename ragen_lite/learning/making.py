"""How a learner is made: the same in this process and in any other that learns with it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from ragen_lite.algorithms.critics import Critic, ValueCritic
from ragen_lite.algorithms.kl import Penalty
from ragen_lite.config.schema import ModelConfig
from ragen_lite.learning.critic import ValueHead
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.memory import block_names, checkpoint_blocks
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.protocol import Reference
from ragen_lite.learning.ranks import ALONE, Ranks
from ragen_lite.learning.scoring import PolicyForward, casting, forward_of
from ragen_lite.models.loading import Policy, load_policy
from ragen_lite.models.lora import switched_off


@dataclass(frozen=True, slots=True)
class LearnerSetup:
    """What a learner is made from, beside its policy.

    Attributes:
        model: of the policy, and of the reference that a penalty needs.
        seed: of a model from scratch, and of LoRA's matrices.
        optim: how it steps.
        temperature: replies are sampled at.
        penalty: the KL to the starting model.
        critic: the options of a critic, or those of none.
    """

    model: ModelConfig
    seed: int
    optim: Optim
    temperature: float
    penalty: Penalty
    critic: Critic


def make_learner(setup: LearnerSetup, policy: Policy, ranks: Ranks = ALONE) -> Learner:
    """A learner of a policy's model.

    Several ``ranks`` make theirs together.
    """
    forward = PolicyForward(policy.model)
    head = None
    if isinstance(setup.critic, ValueCritic):
        cast = casting(policy.model, policy.autocast)
        budget = setup.optim.microbatch_tokens
        # Before the learner: an own critic copies the model while it is whole.
        head = ValueHead(forward, setup.critic, cast, budget, ranks)
    learner = Learner(
        forward,
        setup.optim,
        setup.temperature,
        setup.penalty,
        reference_of(setup, policy, ranks),
        policy.autocast,
        policy.adapter,
        head,
        ranks,
    )
    if setup.optim.checkpointing != "off":
        # A cache that a block adds to would be added to again.
        forward.share = False
        offload = setup.optim.checkpointing == "offload"
        names = block_names(policy.model)
        trunks = [policy.model.get_decoder()]
        if head is not None and head.own_trunk is not None:
            trunks.append(head.own_trunk)
        for trunk in trunks:
            checkpoint_blocks(trunk, offload, names)
    return learner


def frozen(model: Any, ranks: Ranks = ALONE) -> Reference:
    """A model of its own as the reference, in parts where there are several ``ranks``."""
    model.requires_grad_(False)
    forward = forward_of(model)
    forward.share = ranks.alone
    forward.in_parts = not ranks.alone
    ranks.shard(forward)
    return lambda: nullcontext(forward)


def reference_of(setup: LearnerSetup, policy: Policy, ranks: Ranks) -> Reference | None:
    """The starting model, where the KL penalty needs it: with new LoRA, the model without it."""
    if not setup.penalty.needs_reference:
        return None
    if policy.adapter is not None and policy.fresh:
        return partial(switched_off, policy.adapter)
    return frozen(load_policy(setup.model, setup.seed).model, ranks)
