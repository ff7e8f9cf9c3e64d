"""How much a reply tells of its prompt: a policy that says the same to everything tells nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragen_lite.agents.trajectory import Trajectory
from ragen_lite.learning.samples import demonstration
from ragen_lite.learning.scoring import Score

PROMPTS = 8


def prompt_information(trajectories: Sequence[Trajectory], score: Score) -> float | None:
    """The mutual information of first prompts and their replies, in nats.

    Each reply is scored under every prompt: the mean of log p(reply | own prompt) less the log of
    its mean probability under all. It is at most log(prompts), and about 0 where every prompt
    gets the same; entropy can be high where this is
    0. Source: RAGEN-2's probe for template collapse.

    Args:
        trajectories: the first eight with different first prompts count.
        score: the log-probs of each sample's trained tokens.

    Returns:
        None where there are fewer than two prompts.
    """
    pairs: dict[tuple[int, ...], tuple[int, ...]] = {}
    for trajectory in trajectories:
        if trajectory.turns and len(pairs) < PROMPTS:
            ids = trajectory.contexts[0].token_ids
            first = trajectory.turns[0]
            pairs.setdefault(ids[: first.start], ids[first.start : first.stop])
    if len(pairs) < 2:
        return None
    samples = []
    for reply in pairs.values():
        for prompt in pairs:
            token_ids = (*prompt, *reply)
            samples.append(demonstration(token_ids, np.arange(len(token_ids)) >= len(prompt)))
    size = len(pairs)
    found = np.array([logprobs.sum() for logprobs in score(samples)]).reshape(size, size)
    mixed = np.logaddexp.reduce(found, axis=1) - np.log(size)
    return float((np.diag(found) - mixed).mean())
