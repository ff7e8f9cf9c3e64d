"""Any transformers causal LM as an engine: continuous batching over KV slots that stay with their trajectory.

A row of the batch is a slot. Rows have their own lengths, so there is no left padding; a decoding step attends to views
of the slots, never to copies; from turn to turn only new tokens are fed, so cost grows linearly with turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from ragen_lite.agents.engine import EngineFailure, Request, check_request, uniform
from ragen_lite.agents.trajectory import Completion, Stop

PREFILL_TOKENS = 16_384  # tokens of one forward pass over prompts, padding included
PREFILL_SHARE = 8  # prompts wait until they are an eighth of the rows under way: they share one pass, nobody starves


class SlotCache(Cache):  # type: ignore[misc]
    """Keys and values of all slots, one tensor (slots, heads, length, head size) a layer.

    Before a forward pass ``aim`` says which slots its rows are, where their tokens go and how far they look.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(layers=[])
        self.slots, self.max_length = 0, max_length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @torch.inference_mode()
    def reserve(self, slots: int) -> None:
        """Have at least so many slots."""
        if slots <= self.slots:
            return
        self.slots = slots
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                store[layer] = old.new_zeros(slots, *old.shape[1:])
                store[layer][: old.shape[0]] = old

    def aim(self, rows: Tensor | int, positions: Tensor, length: int) -> None:
        """``rows``: slot indices (n,), or n for the first n. ``positions``: (n, q), ``max_length`` for padding."""
        self._view: Any = slice(rows) if isinstance(rows, int) else rows
        index = torch.arange(rows, device=positions.device) if isinstance(rows, int) else rows
        self._write, self._length = (index[:, None], positions), length
        if self.keys and self.keys[0].shape[2] <= length:
            self._allocate(length)

    def _allocate(self, length: int) -> None:
        # One column more than any trajectory fills: padding is written there.
        room = min(self.max_length, max(128, 2 * length)) + 1
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                store[layer] = old.new_zeros(old.shape[0], old.shape[1], room, old.shape[3])
                store[layer][:, :, : old.shape[2] - 1] = old[:, :, :-1]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (n, heads, q, size) at the aimed positions; returns what the rows attend to, up to the aimed length."""
        if layer_idx == len(self.keys):
            room = min(self.max_length, max(128, 2 * self._length)) + 1
            for store, states in ((self.keys, key_states), (self.values, value_states)):
                store.append(states.new_zeros(self.slots, states.shape[1], room, states.shape[3]))
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        rows, positions = self._write
        positions = positions.clamp(max=keys.shape[2] - 1)
        keys[rows, :, positions] = key_states.transpose(1, 2)
        values[rows, :, positions] = value_states.transpose(1, 2)
        return keys[self._view, :, : self._length], values[self._view, :, : self._length]

    @torch.inference_mode()
    def copy(self, source: int, to: int, length: int) -> None:
        """Copy one slot's first ``length`` tokens to another."""
        for store in (*self.keys, *self.values):
            store[to, :, :length] = store[source, :, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # every row has its own; positions are always given

    def clear(self) -> None:
        """Give the memory back."""
        self.keys, self.values, self.slots = [], [], 0


@dataclass(slots=True)
class _Row:
    """A trajectory in its slot: ``fed`` is what the cache holds, ``pending`` what it does not yet."""

    id: int
    fed: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    request: Request | None = None
    reply: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class TorchEngine:
    """Generates with a transformers model in this process; the learner's own model may be given and is then shared.

    Args:
        model: a causal LM of the Llama, Qwen2 or Qwen3 family, with ``attn_implementation="sdpa"``.
        stop_ids: tokens that end a reply.
        max_model_len: longest trajectory in tokens.
        slots: trajectories under way at once; more wait for a free slot.
        cast: a context for the forward passes, such as autocast.

    ``fed_tokens`` counts the positions that went through the model, padding left out.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: frozenset[int],
        max_model_len: int,
        slots: int = 256,
        cast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self.model, self.stop_ids, self.max_model_len, self.slots, self.cast = (
            model,
            stop_ids,
            max_model_len,
            slots,
            cast,
        )
        self.device = next(model.parameters()).device
        self.version = 0
        self.fed_tokens = 0
        self._cache = SlotCache(max_model_len)
        self._rows: list[_Row] = []  # row i lives in slot i
        self._slot: dict[int, int] = {}
        self._waiting: list[Request] = []

    # ---- the Engine protocol ----

    def submit(self, request: Request) -> None:
        """See Engine. Raises ValueError where the request is empty, does not continue its trajectory or cannot fit."""
        check_request(request, self.max_model_len)
        if request.id not in self._slot:
            self._waiting.append(request)
            return
        row = self._rows[self._slot[request.id]]
        known = row.fed + row.reply[-1:]  # the last sampled token was not fed yet
        if row.request is not None or list(request.token_ids[: len(known)]) != known:
            raise ValueError(f"request {request.id} does not continue what its trajectory was fed and sampled")
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
        with torch.inference_mode(), self.cast():
            prompts = [i for i, row in enumerate(self._rows) if len(row.pending) > 1]
            decoding = [i for i, row in enumerate(self._rows) if len(row.pending) == 1]
            if prompts and len(prompts) * PREFILL_SHARE >= len(prompts) + len(decoding):
                self._prefill(prompts)
                decoding = [i for i, row in enumerate(self._rows) if len(row.pending) == 1]
            if decoding:
                return self._decode(decoding)
        return []

    def release(self, id: int) -> None:
        """See Engine. The last row moves into the freed slot, so that the rows stay the first slots."""
        if id not in self._slot:
            self._waiting = [request for request in self._waiting if request.id != id]
            return
        slot, last = self._slot.pop(id), self._rows.pop()
        if last.id != id:
            self._cache.copy(len(self._rows), slot, len(last.fed))
            self._rows[slot] = last
            self._slot[last.id] = slot

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See Engine. Tensors that already are the model's own are left as they are."""
        if self._rows or self._waiting:
            raise RuntimeError(f"new weights while {len(self._rows) + len(self._waiting)} trajectories are under way")
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in tensors:
                if name not in own:
                    raise KeyError(f"the engine's model has no parameter {name!r}")
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)
        self.version = version

    def sleep(self) -> None:
        """See Engine."""
        if not self._rows:
            self._cache.clear()

    def wake(self) -> None:
        """See Engine; slots are allocated on first use."""

    def metrics(self) -> dict[str, float]:
        """See Engine; there are none: a slot keeps all it was fed."""
        return {}

    def close(self) -> None:
        """See Engine."""
        self._rows, self._slot, self._waiting = [], {}, []
        self._cache.clear()

    def _evict(self) -> bool:
        """Free the slot of a trajectory between turns, if there is one; its next request is fed from the start."""
        idle = next((row.id for row in self._rows if row.request is None), None)
        if idle is not None:
            self.release(idle)
        return idle is not None

    # ---- forward passes ----

    def _begin(self, row: _Row, request: Request) -> None:
        row.request, row.reply, row.logprobs = request, [], []
        row.pending = list(request.token_ids[len(row.fed) :])

    def _prefill(self, rows: list[int]) -> None:
        """Feed all but the last pending token of these rows; members of a group that begin alike are fed once."""
        originals: dict[tuple[int, ...], int] = {}
        twins: list[tuple[int, int]] = []
        todo = []
        for i in rows:
            first = originals.setdefault(tuple(self._rows[i].pending), i) if not self._rows[i].fed else i
            if first == i:
                todo.append(i)
            else:
                twins.append((first, i))
        todo.sort(key=lambda i: -len(self._rows[i].pending))
        while todo:
            q = len(self._rows[todo[0]].pending) - 1
            part, todo = todo[: max(1, PREFILL_TOKENS // q)], todo[max(1, PREFILL_TOKENS // q) :]
            tokens = np.zeros((len(part), q), dtype=np.int64)
            positions = np.full((len(part), q), self.max_model_len)
            for r, i in enumerate(part):
                row = self._rows[i]
                n = len(row.pending) - 1
                tokens[r, :n] = row.pending[:n]
                positions[r, :n] = np.arange(len(row.fed), len(row.fed) + n)
                row.fed += row.pending[:n]
                row.pending = row.pending[n:]
                self.fed_tokens += n
            self._forward(torch.tensor(part), tokens, positions)
        for first, i in twins:
            row = self._rows[i]
            row.fed, row.pending = row.pending[:-1], row.pending[-1:]
            self._cache.copy(first, i, len(row.fed))

    def _forward(self, rows: Tensor | int, tokens: Any, positions: Any) -> Tensor:
        """Hidden states (n, q, hidden) of new tokens at their positions, which the cache keeps."""
        at = torch.from_numpy(positions).to(self.device)
        real = at < self.max_model_len
        length = int(positions[positions < self.max_model_len].max()) + 1
        self._cache.aim(rows if isinstance(rows, int) else rows.to(self.device), at, length)
        shown = torch.where(real, at, 0)
        mask = torch.arange(length, device=self.device)[None, None, :] <= shown[:, :, None]
        hidden: Tensor = (
            self.model.get_decoder()(
                input_ids=torch.from_numpy(tokens).to(self.device),
                position_ids=shown,
                attention_mask=mask[:, None],
                past_key_values=self._cache,
                use_cache=True,
            )
        ).last_hidden_state
        return hidden

    def _decode(self, decoding: list[int]) -> list[tuple[int, Completion]]:
        """One token for every row with one pending; rows between turns ride along as padding, their cache untouched."""
        n = decoding[-1] + 1
        tokens = np.zeros((n, 1), dtype=np.int64)
        positions = np.full((n, 1), self.max_model_len)
        for i in decoding:
            row = self._rows[i]
            tokens[i, 0], positions[i, 0] = row.pending[0], len(row.fed)
            row.fed.append(row.pending.pop())
        self.fed_tokens += len(decoding)
        hidden = self._forward(n, tokens, positions)[:, 0]
        if len(decoding) < n:
            hidden = hidden[torch.tensor(decoding, device=self.device)]
        ids, logprobs = self._sample(self.model.get_output_embeddings()(hidden), decoding)
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

    def _sample(self, logits: Tensor, decoding: list[int]) -> tuple[list[int], list[float]]:
        """Draw by the inverse of the cumulative distribution, from each row's own number; its log-prob with it."""
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        requests = [row.request for row in (self._rows[i] for i in decoding) if row.request is not None]
        heat = [r.sampling.temperature for r in requests]
        temperatures = torch.tensor([t or 1.0 for t in heat], dtype=logits.dtype, device=logits.device)
        logprobs = torch.log_softmax(logits / temperatures[:, None], dim=-1)
        keys = np.array([r.key for r in requests], dtype=np.uint64)
        drawn = uniform(keys, np.array([len(self._rows[i].reply) for i in decoding], dtype=np.uint64))
        cumulative = logprobs.double().exp().cumsum(-1)
        total = cumulative[:, -1:]
        below = torch.nextafter(total, torch.zeros_like(total))
        threshold = torch.minimum(torch.from_numpy(drawn).to(total.device)[:, None] * total, below)
        ids = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
        if not all(heat):
            greedy = torch.tensor([t == 0 for t in heat], device=ids.device)
            ids = torch.where(greedy, logprobs.argmax(-1), ids)
        chosen = logprobs.gather(-1, ids[:, None])[:, 0]
        return ids.tolist(), chosen.double().tolist()
