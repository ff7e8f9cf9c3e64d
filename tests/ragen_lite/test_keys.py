"""Every key of the configuration does something: changed, it has an effect or is refused."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

from ragen_lite.config.command_line import compose
from ragen_lite.config.groups import TABLES, entry_from
from ragen_lite.config.keys import keys, options
from tests.fixtures.commands import run
from tests.fixtures.runs import records, rows

TRAIN = (
    "train",
    "env=frozen_lake",
    "train.steps=2",
    "train.groups=2",
    "train.group_size=4",
    "train.mini_batches=2",
    "train.epochs=2",
    "train.lr=1e-2",
    "train.warmup=0",
    "sample.max_tokens=40",
    "filter=none",
    "eval.every=0",
    "eval.instances=2",
)
EVALUATE = ("evaluate", "env=bandit", "model=tiny", "eval.instances=3", "sample.max_tokens=20")
SFT = (
    "sft",
    "env=bandit",
    "model.path=scratch:32x1x4",
    "train.steps=1",
    "train.groups=2",
    "train.group_size=2",
    "train.mini_batches=1",
    "eval.every=0",
    "eval.instances=2",
)
# What each key is changed to, and by which command it is read.
CHANGES: dict[str, tuple[tuple[str, ...], str]] = {
    "env.id": (TRAIN, "ragen_lite/Bandit-v0"),
    "env.kwargs": (TRAIN, "{size: 5}"),
    "env.protocol": (TRAIN, "answer"),
    "model.path": (TRAIN, "scratch:32x1x4"),
    "model.dtype": (TRAIN, "float64"),
    "engine.name": (TRAIN, "another"),
    "engine.slots": (TRAIN, "1"),
    "engine.options": (TRAIN, "{budget: 3}"),
    "engine.lora": (TRAIN, "adapter"),  # what it does is in tests/vllm/test_adapter.py
    "engine.max_model_len": (TRAIN, "300"),
    "engine.shard": (TRAIN, "3"),
    # Who works, and who may die, changes no byte: tests/ragen_lite/cluster shows it.
    "engine.workers": (TRAIN, "-1"),
    "engine.restarts": (TRAIN, "-1"),
    "train.workers": (TRAIN, "-1"),
    "train.restarts": (TRAIN, "-1"),
    "train.staleness": (TRAIN, "1"),
    "env.prefill": (TRAIN, "<think>"),
    "model.template": (TRAIN, "plain"),
    "model.quantize": (TRAIN, "nf4"),  # without LoRA; with it, in models/test_memory.py
    "train.betas": (TRAIN, "[0.5,0.9]"),
    "train.lr_end": ((*TRAIN, "train.schedule=linear"), "0.5"),
    "train.optimizer": ((*TRAIN, "model=tiny"), "adamw_8bit"),
    # It changes no number but by rounding, and bounds memory: models/test_memory.py shows it.
    "train.checkpointing": (TRAIN, "on"),
    "scale": (TRAIN, "smoke"),
    "model.lora_rank": (TRAIN, "2"),
    "model.lora_alpha": ((*TRAIN, "model.lora_rank=2"), "3"),
    "model.date": (TRAIN, "never"),  # what a date does is in tests/agents/test_chat.py
    "sample.temperature": (TRAIN, "0.7"),
    "sample.max_tokens": (TRAIN, "10"),
    "train.steps": (TRAIN, "3"),
    "train.groups": (TRAIN, "3"),
    "train.group_size": (TRAIN, "5"),
    "train.epochs": (TRAIN, "1"),
    "train.mini_batches": (TRAIN, "1"),
    "train.lr": (TRAIN, "1e-3"),
    "train.warmup": (TRAIN, "1"),
    "train.schedule": (TRAIN, "constant"),
    "train.weight_decay": (TRAIN, "0.5"),
    "train.grad_clip": (TRAIN, "0.01"),
    "train.microbatch_tokens": (TRAIN, "64"),
    "train.stages": (TRAIN, "[{from: 2, group_size: 5}]"),
    "train.tokens": (TRAIN, "10"),
    "eval.every": (TRAIN, "1"),
    "eval.patience": ((*TRAIN, "train.steps=3", "eval.every=1", "train.lr=1e-9"), "1"),
    "eval.instances": (TRAIN, "3"),
    "eval.samples": (EVALUATE, "2"),
    "eval.split": (EVALUATE, "val"),
    "eval.compare": (EVALUATE, "scratch:32x1x4"),
    "run.dir": (TRAIN, "elsewhere"),
    "run.name": (TRAIN, "another"),
    "run.resume": (TRAIN, "/no/run"),
    "run.save_every": (TRAIN, "1"),
    "run.wandb": (TRAIN, "true"),
    "seed": (TRAIN, "1"),
    "demos": (SFT, "solver"),
}
# The torch engine's arithmetic is the learner's, so no run here has anything to correct.
OPTIONS = [
    (group, name, key) for group, table in TABLES.items() for name in table
    for key in options(group, name) if group != "correction"
]  # fmt: skip
# A large step moves whole sequences down only, where GSPO's upper bound is never met.
LINES = {
    "gspo": ("train.lr=1e-3",),
    # Warm-up ends before the run does, and values move between two passes.
    "gae": ("critic=own",),
    "bi_level_gae": ("critic=own",),
    "own": ("credit=gae", "train.steps=3"),
    "shared": ("credit=gae", "train.steps=3"),
    # Enough groups for a share of them.
    "top_k": ("train.groups=6",),
    "top_p": ("train.groups=6",),
    "min_p": ("train.groups=6",),
    # Every reply of this length is cut.
    "keep": ("sample.max_tokens=10",),
    "zero": ("sample.max_tokens=10",),
    "mask": ("sample.max_tokens=30",),
    # Games enough that some are lost.
    "oracle": ("train.groups=8",),
    # Groups enough that kinds come apart.
    "sec": ("train.groups=8", "train.steps=3"),
}
# Where a text is changed, or an option needs more to be seen.
TEXTS = {
    "loss.aggregation": "sequence",
    "context.thoughts": "drop",
    "context.turns": "1",
    "critic.warmup": "1",
    "critic.clip": "0.001",
    "filter.refill": "2",
    "filter.share": "0.5",
    "instances.rate": "0",
    "instances.temperature": "20",
    "kl.place": "reward",
    "kl.start": "2",
    "overlong.buffer": "20",
    "loss.clip_high": "10",
    "loss.limit_up": "1e-6",
    "loss.cap": "0.5",
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Left:
    """What a command leaves but its config.yaml and times, and what it refuses."""

    refused: str
    made: list[Any]


@cache
def left_by(*line: str) -> Left:
    cwd = Path(mkdtemp())
    result = run(*line, cwd=cwd)
    if result.returncode:
        return Left(result.stderr, [])
    found: list[Any] = [sorted(p.name for p in cwd.iterdir())]
    for made in cwd.glob("*/*"):
        inside = [p.relative_to(made).as_posix() for p in made.rglob("*")]
        found += [made.name[15:], sorted(name for name in inside if "tensorboard" not in name)]
        steps = len(list((made / "trajectories").iterdir()))
        found += [records(made, step) for step in range(1, steps + 1)]
        found += [
            {k: v for k, v in row.items() if not k.startswith("time/") and "per_second" not in k}
            for row in rows(made)
        ]
        found += [p.read_text() for p in sorted(made.glob("*.json"))]
        found += [digest(p) for p in sorted(made.rglob("model.safetensors"))]
    return Left("", [result.stdout] if line[0] == "evaluate" else found)


def changed(base: tuple[str, ...], argument: str) -> bool:
    """Whether an argument changes what a command leaves, or is refused by its own name."""
    before = left_by(*base)
    assert not before.refused, before.refused
    after = left_by(*base, argument)
    if after.refused:
        key = re.escape(argument.partition("=")[0])
        return bool(re.match(rf"error: .*{key}", after.refused))
    return before.made != after.made


def test_the_list_of_keys_is_whole() -> None:
    assert set(CHANGES) == {key.name for key in keys()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=pytest.mark.gate if key in ("seed", "run.resume") else ())
        for key in CHANGES
    ],
)
def test_a_key_has_an_effect_or_is_refused(key: str) -> None:
    base, value = CHANGES[key]
    assert changed(base, f"{key}={value}"), f"{key}={value} changes nothing in {base[0]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name", "key"), OPTIONS, ids=lambda value: getattr(value, "name", str(value))
)
def test_an_option_has_an_effect_or_is_refused(group: str, name: str, key: Any) -> None:
    value = TEXTS.get(key.name) or _another(key.default)
    others = tuple(argument for argument in TRAIN if not argument.startswith(f"{group}="))
    base = (*others, f"{group}={name}", "env.kwargs.size=4", *LINES.get(name, ()))
    assert changed(base, f"{key.name}={value}"), f"{key.name}={value} changes nothing"


@pytest.mark.parametrize("name", [name for name in TABLES["correction"] if name != "off"])
def test_an_option_of_a_correction_has_an_effect(name: str) -> None:
    # One sample's weights are 4 and 1; as a sequence they are 4.
    gaps = np.log([4.0, 1.0])
    values = {"truncation": (2, 3), "highest": (3, 5), "lowest": (0, 1)}
    expected = {"truncation": [2.0, 3.0], "highest": [0.0, 4.0], "lowest": [0.25, 0.0]}
    for key in options("correction", name):
        option = key.name.partition(".")[2]
        found = [
            entry_from(compose([f"correction={name}", f"{key.name}={value}"]), "correction")
            for value in values[option]
        ]
        own = -gaps if option == "lowest" else gaps
        assert [weight(own)[0].round(9) for weight in found] == expected[option]


def _another(default: Any) -> str:
    """A value that is not the default."""
    if isinstance(default, bool):
        return str(not default).lower()
    assert isinstance(default, (int, float)), f"{default!r}: give TEXTS another value"
    return str(default / 2 if default else 0.1)


def test_a_key_that_did_nothing_would_be_seen() -> None:
    assert not changed(SFT, "seed=0")
