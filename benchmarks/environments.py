"""Sokoban against gym-sokoban in the same run: rooms and steps a second, text observation and exact regret included.

python benchmarks/environments.py
"""

from __future__ import annotations

import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ragen_lite.envs.sokoban import Sokoban


def gym_sokoban(**options: Any) -> Any:
    """gym-sokoban's env; it wants pkg_resources, which newer setuptools no longer have."""
    if "pkg_resources" not in sys.modules:
        stub: Any = types.ModuleType("pkg_resources")
        stub.resource_filename = lambda module, name: str(Path(sys.modules[module].__file__ or "").parent / name)
        sys.modules["pkg_resources"] = stub
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_sokoban.envs.sokoban_env import SokobanEnv
    return SokobanEnv(**options)


def rate(call: Any, seconds: float = 2.0) -> float:
    """Calls a second."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - began)


def reset_theirs(env: Any) -> None:
    while True:
        try:
            env.reset()
            return
        except (RuntimeError, RuntimeWarning):  # a draw it gives up on
            continue


def stepper(env: Any, reset: Any, first: int) -> Any:
    actions = np.random.default_rng(0).integers(4, size=10_000).tolist()
    place = 0

    def step() -> None:
        nonlocal place
        place = (place + 1) % len(actions)
        result = env.step(first + actions[place])
        if result[2] or result[3] is True:
            reset()

    return step


def main() -> None:
    ours, theirs = Sokoban(), gym_sokoban(dim_room=(6, 6), num_boxes=1, max_steps=12, reset=False)
    theirs_text = gym_sokoban(dim_room=(6, 6), num_boxes=1, max_steps=12, reset=False)
    theirs_text.render = lambda mode: None  # what is left of its step without its picture
    rows = [("reset", rate(ours.reset), rate(lambda: reset_theirs(theirs)), 10)]
    level = ours.reset(seed=0)
    assert level
    room = (ours.board, ours.player, ours.placed)
    from ragen_lite.envs.sokoban_levels import Level

    our_step = rate(stepper(ours, lambda: ours.load(Level(*room)), 0))
    for label, env in (("step (theirs draws a picture)", theirs), ("step (theirs draws nothing)", theirs_text)):
        reset_theirs(env)
        state, player = env.room_state.copy(), env.player_position.copy()

        def again(env: Any = env, state: Any = state, player: Any = player) -> None:
            env.room_state, env.player_position = state.copy(), player.copy()
            env.num_env_steps = env.boxes_on_target = 0

        rows.append((label, our_step, rate(stepper(env, again, 1)), 5))
    print("| 6x6, one box | ragen-lite, a second | gym-sokoban, a second | ratio | wanted |\n|---|---|---|---|---|")
    for label, a, b, wanted in rows:
        print(f"| {label} | {a:,.0f} | {b:,.0f} | {a / b:.1f} | {wanted} |")


if __name__ == "__main__":
    main()
