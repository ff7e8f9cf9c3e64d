"""Loading: a path or hub name -> model, tokenizer and chat, on the device there is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from ragen_lite.agents.chat import Chat
from ragen_lite.config.schema import ConfigError, ModelConfig
from ragen_lite.models import scratch
from ragen_lite.models.scratch import TINY

LONGEST = 4096  # max_model_len where the model allows more and nobody asks for it


@dataclass(frozen=True, slots=True)
class Policy:
    """A model with what a conversation needs.

    Attributes:
        dtype: of the arithmetic: float32, bfloat16 or float64.
        max_model_len: longest trajectory, in tokens.
    """

    model: Any
    tokenizer: Any
    chat: Chat
    dtype: str
    max_model_len: int

    @property
    def autocast(self) -> bool:
        """Whether the weights are float32 and the arithmetic is bfloat16."""
        return self.dtype == "bfloat16"


def load_policy(config: ModelConfig, seed: int = 0, max_model_len: int | None = None) -> Policy:
    """The policy at ``config.path``.

    Args:
        config: path or hub name, and arithmetic.
        seed: of the weights of a model from scratch.
        max_model_len: longest trajectory in tokens; None: what the model allows, at most 4096.

    Raises ConfigError with what to do.
    """
    name = config.path
    logging.disable_progress_bar()
    if name.startswith("openai:"):
        raise ConfigError(
            f"model={name}: a server's model can be evaluated and played, not trained"
        )
    device, dtype, arithmetic = arithmetic_of(config)
    if name.partition(":")[0] == "scratch":
        model, tokenizer = _from_scratch(name, seed)
        model = model.to(dtype)
    else:
        model, tokenizer = _from_folder(name, dtype)
    return _policy(name, model.to(device), tokenizer, arithmetic, max_model_len)


def arithmetic_of(config: ModelConfig) -> tuple[torch.device, torch.dtype, str]:
    """Device, dtype of the weights, and the arithmetic's by name.

    Weights are never stored in 16 bits: AdamW's small steps would be rounded away.
    """
    cuda = torch.cuda.is_available()
    automatic = "bfloat16" if cuda else "float32"
    name = automatic if config.dtype == "auto" else config.dtype
    dtype = torch.float64 if name == "float64" else torch.float32
    return torch.device("cuda" if cuda else "cpu"), dtype, name


def _from_folder(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer of a Hugging Face folder or hub name."""
    folder = TINY if name == "tiny" else Path(name)
    # A hub name has exactly one slash; anything else can only be a folder.
    path_like = name.startswith((".", "/", "~")) or name.count("/") != 1
    local = name == "tiny" or folder.exists() or path_like
    if local and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model={name}: no model there ({folder}/config.json is missing); give a Hugging Face "
            "folder, a hub name such as Qwen/Qwen2.5-0.5B-Instruct, or tiny"
        )
    source = str(folder) if local else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, attn_implementation="sdpa"
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model={name} cannot be loaded: {reason}") from error
    return model, tokenizer


def _from_scratch(name: str, seed: int) -> tuple[Any, Any]:
    """A model of random weights, and the embedded model's tokenizer."""
    shape = re.fullmatch(r"scratch(?::(\d+)x(\d+)x(\d+))?", name)
    hidden, layers, heads = scratch.SHAPE
    if shape and shape[1]:
        hidden, layers, heads = map(int, shape.groups())
    if shape is None or not (hidden and layers and heads) or hidden % (2 * heads):
        raise ConfigError(
            f"model.path={name}: give scratch, or scratch:HIDDENxLAYERSxHEADS such as "
            "scratch:96x4x3, with heads of an even size"
        )
    tokenizer = scratch.load_tokenizer()
    model = scratch.make_model(tokenizer, hidden=hidden, layers=layers, heads=heads, seed=seed)
    return model, tokenizer


def _policy(name: str, model: Any, tokenizer: Any, dtype: str, max_model_len: int | None) -> Policy:
    try:
        chat = Chat(tokenizer)
    except ValueError as error:
        raise ConfigError(f"model={name}: {error}") from error
    allowed = int(getattr(model.config, "max_position_embeddings", LONGEST))
    if max_model_len is not None and max_model_len > allowed:
        raise ConfigError(
            f"engine.max_model_len={max_model_len}: the model has {allowed} positions"
        )
    # Padding is never attended to and never trained on, so any token will do.
    if model.config.pad_token_id is None:
        model.config.pad_token_id = chat.end_id
    # Checkpoints are served as they were trained: none of the base model's top-p or repetition
    # penalty.
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=sorted(chat.stop_ids),
        pad_token_id=model.config.pad_token_id,
    )
    longest = max_model_len or min(allowed, LONGEST)
    return Policy(model.eval(), tokenizer, chat, dtype, longest)
