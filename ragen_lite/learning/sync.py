"""Weights from the learner to the engine, and the canary: a probe that both sides score after every
hand-over.

A stale, half-loaded or mixed-up engine still writes fluent text; only its log-probs tell. A peer
sampled from the checkpoint on disk for months of releases without an error (huggingface/trl#5312).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragen_lite.agents.engines.draws import draw_key
from ragen_lite.agents.engines.protocol import Engine, Request, StaleWeights
from ragen_lite.agents.trajectory import Completion, Sampling
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.samples import demonstration
from ragen_lite.learning.scoring import Score

# a prompt spans whole blocks of a prefix cache (16 or 32 tokens)
PROBES = 4
PROMPT_TOKENS = 80
REPLY_TOKENS = 8
# Mean |engine - learner| log-prob over the probe's tokens. Rounding gives 1e-6 in float32 on a CPU,
# where every stale weight shows. A GPU multiplies in TF32 or bfloat16, and two implementations
# differ by about 1e-2: there the probe shows weights that are far off; that a small step did not
# arrive is seen by the engine's own comparison.
TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 0.1}
ON_A_GPU = 0.1


def tolerance_of(dtype: str) -> float:
    """How far an engine's log-probs may be from those of a learner's model, in nats.

    Where there is a GPU, one of them is on it at least.
    """
    return ON_A_GPU if torch.cuda.is_available() else TOLERANCE[dtype]


def probe_prompts(plain: NDArray[np.int64], max_model_len: int) -> list[tuple[int, ...]]:
    """Fixed prompts of random tokens out of ``plain``: the same in every run of a model."""
    length = max(1, min(PROMPT_TOKENS, max_model_len - REPLY_TOKENS))
    rng = np.random.default_rng(0)
    rows = rng.choice(plain, (PROBES, length))
    return [tuple(row) for row in rows.tolist()]


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine makes of the probe's prompts, and the version of its weights."""

    version: int
    prompts: tuple[tuple[int, ...], ...]
    replies: tuple[Completion, ...]

    @property
    def logprobs(self) -> NDArray[np.float64]:
        """Of all replies' tokens, one after the other."""
        return np.concatenate([np.array(reply.logprobs) for reply in self.replies])

    def samples(self) -> list[Sample]:
        """What a learner scores: the prompts with their replies."""
        found = []
        for prompt, reply in zip(self.prompts, self.replies, strict=True):
            token_ids = (*prompt, *reply.token_ids)
            found.append(demonstration(token_ids, np.arange(len(token_ids)) >= len(prompt)))
        return found


def take_probe(engine: Engine, plain: NDArray[np.int64], temperature: float) -> Probe:
    """Have an engine answer the probe's prompts.

    Args:
        engine: with nothing under way.
        plain: token ids that a text can become.
        temperature: replies are sampled at; the probe is too, so that the engine's log-probs are
            seen to be at it.
    """
    prompts = probe_prompts(plain, engine.max_model_len)
    sampling = Sampling(temperature, REPLY_TOKENS)
    ids = [-1 - i for i in range(len(prompts))]  # no trajectory has these
    for i, prompt in zip(ids, prompts, strict=True):
        # A fixed key: the probe's replies are the same whatever else a run draws.
        engine.submit(Request(i, prompt, sampling, draw_key(0, 0, i, 0)))
    done: dict[int, Completion] = {}
    while len(done) < len(ids):
        done |= dict(engine.step())
    for i in ids:
        engine.release(i)
    return Probe(engine.version, tuple(prompts), tuple(done[i] for i in ids))


def check_probe(
    probe: Probe, score: Score, version: int, tolerance: float, who: str = "the engine"
) -> float:
    """The canary; returns the mean absolute difference of log-probs, in nats.

    Args:
        probe: an engine's.
        score: the learner's log-probs, at the sampling temperature.
        version: of the learner's weights.
        tolerance: the largest difference that is rounding.
        who: the engine by name.

    Raises StaleWeights where the engine's version or its log-probs are not the learner's.
    """
    # Cheap, and it names the fault exactly; the probe would only see a difference.
    if probe.version != version:
        raise StaleWeights(
            f"{who} has the weights of step {probe.version}, the learner is at {version}"
        )
    learner = np.concatenate(score(probe.samples()))
    gap = float(np.abs(probe.logprobs - learner).mean())
    if not gap <= tolerance:  # not a number: no either
        raise StaleWeights(
            f"after the weights of step {version} were handed over, {who} and the learner differ"
            f" by {gap:.2g} in the mean log-prob of a probe (at most {tolerance:g}):"
            f" {who} samples from other weights than the learner trains, or from keys and"
            " values of older ones; the run cannot go on with it"
        )
    return gap


class WeightSync:
    """Hands a model's weights to an engine of this process and checks that they arrived.

    Args:
        model: whose weights they are.
        score: the learner's log-probs, at the sampling temperature.
        plain: token ids that a text can become.
        dtype: arithmetic, which decides the tolerance.
        temperature: replies are sampled at.
        weights: what an engine is given of the model, where it is not its parameters as they are.

    ``gap`` is the last probe's mean absolute difference of log-probs.
    """

    def __init__(
        self,
        model: Any,
        score: Score,
        plain: NDArray[np.int64],
        dtype: str,
        temperature: float,
        weights: Callable[[Any], Iterable[tuple[str, Tensor]]] | None = None,
    ) -> None:
        self.model = model
        self.score = score
        self.plain = plain
        self.weights = weights
        self.tolerance = tolerance_of(dtype)
        self.temperature = temperature
        self.gap = 0.0

    def __call__(self, engine: Engine, version: int) -> None:
        """Load the weights as ``version`` and probe. Raises StaleWeights."""
        self.load(engine, version)
        self.check(engine, version)

    def load(self, engine: Engine, version: int) -> None:
        """Load the weights as ``version``, without a probe."""
        tensors = self.weights(self.model) if self.weights else self.model.named_parameters()
        engine.load_weights(tensors, version)

    def probe(self, engine: Engine) -> Probe:
        """What the engine makes of the probe's prompts."""
        return take_probe(engine, self.plain, self.temperature)

    def check(self, engine: Engine, version: int) -> None:
        """See ``check_probe``."""
        self.gap = check_probe(self.probe(engine), self.score, version, self.tolerance)
