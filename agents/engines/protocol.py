"""What an engine is: token ids in, sampled token ids and their log-probs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import Completion, Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """A continuation of one trajectory: ``token_ids`` is everything so far, ``key`` owns this
    reply's draws."""

    id: int
    token_ids: tuple[int, ...]
    sampling: Sampling
    key: int


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that is handed over by itself, beside weights that stay as they are.

    Attributes:
        config: peft's LoraConfig.
        scales: what the product of a layer's matrices is scaled by, by the layer's name.
        frozen: the weights beside it, by the names of the Hugging Face model.
    """

    config: Any
    scales: Mapping[str, float]
    frozen: Callable[[], Iterable[tuple[str, Tensor]]]


def silent(text: str) -> None:
    """A note that nobody reads."""


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What an engine is made from.

    Attributes:
        model: the learner's transformers model, whose weights ``load_weights`` brings later.
        stop_ids: tokens that end a reply.
        max_model_len: longest trajectory, in tokens.
        slots: trajectories under way at once.
        dtype: arithmetic: float32, bfloat16 or float64.
        cast: a context for forward passes of ``model``, such as autocast.
        options: the engine's own, as engine.options.NAME=VALUE.
        adapter: what ``load_weights`` brings is its matrices alone; None: all weights.
        sleeping: whether memory is given back between ``sleep`` and ``wake``.
        note: takes what a user should know.
    """

    model: Any
    stop_ids: frozenset[int]
    max_model_len: int
    slots: int = 256
    dtype: str = "float32"
    cast: Callable[[], AbstractContextManager[Any]] = nullcontext
    options: Mapping[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = None
    sleeping: bool = False
    note: Callable[[str], None] = silent


class EngineUnavailable(UserError, ValueError):
    """An engine is not installed, of an unknown version, or was given what it does not have."""


class EngineFailure(UserError, RuntimeError):
    """An engine cannot go on: what it was doing is lost, what it had finished is not."""


class StaleWeights(UserError, RuntimeError):
    """The engine does not have the learner's weights."""


class Engine(Protocol):
    """Generates for many trajectories at once; a trajectory keeps its id, and so its cache, from
    turn to turn."""

    @property
    def max_model_len(self) -> int:
        """Longest trajectory in tokens."""

    @property
    def version(self) -> int:
        """Of the weights, as ``load_weights`` was told."""

    def submit(self, request: Request) -> None:
        """Queue a continuation. Its token ids begin with all that this trajectory was fed and
        sampled before."""

    def step(self) -> list[tuple[int, Completion]]:
        """Advance everything that is queued; returns the replies that were finished by it, in a
        fixed order.

        Raises EngineFailure where the engine cannot go on.
        """

    def release(self, id: int) -> None:
        """Forget a trajectory."""

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take new weights, by the names of the Hugging Face model, or an adapter's by peft's. No
        trajectory may be under way.

        Raises StaleWeights where it is seen that they did not all arrive.
        """

    def sleep(self) -> None:
        """Give memory back while the learner works."""

    def wake(self) -> None:
        """Take the memory back; ``load_weights`` comes next."""

    def metrics(self) -> dict[str, float]:
        """Figures of what was done since ``reset_metrics``, by the names of metrics.jsonl."""

    def reset_metrics(self) -> None:
        """Begin to count anew."""

    def close(self) -> None:
        """Give everything back, for good."""


def check_request(request: Request, max_model_len: int) -> None:
    """Raise ValueError where a request is empty or cannot fit."""
    if not request.token_ids:
        raise ValueError(f"request {request.id} has no token to begin with")
    if len(request.token_ids) + request.sampling.max_tokens > max_model_len:
        raise ValueError(
            f"a prompt of {len(request.token_ids)} tokens and a reply of up to"
            f" {request.sampling.max_tokens} do not fit max_model_len={max_model_len}"
        )
