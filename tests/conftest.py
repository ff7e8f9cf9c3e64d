"""Shared by the tests: a tiny random model, and gym-sokoban made importable."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ragen_lite.agents.chat import Chat
from ragen_lite.models import scratch

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return scratch.load_tokenizer()


@pytest.fixture(scope="session")
def chat(tokenizer: Any) -> Chat:
    return Chat(tokenizer)


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A Qwen3 of two layers with random weights, in float32."""
    return scratch.make_model(tokenizer, hidden=32, layers=2, heads=4, context=1024, seed=1).eval()


@pytest.fixture(scope="session")
def gym_sokoban_env() -> Any:
    """gym-sokoban's own SokobanEnv class; it wants pkg_resources, which newer setuptools no longer have."""
    if "pkg_resources" not in sys.modules:
        stub: Any = types.ModuleType("pkg_resources")
        stub.resource_filename = lambda module, name: str(
            Path(sys.modules[module].__file__ or "").parent / name
        )
        sys.modules["pkg_resources"] = stub
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_sokoban.envs.sokoban_env import SokobanEnv
    return SokobanEnv
