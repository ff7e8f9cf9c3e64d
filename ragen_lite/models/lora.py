"""LoRA by peft: small matrices beside the frozen weights of a model (Hu et al. 2021).

The matrices are put into the transformers model itself, so decoder, head and engine see one model;
peft's own wrapper is kept for saving, and for switching them off.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from ragen_lite.config.schema import ConfigError

INSTALL = "pip install 'ragen-lite[lora]'"
NAME = "default"  # peft's own name of the one adapter there is


def _peft() -> Any:
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"LoRA needs peft: {INSTALL}")
    import peft

    return peft


def add_lora(model: Any, rank: int, alpha: float, seed: int) -> Any:
    """Put fresh matrices beside every linear layer but the head; returns peft's wrapper.

    Args:
        model: a causal LM, whose own weights are frozen by this.
        rank: of the matrices.
        alpha: what their product is scaled by, times 1 / rank.
        seed: of the first matrices; the second ones are zero, so that nothing changes at first.
    """
    peft = _peft()
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    # The generator of the caller stays as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def adapter_config(folder: str) -> dict[str, Any] | None:
    """What an adapter's folder says of itself; None where it is none."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def base_of(name: str, told: dict[str, Any]) -> str:
    """The folder or hub name of the model that an adapter belongs to. Raises ConfigError."""
    if told.get("peft_type") != "LORA":
        raise ConfigError(
            f"model={name} is an adapter of the kind {told.get('peft_type')}; LORA is known here"
        )
    base = told.get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"model={name} is a LoRA adapter that does not say which model it belongs to: put "
            "base_model_name_or_path into its adapter_config.json"
        )
    return str(base)


def load_adapter(model: Any, folder: str) -> Any:
    """Put an adapter's matrices into its model, to be trained on; returns peft's wrapper."""
    return _peft().PeftModel.from_pretrained(model, folder, is_trainable=True)


def restore_adapter(adapter: Any, tensors: dict[str, Tensor]) -> None:
    """Give an adapter the weights of an adapter_model.safetensors."""
    _peft().set_peft_model_state_dict(adapter, tensors)


@contextlib.contextmanager
def switched_off(adapter: Any) -> Iterator[Any]:
    """The model as it was without its adapter."""
    with adapter.disable_adapter():
        yield adapter.get_base_model()


def stored_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All weights of a model as its folder would name them, with LoRA's matrices added in.

    In memory a mixture of experts is packed; on disk, and to vLLM, each expert has its own tensors.
    """
    weights = revert_weight_conversion(model, dict(merged_weights(model)))
    yield from weights.items()


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All weights of a model by their names without LoRA, the matrices added to what they change.

    Of a model without LoRA they are its parameters.
    """
    layers = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight") and hasattr(module, "lora_A"):
            layers[name] = module
    for name, parameter in model.named_parameters():
        owner, _, rest = name.partition(".base_layer.")
        if owner in layers and rest == "weight":
            yield f"{owner}.weight", parameter.detach() + layers[owner].get_delta_weight(NAME)
        elif owner in layers and rest:
            yield f"{owner}.{rest}", parameter
        elif ".lora_" not in name:
            yield name, parameter
