"""ragen-lite: multi-turn reinforcement learning of LLM agents in Gymnasium text environments.

Importing this package registers the tasks with Gymnasium, as strings: no task, no torch is loaded.
"""

import os

import gymnasium

# Two OpenMP threads that spin while they wait run several times slower than one beside any other busy process.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

__version__ = "0.1.0"

TASKS = {
    "ragen_lite/Sokoban-v0": "ragen_lite.envs.sokoban:Sokoban",
    "ragen_lite/Countdown-v0": "ragen_lite.envs.countdown:Countdown",
}

for _id, _entry_point in TASKS.items():
    gymnasium.register(_id, entry_point=_entry_point)
