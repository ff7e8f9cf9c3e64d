"""LoRA by peft: small matrices beside the frozen weights of a model (Hu et al. 2021).

The matrices are put into the transformers model itself, so decoder, head and engine see one model;
peft's own wrapper is kept for saving, and for switching them off.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from ragen_lite.config.schema import ConfigError, require

# What an adapter may have beside its matrices, which nothing here would merge.
MORE = ("use_dora", "modules_to_save", "target_parameters", "bias", "trainable_token_indices")
NAME = "default"  # peft's own name of the one adapter there is


def _peft() -> Any:
    require("peft", "LoRA", "lora")
    import peft

    return peft


def _peft_integrations() -> Any:
    _peft()
    from peft.utils import integrations

    return integrations


def add_lora(model: Any, rank: int, alpha: float, seed: int) -> Any:
    """Put fresh matrices beside every linear layer but the head; returns peft's wrapper.

    Of a mixture of experts, beside every linear layer of its attention.

    Args:
        model: a causal LM, whose own weights are frozen by this.
        rank: of the matrices.
        alpha: what their product is scaled by, times 1 / rank.
        seed: of the first matrices; the second ones are zero, so that nothing changes at first.
    """
    peft = _peft()
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=linear_layers(model), task_type="CAUSAL_LM"
    )
    # The generator of the caller stays as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def linear_layers(model: Any) -> list[str]:
    """The names of a model's linear layers, but for its head's.

    Of a mixture of experts those of its attention: where asked for others, peft takes the packed
    experts too, which are no layers.
    """
    head = model.get_output_embeddings()
    packed = any(
        parameter.dim() == 3 and "experts" in name for name, parameter in model.named_parameters()
    )
    found = []
    for name, module in model.named_modules():
        linear = isinstance(module, (torch.nn.Linear, Conv1D))
        within_experts = packed and ".mlp." in name
        if linear and module is not head and not within_experts:
            found.append(name)
    return found


def adapter_config(folder: str) -> dict[str, Any] | None:
    """What an adapter's folder says of itself; None where it is none."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise ConfigError(f"{path} holds no object")
    return told


def base_of(name: str, told: dict[str, Any]) -> str:
    """The folder or hub name of the model that an adapter belongs to. Raises ConfigError."""
    if told.get("peft_type") != "LORA":
        raise ConfigError(
            f"model={name} is an adapter of the kind {told.get('peft_type')}; LORA is known here"
        )
    more = [key for key in MORE if told.get(key) not in (None, False, [], "none")]
    if more:
        raise ConfigError(
            f"model={name}: a LoRA adapter with {', '.join(more)} changes more than its matrices "
            "say; plain LoRA is known here"
        )
    base = told.get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"model={name} is a LoRA adapter that does not say which model it belongs to: put "
            "base_model_name_or_path into its adapter_config.json"
        )
    return str(base)


def load_adapter(model: Any, folder: str) -> Any:
    """Put an adapter's matrices into its model, to be trained on; returns peft's wrapper.

    Raises ConfigError where they do not fit the model, or are not all there.
    """
    peft = _peft()
    try:
        tensors = load_file(Path(folder) / "adapter_model.safetensors")
        config = peft.PeftConfig.from_pretrained(folder)
        config.inference_mode = False  # as it is saved; its matrices would be frozen
        adapter = peft.get_peft_model(model, config)
        restore_adapter(adapter, tensors)
    except Exception as error:  # whatever peft makes of somebody's files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"model={folder}: the adapter cannot be loaded: {reason}") from error
    return adapter


def restore_adapter(adapter: Any, tensors: dict[str, Tensor]) -> None:
    """Give an adapter the weights of an adapter_model.safetensors.

    Raises KeyError where one is missing, or has no place in the model.
    """
    peft = _peft()
    wanted = dict(adapter_matrices(adapter))
    different = sorted(wanted.keys() ^ tensors.keys())
    if different:
        raise KeyError(f"{len(different)} tensors are missing or too many, such as {different[0]}")
    peft.set_peft_model_state_dict(adapter, tensors)


@contextlib.contextmanager
def switched_off(adapter: Any) -> Iterator[Any]:
    """The model as it was without its adapter."""
    with adapter.disable_adapter():
        yield adapter.get_base_model()


def adapter_matrices(adapter: Any) -> Iterator[tuple[str, Tensor]]:
    """An adapter's matrices, as its folder names them."""
    yield from _peft().get_peft_model_state_dict(adapter, save_embedding_layers=False).items()


def adapter_scales(model: Any) -> dict[str, float]:
    """What the product of each layer's matrices is scaled by, by the layer's name."""
    scales = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "scaling"):
            scales[name] = float(module.scaling[NAME])
    return scales


def stored_weights(model: Any, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """All weights of a model as its folder would name them; see ``merged_weights``.

    In memory a mixture of experts is packed; on disk, and to vLLM, each expert has its own tensors.
    """
    weights = revert_weight_conversion(model, dict(merged_weights(model, merged)))
    yield from weights.items()


def merged_weights(model: Any, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """All weights of a model by their names without LoRA, the matrices added to what they change.

    Of a model without LoRA they are its parameters; with ``merged=False`` they are as they were
    before.
    """
    layers = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight") and hasattr(module, "lora_A"):
            layers[name] = module
    packed = {}
    for name, module in model.named_modules():
        if hasattr(getattr(module, "weight", None), "quant_state"):
            packed[f"{name}.weight"] = module
    for name, parameter in model.named_parameters():
        if name in packed and ".base_layer." not in name:
            # Of 4 bits, and without matrices of its own.
            yield name, _peft_integrations().dequantize_module_weight(packed[name]).detach()
            continue
        owner, _, rest = name.partition(".base_layer.")
        if owner in layers and rest == "weight":
            whole = _peft_integrations().dequantize_module_weight(layers[owner].base_layer)
            whole = whole.detach()
            if merged:
                whole = whole + layers[owner].get_delta_weight(NAME)
            yield f"{owner}.weight", whole
        elif owner in layers and rest:
            yield f"{owner}.{rest}", parameter
        elif ".lora_" not in name:
            yield name, parameter
