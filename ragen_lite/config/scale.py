"""``scale=smoke``: any configuration cut down to three short steps, to see that it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragen_lite.config.checks import check, get
from ragen_lite.config.schema import Config

STEPS = 3
SAMPLES = Path(__file__).parents[1] / "configs" / "samples"
# Published data sets, and a few made up rows of the same form.
SAMPLE_OF = {
    "Jiayi-Pan/Countdown-Tasks-3to4": "countdown.jsonl",
    "data/kk/instruct": "logic_rl.jsonl",
    "openai/gsm8k": "gsm8k.jsonl",
    "open-r1/OpenR1-Math-220k": "openr1_math.jsonl",
    "agentica-org/DeepScaleR-Preview-Dataset": "deepscaler.jsonl",
    "data/math_level3to5_data_processed_with_qwen_prompt.json": "simplerl.jsonl",
    "datasets/train/math_lvl3to5_8k": "oat_zero.jsonl",
    "open-thoughts/OpenThoughts-114k": "open_thoughts.jsonl",
}
# The largest values that a smoke test leaves.
_MOST = {
    "sample.max_tokens": 48,
    "train.steps": STEPS,
    "train.groups": 2,
    "train.group_size": 2,
    "train.epochs": 2,
    "train.mini_batches": 2,
    "train.warmup": 1,
    "eval.instances": 4,
    "eval.samples": 1,
    "run.save_every": STEPS,
    "critic.warmup": 1,
    "kl.start": 2,
    "overlong.buffer": 8,
}
_NONE: dict[str, Any] = {
    "train.tokens": None,
    "engine.max_model_len": None,
    "engine.options": {},
    "eval.every": 0,
    "eval.patience": 0,
}


def scaled(config: Config, note: Callable[[str], None]) -> Config:
    """The configuration at its scale; ``note`` is told every value that was cut.

    Raises ConfigError.
    """
    check(config)
    if config.scale == "full":
        return config
    small = copy.deepcopy(config)
    for key, value in _smaller(config).items():
        note(f"scale=smoke: {key}={value} (was {get(config, key)})")
        _set(small, key, value)
    check(small)
    return small


def _smaller(config: Config) -> dict[str, Any]:
    """The values that change, by key."""
    found: dict[str, Any] = {}
    for key, most in _MOST.items():
        group, _, name = key.partition(".")
        if hasattr(getattr(config, group), name):
            found[key] = min(get(config, key), most)
    found |= _NONE
    # A stage begins at every step, and cuts what it sets as the run's own sizes are cut.
    stages = []
    for step, stage in enumerate(config.train.stages[: STEPS - 1], 2):
        sizes = {name: _least(name, value) for name, value in stage.items() if name != "from"}
        stages.append({"from": step, **sizes})
    found["train.stages"] = stages
    data = config.env.kwargs.get("data")
    if data in SAMPLE_OF:
        sample = str(SAMPLES / SAMPLE_OF[data])
        # The sample has one part, whatever its data set is divided into.
        rest = {name: v for name, v in config.env.kwargs.items() if name != "config"}
        found["env.kwargs"] = {**rest, "data": sample}
    if config.demos in SAMPLE_OF:
        found["demos"] = str(SAMPLES / SAMPLE_OF[config.demos])
    return {key: value for key, value in found.items() if value != get(config, key)}


def _least(name: str, value: int) -> int:
    key = f"sample.{name}" if name == "max_tokens" else f"train.{name}"
    return min(value, _MOST[key])


def _set(config: Config, key: str, value: Any) -> None:
    *path, name = key.split(".")
    owner = get(config, ".".join(path)) if path else config
    setattr(owner, name, value)
