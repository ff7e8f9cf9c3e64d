"""A Hugging Face folder or hub name -> model and tokenizer, refused in a sentence where they do not
fit together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engines.head import text_config, vocabulary_size
from ragen_lite.config.schema import ConfigError
from ragen_lite.models.scratch import TINY
from ragen_lite.models.smollm2 import smollm2_folder

# Rotary embeddings that change with the longest row of a batch: beyond the length that they were
# made for, what one trajectory is told would depend on the others.
CHANGING = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, its tokenizer, and the ids that end its replies."""

    model: Any
    tokenizer: Any
    ends: frozenset[int]


def source_of(name: str) -> str:
    """The folder or hub name that ``model.path`` stands for. Raises ConfigError."""
    if name == "smollm2":
        try:
            return str(smollm2_folder())
        except ModuleNotFoundError as error:
            raise ConfigError(str(error)) from error
    folder = TINY if name == "tiny" else Path(name).expanduser()
    # A hub name has exactly one slash; anything else can only be a folder.
    path_like = name.startswith((".", "/", "~")) or name.count("/") != 1
    local = name == "tiny" or folder.exists() or path_like
    files = ("config.json", "adapter_config.json")
    if local and not any((folder / file).is_file() for file in files):
        raise ConfigError(
            f"model={name}: no model there ({folder}/config.json is missing); give a Hugging Face "
            "folder, a hub name such as Qwen/Qwen2.5-0.5B-Instruct, tiny or smollm2"
        )
    # Whole, since an adapter that is trained on it is read from anywhere.
    return str(folder.resolve()) if local else name


def load_folder(
    name: str,
    dtype: torch.dtype,
    tokenizer_from: str | None = None,
    options: dict[str, Any] | None = None,
) -> Loaded:
    """The model of a folder or hub name, with the tokenizer of another one if that is asked for.

    ``options`` are further ones of ``from_pretrained``. Raises ConfigError.
    """
    source = source_of(name)
    try:
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_from or source)
        model, found = _load_model(source, config, {"dtype": dtype, **(options or {})})
    except Exception as error:  # whatever transformers makes of somebody's files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"model={name} cannot be loaded: {reason}") from error
    check_names(name, model, found)
    check_weights(name, model)
    return Loaded(model, tokenizer, ends_of(model))


def _load_model(source: str, config: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model with the attention that calculates what its family means, and what was found."""
    # Scores that are capped (Gemma 2's) are capped by the family's own attention alone: sdpa leaves
    # the cap out without a word.
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    wanted = ("eager",) if capped else ("sdpa", "eager")
    for attention in wanted:
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                source, attn_implementation=attention, output_loading_info=True, **options
            )
            return model, found
        except ValueError as error:
            # Some families have no sdpa, and say so.
            if attention == wanted[-1] or "attention" not in str(error):
                raise
    raise AssertionError("unreachable: the last attention returns or raises")


def check_names(name: str, model: Any, found: dict[str, Any]) -> None:
    """Raise ConfigError where the folder and its configuration do not hold the same weights.

    transformers would draw at random what is missing, and leave out what is too much. Parts that
    the language model does not have (a tower for pictures) may be there.
    """
    missing = sorted(found["missing_keys"])
    # Where this model's layers are, as ``model.layers.``.
    places = set()
    for parameter, _ in model.named_parameters():
        before, layers, _ = parameter.partition(".layers.")
        if layers:
            places.add(before + layers)
    surplus = []
    for key in sorted(found["unexpected_keys"]):
        if any(key.startswith(place) for place in places):
            surplus.append(key)
    if missing:
        raise ConfigError(
            f"model={name}: {len(missing)} of its weights are missing, such as {missing[0]}"
        )
    if surplus:
        raise ConfigError(
            f"model={name}: {len(surplus)} weights of the folder have no place in its config.json, "
            f"such as {surplus[0]}"
        )


def check_weights(name: str, model: Any) -> None:
    """Raise ConfigError for weights that are no numbers."""
    for parameter_name, parameter in model.named_parameters():
        broken = int((~torch.isfinite(parameter)).sum())
        if broken:
            raise ConfigError(
                f"model={name}: {broken} of the {parameter.numel()} numbers of {parameter_name} "
                "are nan or infinite; the file is damaged, or a training run diverged"
            )


def ends_of(model: Any) -> frozenset[int]:
    """The tokens that end a reply, by the model's generation_config.json, or else its config.json.

    Several families have more than one (Qwen3, Llama 3, Gemma 3).
    """
    ends = model.generation_config.eos_token_id
    if isinstance(ends, Iterable):
        return frozenset(ends)
    return frozenset({ends} - {None})


def plain_ids(tokenizer: Any, chat: Chat, model: Any) -> NDArray[np.int64]:
    """The ids that a text can become: no control tokens, and within the model's vocabulary."""
    size = min(len(tokenizer), vocabulary_size(model))
    return np.array([i for i in range(size) if i not in chat.control_ids])


def check_vocabulary(name: str, tokenizer: Any, chat: Chat, model: Any) -> None:
    """Raise ConfigError where a text can become a token that the model has no embedding for.

    Control tokens that no conversation holds may lie beyond it, as an image's in Gemma 3.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    used = set(tokenizer.get_vocab().values()) - chat.control_ids
    used |= {*chat.stop_ids, *chat.start("", ""), *chat.follow(chat.end_id, "")}
    highest = max(used)
    if highest >= rows:
        raise ConfigError(
            f"model={name}: the tokenizer has a token of id {highest}, but the model's embedding "
            f"has {rows} rows: they do not belong together, or resize_token_embeddings was "
            "forgotten"
        )


def positions_of(model: Any, default: int) -> int:
    """How many tokens a conversation may have, by the model's positions."""
    config = text_config(model)
    allowed = int(getattr(config, "max_position_embeddings", default))
    told = getattr(config, "rope_parameters", None) or {}
    # Some families have one for each kind of layer.
    kinds = [rope for rope in (told, *told.values()) if isinstance(rope, dict)]
    for rope in kinds:
        if rope.get("rope_type") in CHANGING:
            made_for = rope.get("original_max_position_embeddings")
            made_for = made_for or getattr(config, "original_max_position_embeddings", None)
            allowed = min(allowed, int(made_for or allowed))
    return allowed


def prepare_generation(model: Any, chat: Chat) -> None:
    """What is saved with a checkpoint: the ends of a reply, and nothing that changes the draws.

    Checkpoints are served as they were trained: none of the base model's top-p or repetition
    penalty.
    """
    # Padding is never attended to and never trained on, so any token will do.
    if model.config.pad_token_id is None:
        model.config.pad_token_id = chat.end_id
    model.generation_config = GenerationConfig(
        bos_token_id=getattr(model.config, "bos_token_id", None),
        eos_token_id=sorted(chat.stop_ids),
        pad_token_id=model.config.pad_token_id,
    )
