"""Which engine a command generates with, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ragen_lite.agents.engines.protocol import (
    Adapter,
    Engine,
    EngineSetup,
    EngineUnavailable,
    silent,
)
from ragen_lite.agents.engines.restarting import Restarting
from ragen_lite.agents.engines.table import engine_class
from ragen_lite.agents.engines.vllm_setup import (
    INSTALL,
    OLDEST,
    TOO_NEW,
    installed_version,
    is_supported,
)
from ragen_lite.config.schema import ConfigError, EngineConfig
from ragen_lite.learning.exactness import check_exact
from ragen_lite.learning.scoring import casting, scorer
from ragen_lite.learning.sync import WeightSync
from ragen_lite.models.loading import Policy
from ragen_lite.models.lora import NAME, adapter_matrices, adapter_scales, stored_weights

Note = Callable[[str], None]
Weights = Callable[[Any], Iterable[tuple[str, Tensor]]]


def choose(gpu: bool, vllm: str | None, dtype: str = "auto") -> tuple[str, str]:
    """The engine of ``engine=auto``, and why.

    It is vLLM where a version we know is installed and a GPU is there.

    Args:
        gpu: whether there is one.
        vllm: the version that is installed, if any.
        dtype: arithmetic that is asked for.
    """
    if not gpu:
        return "torch", "there is no GPU"
    if vllm is None:
        return "torch", f"vLLM is not installed ({INSTALL})"
    if not is_supported(vllm):
        versions = f"{OLDEST} up to {TOO_NEW}"
        return "torch", f"vLLM {vllm} is not one of the versions this was written for ({versions})"
    if dtype == "float64":
        return "torch", "vLLM has no float64"
    return "vllm", f"there is a GPU and vLLM {vllm}"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine's configuration with its real name, and a note where ``auto`` was resolved."""

    config: EngineConfig
    asked: str
    note: str | None = None


def resolve(config: EngineConfig, dtype: str = "auto") -> EngineChoice:
    """Replace engine.name=auto by what it stands for here.

    Raises ConfigError for what the engine does not take.
    """
    choice = EngineChoice(config, f"engine={config.name}")
    if config.name == "auto":
        name, why = choose(torch.cuda.is_available(), installed_version(), dtype)
        asked = f"engine=auto, which takes {name} here ({why})"
        note = f"engine=auto takes {name}: {why}"
        choice = EngineChoice(replace(config, name=name), asked, note)
    if config.options and not engine_class(choice.config.name).takes_options:
        raise ConfigError(
            f"engine.options does nothing with {choice.asked}: it is for vllm's engine arguments"
        )
    if config.lora == "adapter" and engine_class(choice.config.name).same_arithmetic:
        raise ConfigError(
            f"engine.lora=adapter does nothing with {choice.asked}: it generates with the "
            "learner's own matrices"
        )
    return choice


def check_correction(correction: str, choice: EngineChoice, staleness: int) -> None:
    """Raise ConfigError for a correction between two that have the same weights and arithmetic."""
    alike = engine_class(choice.config.name).same_arithmetic and not staleness
    if correction != "off" and alike:
        raise ConfigError(
            f"correction={correction} does nothing with {choice.asked}: it samples with the "
            "learner's own weights and arithmetic; take engine=vllm, train.staleness, or "
            "correction=off"
        )


def make(config: EngineConfig, policy: Policy, sleeping: bool, note: Note) -> Engine:
    """A bare engine for a policy. Raises ConfigError where it cannot be had."""
    if policy.dtype == "float64" and config.name == "vllm":
        raise ConfigError("model.dtype=float64: vLLM has no float64; take engine=torch, or float32")
    setup = EngineSetup(
        model=policy.model,
        stop_ids=policy.chat.stop_ids,
        max_model_len=policy.max_model_len,
        slots=config.slots,
        dtype=policy.dtype,
        cast=casting(policy.model, policy.autocast),
        options=config.options,
        adapter=_adapter(policy) if config.lora == "adapter" else None,
        sleeping=sleeping,
        note=note,
    )
    try:
        engine: Engine = engine_class(config.name)(setup)
    except EngineUnavailable as error:
        raise ConfigError(str(error)) from error
    return engine


def _adapter(policy: Policy) -> Adapter:
    """What an engine needs to know of LoRA's matrices. Raises ConfigError where there are none."""
    if policy.adapter is None:
        raise ConfigError(
            f"engine.lora=adapter: {policy.source or 'the model'} has no LoRA adapter; take "
            "model.lora_rank=16, a folder of one, or engine.lora=merged"
        )
    frozen = partial(stored_weights, policy.model, merged=False)
    return Adapter(policy.adapter.peft_config[NAME], adapter_scales(policy.model), frozen)


def _handed_over(config: EngineConfig, policy: Policy) -> Weights | None:
    """What an engine is given of the learner's model; None: its parameters as they are."""
    if engine_class(config.name).same_arithmetic:
        return None
    if config.lora == "adapter":
        return lambda model: adapter_matrices(policy.adapter)
    # An engine with a model of its own is given the weights as a folder would hold them.
    return stored_weights


def start_engine(
    config: EngineConfig,
    policy: Policy,
    temperature: float,
    version: Callable[[], int] = lambda: 0,
    sleeping: bool = False,
    note: Note = silent,
) -> tuple[Engine, WeightSync]:
    """An engine with the policy's weights, probed, and what syncs it.

    It is built again once if it fails.

    Args:
        config: of the engine, with its real name.
        policy: whose model it generates with.
        temperature: that replies are sampled at.
        version: tells which step's weights the policy has.
        sleeping: whether memory is given back during updates.
        note: takes what a user should know.
    """
    cast = casting(policy.model, policy.autocast)
    score = scorer(policy.model, temperature, cast)
    plain = policy.plain_ids
    weights = _handed_over(config, policy)
    sync = WeightSync(policy.model, score, plain, policy.dtype, temperature, weights)
    first = True

    # Called again when the engine has failed, so it takes the weights that the learner has then.
    def build() -> Engine:
        nonlocal first
        engine = make(config, policy, sleeping, note)
        try:
            sync.load(engine, version())
            if first:
                check_exact(engine, policy.model, score, plain, temperature, cast, policy.dtype)
            first = False
            sync.check(engine, version())
        except BaseException:
            engine.close()
            raise
        return engine

    return Restarting(build, note), sync
