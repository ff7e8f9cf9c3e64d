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

from ragen_lite import scratch
from ragen_lite.agents.chat import Chat
from ragen_lite.config import Config, ConfigError, ModelConfig
from ragen_lite.scratch import TINY

LONGEST = 4096  # max_model_len where the model allows more and nobody asks for it


@dataclass(frozen=True, slots=True)
class Policy:
    """A model with what a conversation needs."""

    model: Any
    tokenizer: Any
    chat: Chat
    dtype: str  # of the arithmetic: float32, bfloat16 or float64
    max_model_len: int

    @property
    def autocast(self) -> bool:
        """Whether the weights are float32 and the arithmetic is bfloat16."""
        return self.dtype == "bfloat16"


def load_policy(config: Config, path: str | Path | None = None) -> Policy:
    """The policy at ``path`` (``config.model.path`` where left out). Raises ConfigError with what to do."""
    name = str(path or config.model.path)
    logging.disable_progress_bar()
    if name.startswith("openai:"):
        raise ConfigError(f"model={name}: a server's model can be evaluated and played, not trained")
    if name.partition(":")[0] == "scratch":
        return _scratch(config, name)
    folder = TINY if name == "tiny" else Path(name)
    looks_local = name == "tiny" or folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model={name}: no model there ({folder}/config.json is missing); give a Hugging Face folder, a hub name "
            "such as Qwen/Qwen2.5-0.5B-Instruct, or tiny"
        )
    device, dtype, wanted = arithmetic(config.model)
    source = str(folder) if looks_local else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, attn_implementation="sdpa")
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"model={name} cannot be loaded: {str(error).splitlines()[0]}") from error
    return _policy(config, name, model.to(device), tokenizer, wanted)


def arithmetic(config: ModelConfig) -> tuple[torch.device, torch.dtype, str]:
    """Device, dtype of the weights, and the arithmetic's by name. Weights are never stored in 16 bits:
    AdamW's small steps would be rounded away."""
    cuda = torch.cuda.is_available()
    wanted = config.dtype if config.dtype != "auto" else "bfloat16" if cuda else "float32"
    dtype = torch.float64 if wanted == "float64" else torch.float32
    return torch.device("cuda" if cuda else "cpu"), dtype, wanted


def _scratch(config: Config, name: str) -> Policy:
    shape = re.fullmatch(r"scratch(?::(\d+)x(\d+)x(\d+))?", name)
    hidden, layers, heads = (int(n or 0) for n in shape.groups()) if shape and ":" in name else (96, 4, 3)
    if shape is None or not (hidden and layers and heads) or hidden % (2 * heads):
        raise ConfigError(
            f"model.path={name}: give scratch, or scratch:HIDDENxLAYERSxHEADS such as scratch:96x4x3, with heads of an "
            "even size"
        )
    device, dtype, wanted = arithmetic(config.model)
    tokenizer = scratch.load_tokenizer()
    model = scratch.make_model(tokenizer, hidden=hidden, layers=layers, heads=heads, seed=config.seed)
    return _policy(config, name, model.to(device, dtype), tokenizer, wanted)


def _policy(config: Config, name: str, model: Any, tokenizer: Any, dtype: str) -> Policy:
    try:
        chat = Chat(tokenizer)
    except ValueError as error:
        raise ConfigError(f"model={name}: {error}") from error
    allowed = int(getattr(model.config, "max_position_embeddings", LONGEST))
    asked = config.engine.max_model_len
    if asked is not None and asked > allowed:
        raise ConfigError(f"engine.max_model_len={asked}: the model has {allowed} positions")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = chat.end_id
    # Checkpoints are served as they were trained: none of the base model's top-p or repetition penalty.
    ids = {"eos_token_id": sorted(chat.stop_ids), "pad_token_id": model.config.pad_token_id}
    model.generation_config = GenerationConfig(bos_token_id=model.config.bos_token_id, **ids)
    return Policy(model.eval(), tokenizer, chat, dtype, asked or min(allowed, LONGEST))
