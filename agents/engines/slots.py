"""A cache of keys and values in slots, which stay with their trajectory from turn to turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

SMALLEST = 128  # tokens that a slot has room for at first
MASKED = ("sdpa", "eager")  # the implementations of attention that a model may have here


class SlotCache(Cache):  # type: ignore[misc]
    """Keys and values of all slots, one tensor (slots, heads, length, head size) a layer.

    Before a forward pass ``aim`` says which slots its rows are, where their tokens go and how far
    they look.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(layers=[])
        self.slots = 0
        self.max_length = max_length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        """What it takes of the memory."""
        return sum(store.nbytes for store in (*self.keys, *self.values))

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
        """``rows``: slot indices (n,), or n for the first n. ``positions``: (n, q), ``max_length``
        for padding."""
        self._view: Any = slice(rows) if isinstance(rows, int) else rows
        index = torch.arange(rows, device=positions.device) if isinstance(rows, int) else rows
        self._write = (index[:, None], positions)
        self._length = length
        if self.keys and self.keys[0].shape[2] <= length:
            self._allocate(length)

    def _allocate(self, length: int) -> None:
        room = self._room(length)
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                slots, heads, length, size = old.shape
                new = old.new_zeros(slots, heads, room, size)
                # The last column is for padding, and holds nothing.
                new[:, :, : length - 1] = old[:, :, :-1]
                store[layer] = new

    def _room(self, length: int) -> int:
        """Columns for ``length`` tokens now and as many again, and one for padding."""
        return min(self.max_length, max(SMALLEST, 2 * length)) + 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (n, heads, q, size) at the aimed positions; returns what the rows attend to, up to
        the aimed length."""
        if layer_idx == len(self.keys):
            room = self._room(self._length)
            for store, states in ((self.keys, key_states), (self.values, value_states)):
                heads = states.shape[1]
                size = states.shape[3]
                store.append(states.new_zeros(self.slots, heads, room, size))
        keys = self.keys[layer_idx]
        values = self.values[layer_idx]
        rows, positions = self._write
        # Padding aims at the last column, which is never read.
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

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0  # likewise

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How far a mask looks, and from where: every layer keeps all that it was fed."""
        return self._length, 0

    @contextlib.contextmanager
    def masks(self, positions: Tensor) -> Iterator[None]:
        """Within it the model's own masks (causal, sliding, in chunks) are made for rows that stand
        at ``positions`` (n, q), each at its own."""

        def make(
            kv_length: int,
            mask_function: Callable[..., Tensor],
            dtype: torch.dtype = torch.float32,
            **rest: Any,
        ) -> Tensor:
            rows = torch.arange(len(positions), device=positions.device)
            columns = torch.arange(kv_length, device=positions.device)
            seen = mask_function(
                rows[:, None, None, None],
                0,
                positions[:, None, :, None],
                columns[None, None, None, :],
            )
            if rest["config"]._attn_implementation != "eager":
                return seen
            # The model's own attention adds its mask to the scores.
            lowest = torch.finfo(dtype).min
            return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, lowest)

        # transformers asks this table for whatever mask a layer needs.
        for name in MASKED:
            ALL_MASK_ATTENTION_FUNCTIONS[name] = make
        try:
            yield
        finally:
            for name in MASKED:
                del ALL_MASK_ATTENTION_FUNCTIONS[name]

    def clear(self) -> None:
        """Give the memory back."""
        self.keys = []
        self.values = []
        self.slots = 0
