"""Loading: a path or hub name -> model, tokenizer and chat, on the device there is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils import logging

from ragen_lite.agents.chat import Chat
from ragen_lite.config.schema import ConfigError, ModelConfig, require
from ragen_lite.models import lora, scratch
from ragen_lite.models.folders import (
    Loaded,
    check_vocabulary,
    check_weights,
    load_folder,
    plain_ids,
    positions_of,
    prepare_generation,
    source_of,
)

DEMONSTRATED = "demonstrated_difficulty"  # an entry of config.json
PLAIN = Path(__file__).parent / "plain.jinja"  # the chat template for base models
LONGEST = 4096  # max_model_len where the model allows more and nobody asks for it


@dataclass(frozen=True, slots=True)
class Policy:
    """A model with what a conversation needs.

    Attributes:
        dtype: of the arithmetic: float32, bfloat16 or float64.
        max_model_len: longest trajectory, in tokens.
        plain_ids: the token ids that a text can become.
        adapter: peft's wrapper of ``model``, where only LoRA's matrices are trained.
        fresh: whether the adapter is new, so that the model began without one.
        source: the folder or hub name it comes from; empty for random weights.
    """

    model: Any
    tokenizer: Any
    chat: Chat
    dtype: str
    max_model_len: int
    plain_ids: NDArray[np.int64]
    adapter: Any = None
    fresh: bool = True
    source: str = ""

    @property
    def autocast(self) -> bool:
        """Whether the weights are float32 and the arithmetic is bfloat16."""
        return self.dtype == "bfloat16"

    @property
    def demonstrated(self) -> dict[str, float]:
        """The largest difficulty that the model was shown in demonstrations, by the task's name.

        It stands in config.json, so that every checkpoint of the model has it. ``sft`` writes it.
        """
        return _difficulties(getattr(self.model.config, DEMONSTRATED, None))

    def note_demonstrated(self, demonstrated: dict[str, float]) -> None:
        """Have checkpoints tell what was demonstrated; the dictionary may still grow."""
        setattr(self.model.config, DEMONSTRATED, demonstrated)


def demonstrated_in(folder: Path) -> dict[str, float]:
    """The same of a checkpoint; an adapter's tells none."""
    path = folder / "config.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return _difficulties(told.get(DEMONSTRATED))


def _difficulties(told: Any) -> dict[str, float]:
    entries = told.items() if isinstance(told, dict) else ()
    return {str(k): float(v) for k, v in entries if isinstance(v, (int, float))}


def load_policy(config: ModelConfig, seed: int = 0, max_model_len: int | None = None) -> Policy:
    """The policy at ``config.path``.

    Args:
        config: path or hub name, arithmetic, and LoRA.
        seed: of the weights of a model from scratch, and of LoRA's.
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
    options = quantized(config.quantize, device, arithmetic)
    if name.partition(":")[0] == "scratch":
        if config.lora_rank:
            raise ConfigError(
                f"model.lora_rank={config.lora_rank}: an adapter of random weights could never be "
                "loaded again; leave the key out, or take a folder"
            )
        if options:
            raise ConfigError(f"model.quantize={config.quantize}: random weights are not quantized")
        loaded = _from_scratch(name, seed, dtype)
        told = None
        source = ""
    else:
        source = source_of(name)
        told = lora.adapter_config(source)
        if told is None:
            loaded = load_folder(name, dtype, options=options)
        else:
            # What was trained with the adapter is what it is used with.
            own = (Path(source) / "tokenizer_config.json").is_file()
            base = lora.base_of(name, told)
            loaded = load_folder(base, dtype, source if own else None, options)
    if config.template is not None:
        loaded.tokenizer.chat_template = chat_template(config.template)
    chat = _chat(name, loaded, config.date)
    # Weights of 4 bits are where they are to be already.
    model = (loaded.model if options else loaded.model.to(device)).eval()
    longest = _longest(model, max_model_len)
    check_vocabulary(name, loaded.tokenizer, chat, model)
    if options:
        _check_blocks(name, model)
    prepare_generation(model, chat)
    plain = plain_ids(loaded.tokenizer, chat, model)
    adapter = None
    if told is not None:
        adapter = _with_adapter(config, model, source, told)
        check_weights(name, model)
    elif config.lora_rank:
        alpha = config.lora_alpha or 2.0 * config.lora_rank
        adapter = lora.add_lora(model, config.lora_rank, alpha, seed)
    fresh = told is None
    rest = (adapter, fresh, source)
    return Policy(model, loaded.tokenizer, chat, arithmetic, longest, plain, *rest)


def arithmetic_of(config: ModelConfig) -> tuple[torch.device, torch.dtype, str]:
    """Device, dtype of the weights, and the arithmetic's by name.

    Weights are never stored in 16 bits: AdamW's small steps would be rounded away.
    """
    cuda = torch.cuda.is_available()
    automatic = "bfloat16" if cuda else "float32"
    name = automatic if config.dtype == "auto" else config.dtype
    dtype = torch.float64 if name == "float64" else torch.float32
    return torch.device("cuda" if cuda else "cpu"), dtype, name


def _check_blocks(name: str, model: Any) -> None:
    """Have weights of 4 bits multiplied rightly, and alike with and without a gradient.

    On processors with bfloat16 instructions bitsandbytes packs them anew for a forward pass without
    one, and rounds otherwise there; and on some it reads a row wrongly that is not whole blocks.
    Raises ConfigError for such rows.
    """
    for path, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if state is not None and module.in_features % state.blocksize:
            raise ConfigError(
                f"model={name}: {path} has rows of {module.in_features} weights, and "
                f"model.quantize=nf4 takes whole blocks of {state.blocksize}; leave the key out"
            )


def quantized(kind: str | None, device: torch.device, arithmetic: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told to load weights of 4 bits; nothing for others.

    Raises ConfigError where bitsandbytes is not installed.
    """
    if kind is None:
        return {}
    require("bitsandbytes", f"model.quantize={kind}", "quantized")
    from transformers import BitsAndBytesConfig

    told = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_compute_dtype=getattr(torch, arithmetic),
    )
    return {"quantization_config": told, "device_map": {"": device}}


def _from_scratch(name: str, seed: int, dtype: torch.dtype) -> Loaded:
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
    return Loaded(model.to(dtype), tokenizer, frozenset())


def _chat(name: str, loaded: Loaded, date: str) -> Chat:
    try:
        return Chat(loaded.tokenizer, loaded.ends, date)
    # A template is somebody's program: it may raise whatever it likes.
    except Exception as error:
        kind = (
            "" if isinstance(error, ValueError) else f"its chat template: {type(error).__name__}: "
        )
        raise ConfigError(f"model={name}: {kind}{error}") from error


def chat_template(name: str) -> str:
    """The text of a chat template: ``plain``, or a file's. Raises ConfigError."""
    path = PLAIN if name == "plain" else Path(name).expanduser()
    if not path.is_file() or (path != PLAIN and path.suffix != ".jinja"):
        raise ConfigError(f"model.template={name}: give plain, or a .jinja file that is there")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"model.template={name}: it cannot be read ({error})") from error


def _longest(model: Any, asked: int | None) -> int:
    """The longest trajectory, in tokens. Raises ConfigError where the model has fewer positions."""
    allowed = positions_of(model, LONGEST)
    if asked is not None and asked > allowed:
        raise ConfigError(f"engine.max_model_len={asked}: the model has {allowed} positions")
    return asked or min(allowed, LONGEST)


def _with_adapter(config: ModelConfig, model: Any, folder: str, told: dict[str, Any]) -> Any:
    """An adapter's folder on its model; training goes on with it."""
    rank = told.get("r")
    alpha = told.get("lora_alpha")
    if config.lora_rank not in (0, rank) or config.lora_alpha not in (None, alpha):
        raise ConfigError(
            f"model.lora_rank={config.lora_rank}, model.lora_alpha={config.lora_alpha}: "
            f"{config.path} is an adapter of rank {rank} and alpha {alpha}, which is trained on; "
            "leave the keys out"
        )
    return lora.load_adapter(model, folder)
