"""Any transformers causal LM as an engine, with continuous batching over slots of a cache.

A row of the batch is a slot. Rows have their own lengths, so there is no left padding; a decoding
step attends to views of the slots, never to copies; from turn to turn only new tokens are fed, so
cost grows linearly with turns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragen_lite.agents.engines.draws import draw_tokens, uniform
from ragen_lite.agents.engines.head import logits_of
from ragen_lite.agents.engines.protocol import (
    EngineFailure,
    EngineSetup,
    Request,
    check_request,
)
from ragen_lite.agents.engines.slots import SlotCache
from ragen_lite.agents.engines.threads import is_small, one_thread
from ragen_lite.agents.trajectory import Completion, Stop

PREFILL_TOKENS = 16_384  # tokens of one forward pass over prompts, padding included
# Prompts wait until they are an eighth of the rows under way: they share one pass, nobody starves.
PREFILL_SHARE = 8
KEPT_BYTES = 2**30  # of a cache that a CPU's memory keeps while the learner works


@dataclass(slots=True)
class _Row:
    """A trajectory in its slot: the cache holds ``fed``, and does not hold ``pending`` yet."""

    id: int
    fed: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    request: Request | None = None
    reply: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class TorchEngine:
    """Generates with a transformers model in this process; the learner's own model is shared.

    Args:
        setup: see EngineSetup; ``model`` is a causal LM whose attention is ``sdpa`` or ``eager``.
            More trajectories than ``slots`` wait for a free slot.

    ``fed_tokens`` counts the positions that went through the model, padding left out.
    """

    takes_options = False
    same_arithmetic = True  # as the learner's: log-probs differ by rounding only

    def __init__(self, setup: EngineSetup) -> None:
        self.model = setup.model
        self.stop_ids = setup.stop_ids
        self.max_model_len = setup.max_model_len
        self.slots = setup.slots
        self.cast = setup.cast
        self.device = next(setup.model.parameters()).device
        self.small = is_small(setup.model)
        self.version = 0
        self.fed_tokens = 0
        self._cache = SlotCache(setup.max_model_len)
        self._rows: list[_Row] = []  # row i lives in slot i
        self._slot: dict[int, int] = {}
        self._waiting: list[Request] = []

    # ---- the Engine protocol ----

    def submit(self, request: Request) -> None:
        """See Engine. Raises ValueError where the request is empty, does not continue its
        trajectory or cannot fit."""
        check_request(request, self.max_model_len)
        if request.id not in self._slot:
            self._waiting.append(request)
            return
        row = self._rows[self._slot[request.id]]
        known = row.fed + row.reply[-1:]  # the last sampled token was not fed yet
        if row.request is not None or list(request.token_ids[: len(known)]) != known:
            raise ValueError(
                f"request {request.id} does not continue what its trajectory was fed and sampled"
            )
        self._begin(row, request)

    def step(self) -> list[tuple[int, Completion]]:
        """See Engine. Raises EngineFailure where memory runs out."""
        while self._waiting and (len(self._rows) < self.slots or self._evict()):
            request = self._waiting.pop(0)
            self._slot[request.id] = len(self._rows)
            self._rows.append(_Row(request.id))
            self._begin(self._rows[-1], request)
        self._cache.reserve(len(self._rows))
        try:
            return self._advance()
        except torch.OutOfMemoryError as error:
            raise EngineFailure(f"{error} - a smaller engine.slots needs less") from error

    def _advance(self) -> list[tuple[int, Completion]]:
        with torch.inference_mode(), self.cast(), one_thread(self.small):
            prompts = [i for i, row in enumerate(self._rows) if len(row.pending) > 1]
            decoding = [i for i, row in enumerate(self._rows) if len(row.pending) == 1]
            # Prefilling stops the decoding of all others, so prompts are gathered.
            if prompts and len(prompts) * PREFILL_SHARE >= len(prompts) + len(decoding):
                self._prefill(prompts)
                decoding = [i for i, row in enumerate(self._rows) if len(row.pending) == 1]
            if decoding:
                return self._decode(decoding)
        return []

    def release(self, id: int) -> None:
        """See Engine. The last row moves into the freed slot, so that the rows stay the first
        slots."""
        if id not in self._slot:
            self._waiting = [request for request in self._waiting if request.id != id]
            return
        # The rows stay the first slots, without a hole.
        slot = self._slot.pop(id)
        last = self._rows.pop()
        if last.id != id:
            self._cache.copy(len(self._rows), slot, len(last.fed))
            self._rows[slot] = last
            self._slot[last.id] = slot

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See Engine. Tensors that already are the model's own are left as they are."""
        if self._rows or self._waiting:
            raise RuntimeError(
                f"new weights while {len(self._rows) + len(self._waiting)} trajectories are"
                " under way"
            )
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in tensors:
                if name not in own:
                    raise KeyError(f"the engine's model has no parameter {name!r}")
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)
        self.version = version

    def sleep(self) -> None:
        """See Engine. A small cache in a CPU's memory stays: to get it anew costs a tenth of a
        small model's rollout."""
        kept = self.device.type == "cpu" and self._cache.nbytes <= KEPT_BYTES
        if not self._rows and not kept:
            self._cache.clear()

    def wake(self) -> None:
        """See Engine; slots are allocated on first use."""

    def metrics(self) -> dict[str, float]:
        """See Engine; there are none: a slot keeps all it was fed."""
        return {}

    def reset_metrics(self) -> None:
        """See Engine."""

    def close(self) -> None:
        """See Engine."""
        self._rows = []
        self._slot = {}
        self._waiting = []
        self._cache.clear()

    def _evict(self) -> bool:
        """Free the slot of a trajectory between turns, if there is one; its next request is fed
        from the start."""
        idle = next((row.id for row in self._rows if row.request is None), None)
        if idle is not None:
            self.release(idle)
        return idle is not None

    # ---- forward passes ----

    def _begin(self, row: _Row, request: Request) -> None:
        row.request = request
        row.reply = []
        row.logprobs = []
        row.pending = list(request.token_ids[len(row.fed) :])

    def _prefill(self, rows: list[int]) -> None:
        """Feed all but the last pending token of these rows; members of a group that begin alike
        are fed once."""
        originals: dict[tuple[int, ...], int] = {}
        twins: list[tuple[int, int]] = []
        todo = []
        for i in rows:
            row = self._rows[i]
            first = i
            if not row.fed:
                first = originals.setdefault(tuple(row.pending), i)
            if first == i:
                todo.append(i)
            else:
                twins.append((first, i))
        # The longest first: a pass is as wide as its first row.
        todo.sort(key=lambda i: -len(self._rows[i].pending))
        while todo:
            width = len(self._rows[todo[0]].pending) - 1
            count = max(1, PREFILL_TOKENS // width)
            part = todo[:count]
            todo = todo[count:]
            self._feed(part, width)
        for first, i in twins:
            row = self._rows[i]
            row.fed = row.pending[:-1]
            row.pending = row.pending[-1:]
            self._cache.copy(first, i, len(row.fed))

    def _feed(self, part: list[int], width: int) -> None:
        """One pass over these rows' prompts, of ``width`` tokens at most."""
        tokens = np.zeros((len(part), width), dtype=np.int64)
        positions = np.full((len(part), width), self.max_model_len)
        for r, i in enumerate(part):
            row = self._rows[i]
            n = len(row.pending) - 1
            start = len(row.fed)
            new = row.pending[:n]
            tokens[r, :n] = new
            positions[r, :n] = np.arange(start, start + n)
            row.fed += new
            row.pending = row.pending[n:]
            self.fed_tokens += n
        self._forward(torch.tensor(part), tokens, positions)

    def _forward(self, rows: Tensor | int, tokens: Any, positions: Any) -> Tensor:
        """Hidden states (n, q, hidden) of new tokens at their positions, which the cache keeps."""
        at = torch.from_numpy(positions).to(self.device)
        real = at < self.max_model_len
        length = int(positions[positions < self.max_model_len].max()) + 1
        self._cache.aim(rows if isinstance(rows, int) else rows.to(self.device), at, length)
        # Padding stands at the start, where it sees one column: no softmax is empty.
        shown = torch.where(real, at, 0)
        decoder = self.model.get_decoder()
        with self._cache.masks(shown):
            output = decoder(
                input_ids=torch.from_numpy(tokens).to(self.device),
                position_ids=shown,
                past_key_values=self._cache,
                use_cache=True,
            )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _decode(self, decoding: list[int]) -> list[tuple[int, Completion]]:
        """One token for every row with one pending; rows between turns ride along as padding, their
        cache untouched."""
        # Rows 0 to n - 1, so that the cache is read through a view; those between turns are
        # padding.
        n = decoding[-1] + 1
        tokens = np.zeros((n, 1), dtype=np.int64)
        positions = np.full((n, 1), self.max_model_len)
        for i in decoding:
            row = self._rows[i]
            tokens[i, 0] = row.pending[0]
            positions[i, 0] = len(row.fed)
            row.fed.append(row.pending.pop())
        self.fed_tokens += len(decoding)
        hidden = self._forward(n, tokens, positions)[:, 0]
        if len(decoding) < n:
            hidden = hidden[torch.tensor(decoding, device=self.device)]
        logits = logits_of(self.model, hidden)
        ids, logprobs = self._draw(logits, [self._rows[i] for i in decoding])
        finished = []
        for i, token, logprob in zip(decoding, ids, logprobs, strict=True):
            row = self._rows[i]
            assert row.request is not None
            row.reply.append(token)
            row.logprobs.append(logprob)
            if token not in self.stop_ids and len(row.reply) < row.request.sampling.max_tokens:
                row.pending = [token]
                continue
            stop = Stop.EOS if token in self.stop_ids else Stop.LENGTH
            finished.append((row.id, Completion(tuple(row.reply), tuple(row.logprobs), stop)))
            row.request = None
        return finished

    def _draw(self, logits: Tensor, rows: list[_Row]) -> tuple[list[int], list[float]]:
        """Draw each row's next token from its own number."""
        requests = [row.request for row in rows if row.request is not None]
        keys = np.array([request.key for request in requests], dtype=np.uint64)
        positions = np.array([len(row.reply) for row in rows], dtype=np.uint64)
        temperatures = [request.sampling.temperature for request in requests]
        return draw_tokens(logits, temperatures, uniform(keys, positions))
