"""python -m ragen_lite.export model=CHECKPOINT to=FOLDER: a plain model of a run's checkpoint.

LoRA's matrices are added to the weights in float32, those of 4 bits written out first, and the sum
is rounded once, to ``dtype``. The folder holds a Hugging Face model and its tokenizer, and nothing
of the training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ragen_lite.config.command_line import reporting_errors
from ragen_lite.config.schema import ConfigError, ModelConfig
from ragen_lite.models.loading import load_policy
from ragen_lite.models.lora import merged_weights

KEYS = {
    "model": "a folder, a hub name, tiny or smollm2; a LoRA adapter's folder is merged",
    "to": "the folder to make",
    "dtype": "float32 (default), bfloat16 or float16",
    "quantize": "nf4, where the adapter was trained beside weights of 4 bits",
}
DTYPES = ("float32", "bfloat16", "float16")


def export(model: str, to: Path, dtype: str = "float32", quantize: str | None = None) -> Path:
    """Write a model as one plain folder; returns it.

    Args:
        model: as ``model.path``.
        to: a folder that does not exist, or is empty.
        dtype: of the weights on disk.
        quantize: as ``model.quantize``, of the run that trained the adapter.

    Raises ConfigError.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype}: choose one of {', '.join(DTYPES)}")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={to}: it is there already, and not empty")
    policy = load_policy(ModelConfig(model, dtype="float32", quantize=quantize))
    config = policy.model.config
    # What is written has no weights of 4 bits.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = dict(merged_weights(policy.model))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(weights[name])
    plain.generation_config = policy.model.generation_config
    plain.to(getattr(torch, dtype)).save_pretrained(to)
    policy.tokenizer.save_pretrained(to)
    return to


def parse(arguments: list[str]) -> dict[str, str]:
    """The ``key=value`` pairs of a command line. Raises ConfigError."""
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in KEYS:
            raise ConfigError(f"{argument}: give KEY=VALUE with a key of {', '.join(KEYS)}")
        given[key] = value
    missing = [key for key in ("model", "to") if not given.get(key)]
    if missing:
        raise ConfigError(f"{missing[0]}=... is missing: {KEYS[missing[0]]}")
    return given


def main(arguments: list[str]) -> None:
    """The command."""
    if "--help" in arguments or "-h" in arguments:
        print((__doc__ or "").strip(), *(f"  {k}={v}" for k, v in KEYS.items()), sep="\n")
        return

    def run() -> None:
        given = parse(arguments)
        quantize = given.get("quantize")
        to = Path(given["to"]).expanduser()
        made = export(given["model"], to, given.get("dtype", "float32"), quantize)
        print(f"model: {made}")

    reporting_errors(run)


if __name__ == "__main__":
    main(sys.argv[1:])
