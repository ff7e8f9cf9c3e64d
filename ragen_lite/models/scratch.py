"""Random weights for the embedded model's tokenizer; the architecture is Qwen3's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

TINY = Path(__file__).with_name("tiny")
SHAPE = (96, 4, 3)  # hidden size, layers, heads


def load_tokenizer() -> Any:
    """The embedded model's tokenizer, which every model from nothing has."""
    return AutoTokenizer.from_pretrained(TINY)


def make_model(
    tokenizer: Any, hidden: int, layers: int, heads: int, context: int = 1024, seed: int = 0
) -> PreTrainedModel:
    """A Qwen3 causal LM with random weights, drawn from ``seed`` alone.

    Args:
        tokenizer: decides the vocabulary's size and the control tokens.
        hidden: the width, a multiple of twice ``heads``.
        layers, heads: how many of each.
        context: positions, in tokens.
        seed: of the weights.
    """
    config = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        # Rounded up, since matrix kernels like multiples of 32.
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=hidden,
        intermediate_size=5 * hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The generator of the caller stays as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
