"""Verifiers under fire: hypothesis, and a small part of benchmarks/fuzz.py, whose oracles confirm what is called right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz, instances

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_nothing_is_wrongly_right(name: str) -> None:
    right, slowest = fuzz.attack(name, 10_000, seed=1)
    assert slowest < 1.0
    assert right or name in ("statements in English", "protocols and templates")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
@example("(" * 10**6)
@example("9**9**9")
@example("<answer>" * 1000)
def test_any_text_is_judged(text: str) -> None:
    for make in fuzz.TARGETS.values():
        target = made.setdefault(make.__name__, make())
        if target.right(text):
            assert target.oracle(text)


made: dict[str, fuzz.Target] = {}


@pytest.mark.parametrize("name", instances.VARIANTS)
def test_the_same_seeds_give_the_same_bytes_as_ever(name: str) -> None:
    assert name in GOLDEN, f"{name} has no hash yet: run make golden"
    found = instances.digest(instances.instances(name, "train", 100))
    assert found == GOLDEN[name]["100"], f"the seeds of {name} give other instances than they did"


def test_the_suite_is_imported_without_its_tasks_and_without_torch() -> None:
    code = (
        "import sys, ragen_lite; loaded = [m for m in sys.modules if m.startswith('ragen_lite.envs.')];"
        "sys.exit(bool(loaded) or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
