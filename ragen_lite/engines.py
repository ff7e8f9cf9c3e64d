"""Which engine a command generates with, and how it is made."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ragen_lite.agents.engine import Engine, Restarting
from ragen_lite.agents.torch_engine import TorchEngine
from ragen_lite.agents.vllm_engine import INSTALL, OLDEST, TOO_NEW, EngineUnavailable, VLLMEngine, installed, supported
from ragen_lite.config import Config, ConfigError
from ragen_lite.learner import Score, casting, scorer
from ragen_lite.models import Policy
from ragen_lite.sync import WeightSync

Note = Callable[[str], None]


def choose(gpu: bool, vllm: str | None, dtype: str = "auto") -> tuple[str, str]:
    """The engine of ``engine=auto`` and why: vLLM where a version we know is installed and a GPU is there."""
    if not gpu:
        return "torch", "there is no GPU"
    if vllm is None:
        return "torch", f"vLLM is not installed ({INSTALL})"
    if not supported(vllm):
        return "torch", f"vLLM {vllm} is not one of the versions this was written for ({OLDEST} up to {TOO_NEW})"
    if dtype == "float64":
        return "torch", "vLLM has no float64"
    return "vllm", f"there is a GPU and vLLM {vllm}"


def resolve(config: Config, note: Note) -> None:
    """Replace engine.name=auto by what it stands for here, and say so."""
    asked = "engine=torch"
    if config.engine.name == "auto":
        config.engine.name, why = choose(torch.cuda.is_available(), installed(), config.model.dtype)
        note(f"engine=auto takes {config.engine.name}: {why}")
        asked = f"engine=auto, which takes {config.engine.name} here ({why})"
    if config.engine.name == "torch" and config.engine.options:
        raise ConfigError(f"engine.options does nothing with {asked}: it is for vllm's engine arguments")
    if config.engine.name == "torch" and config.algo.correction != "off":
        raise ConfigError(
            f"algo.correction={config.algo.correction} does nothing with {asked}: it samples with the learner's own "
            "weights and arithmetic; take engine=vllm, or algo.correction=off"
        )


def make(config: Config, policy: Policy, sleeping: bool, note: Note) -> Engine:
    """A bare engine for a policy. Raises ConfigError where it cannot be had."""
    if config.engine.name == "torch":
        cast = casting(policy.model, policy.autocast)
        return TorchEngine(policy.model, policy.chat.stop_ids, policy.max_model_len, config.engine.slots, cast)
    if policy.dtype == "float64":
        raise ConfigError("model.dtype=float64: vLLM has no float64; take engine=torch, or float32")
    try:
        return VLLMEngine(
            policy.model.config,
            policy.chat.stop_ids,
            policy.max_model_len,
            config.engine.slots,
            policy.dtype,
            config.engine.options,
            sleeping,
            note,
        )
    except EngineUnavailable as error:
        raise ConfigError(str(error)) from error


def ready(
    config: Config,
    policy: Policy,
    version: Callable[[], int] = lambda: 0,
    sleeping: bool = False,
    note: Note = lambda text: None,
) -> tuple[Engine, WeightSync]:
    """An engine with the policy's weights, probed, which is built again once if it fails; and what syncs it.

    ``version`` tells which step's weights the policy has.
    """
    score: Score = scorer(policy.model, config.sample.temperature, casting(policy.model, policy.autocast))
    sync = WeightSync(policy.model, score, policy.tokenizer, policy.dtype, config.sample.temperature)

    def build() -> Engine:
        engine = make(config, policy, sleeping, note)
        try:
            sync(engine, version())
        except BaseException:
            engine.close()
            raise
        return engine

    return Restarting(build, note), sync
