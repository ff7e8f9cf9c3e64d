"""The engines by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from typing import Any

from ragen_lite.envs.names import resolve

ENGINES = {
    "torch": "ragen_lite.agents.engines.torch:TorchEngine",
    "vllm": "ragen_lite.agents.engines.vllm:VLLMEngine",
}


def engine_class(name: str) -> Any:
    """The class of an engine, made from an EngineSetup; its module is imported only now.

    It says of itself whether it ``takes_options`` (engine.options.NAME=VALUE) and whether it has
    the ``same_arithmetic`` as the learner, so that its log-probs differ by rounding only.
    """
    return resolve(ENGINES[name])
