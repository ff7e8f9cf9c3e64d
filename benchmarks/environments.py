"""The environments' speed, against gym-sokoban and reasoning-gym in the same run; steps of every
game; the import.

Text observation and exact regret are included in every figure of ours.

python benchmarks/environments.py
"""

from __future__ import annotations

import subprocess
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ragen_lite.envs.games.sokoban.task import Sokoban


def gym_sokoban(**options: Any) -> Any:
    """gym-sokoban's env; it wants pkg_resources, which newer setuptools no longer have."""
    if "pkg_resources" not in sys.modules:
        stub: Any = types.ModuleType("pkg_resources")
        stub.resource_filename = lambda module, name: str(
            Path(sys.modules[module].__file__ or "").parent / name
        )
        sys.modules["pkg_resources"] = stub
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_sokoban.envs.sokoban_env import SokobanEnv
    return SokobanEnv(**options)


def rate(call: Any, seconds: float = 2.0) -> float:
    """Calls a second."""
    began = time.perf_counter()
    count = 0
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


def against_reasoning_gym() -> None:
    """Instances a second of the same three tasks."""
    import reasoning_gym

    import ragen_lite.envs.answers.countdown as countdown
    import ragen_lite.envs.answers.knights_knaves.task as knights_knaves

    six = {"min_w": 6, "max_w": 6, "min_h": 6, "max_h": 6, "min_boxes": 1, "max_boxes": 1}
    pairs: list[tuple[str, Any, dict[str, Any], Any, float]] = [
        (
            "countdown, 4 to 6 numbers",
            countdown.Countdown(4, 6, min_target=100, max_target=999),
            {},
            "countdown",
            10,
        ),
        ("sokoban, 6x6, one box", Sokoban(), six, "sokoban", 10),
        (
            "knights and knaves, 2 people",
            knights_knaves.KnightsKnaves(2, 2),
            {},
            "knights_knaves",
            3,
        ),
    ]
    print(
        "\n| new instances a second | ragen-lite | reasoning-gym | ratio | wanted |\n|---|---|---|---|---|"
    )
    for label, env, options, name, wanted in pairs:
        data = reasoning_gym.create_dataset(name, seed=0, size=1_000_000, **options)
        place = iter(range(1_000_000))
        b = rate(lambda data=data, place=place: data[next(place)])
        env.reset(seed=0)
        a = rate(env.reset)
        print(f"| {label} | {a:,.0f} | {b:,.0f} | {a / b:.1f} | {wanted} |")


def games() -> None:
    """Steps a second of every game with random actions; the resets between them are not counted."""
    import gymnasium as gym

    import ragen_lite

    print("\n| game | steps a second | resets a second |\n|---|---|---|")
    for env_id, where in ragen_lite.TASKS.items():
        if "envs.doors:" in where:
            continue
        env: Any = gym.make(env_id, disable_env_checker=True).unwrapped
        if not isinstance(env.action_space, gym.spaces.Discrete) or env.max_actions == 1:
            continue
        env.reset(seed=0)
        actions = np.random.default_rng(0).integers(int(env.action_space.n), size=20_000).tolist()
        resets = 0.0
        count = 0
        began = time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                paused = time.perf_counter()
                env.reset()
                resets = resets + time.perf_counter() - paused
                count = count + 1
        steps = len(actions) / (time.perf_counter() - began - resets)
        print(f"| {env_id.partition('/')[2]} | {steps:,.0f} | {count / max(resets, 1e-9):,.0f} |")


def imports() -> None:
    """Seconds to import the suite in a fresh process; the best of five."""
    code = "import time; t = time.perf_counter(); import ragen_lite; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    print(f"\nimport ragen_lite: {min(times):.2f} s (wanted 0.3)")


def main() -> None:
    ours = Sokoban()
    theirs = gym_sokoban(dim_room=(6, 6), num_boxes=1, max_steps=12, reset=False)
    theirs_text = gym_sokoban(dim_room=(6, 6), num_boxes=1, max_steps=12, reset=False)
    theirs_text.render = lambda mode: None  # what is left of its step without its picture
    rows = [("reset", rate(ours.reset), rate(lambda: reset_theirs(theirs)), 10)]
    level = ours.reset(seed=0)
    assert level
    room = (ours.board, ours.player, ours.placed)
    from ragen_lite.envs.games.sokoban.levels import Level

    our_step = rate(stepper(ours, lambda: ours.load(Level(*room)), 0))
    for label, env in (
        ("step (theirs draws a picture)", theirs),
        ("step (theirs draws nothing)", theirs_text),
    ):
        reset_theirs(env)
        state = env.room_state.copy()
        player = env.player_position.copy()

        def again(env: Any = env, state: Any = state, player: Any = player) -> None:
            env.room_state = state.copy()
            env.player_position = player.copy()
            env.num_env_steps = env.boxes_on_target = 0

        rows.append((label, our_step, rate(stepper(env, again, 1)), 5))
    print(
        "| 6x6, one box | ragen-lite, a second | gym-sokoban, a second | ratio | wanted |\n|---|---|---|---|---|"
    )
    for label, a, b, wanted in rows:
        print(f"| {label} | {a:,.0f} | {b:,.0f} | {a / b:.1f} | {wanted} |")
    against_reasoning_gym()
    games()
    imports()


if __name__ == "__main__":
    main()
