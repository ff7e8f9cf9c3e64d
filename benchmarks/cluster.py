"""What several processes bring: python -m benchmarks.cluster [players] [overlap]

players: trajectories a second of 1, 2, 4 and 8 engines with Ray, where latency dominates: an
environment that takes 50 ms a step. overlap: steps an hour with train.staleness=1 against 0, where
sampling and learning take about as long, one thread a side. Ratios, in one run each.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import tempfile
import time
from typing import Any

import gymnasium as gym

from ragen_lite.agents.contexts import FullContext
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.trajectory import Sampling, Start
from ragen_lite.cluster.players import Players, PlayerSetup
from ragen_lite.cluster.ray_host import RayHost
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.optim import Optim
from ragen_lite.learning.sync import tolerance_of
from ragen_lite.models.loading import load_policy
from ragen_lite.train import finish_step, measure_start, open_trainer, train_step

LATENCY = 0.05  # seconds of an environment's step
COUNTS = (1, 2, 4, 8)
TRAJECTORIES = 128
SHARD = 4
ROUNDS = 3
STEPS = 5  # of a measured run; the first fills the pipeline and is left out


class Slow(gym.Env[str, str]):
    """One question, and 50 ms until any answer to it is judged."""

    action_space = gym.spaces.Text(100)
    observation_space = gym.spaces.Text(100)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """The question."""
        super().reset(seed=seed)
        return "Any word?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The end, 50 ms later."""
        time.sleep(LATENCY)
        return "", 1.0, True, False, {}


gym.register("Slow-v0", entry_point="benchmarks.cluster:Slow")


def measure_players() -> None:
    """The table of engines by number."""
    setup = PlayerSetup(
        model=ModelConfig("scratch:32x1x4"),
        engine=EngineConfig("torch"),
        seed=0,
        temperature=1.0,
        spec=EnvSpec("benchmarks.cluster:Slow-v0", protocol="free"),
        contexts=FullContext(),
        threads=1,
        tolerance=tolerance_of("float32"),
    )
    learner = Learner(load_policy(setup.model).model, Optim(lr=0.0, steps=1))
    starts = [Start(seed) for seed in range(TRAJECTORIES)]
    host = RayHost(max(COUNTS), 1, 0, print)
    rates: dict[int, float] = {}
    for count in COUNTS:
        players = Players(host, setup, count, learner, SHARD, 0, print)
        players.hand_over(0)
        players.play(starts[: SHARD * count], Sampling(1.0, 2))  # environments are made
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            players.play(starts, Sampling(1.0, 2))
            seconds.append(time.perf_counter() - began)
        players.close()
        rates[count] = TRAJECTORIES / statistics.median(seconds)
    host.close()
    print(f"\n{TRAJECTORIES} trajectories in shards of {SHARD}, {LATENCY * 1000:.0f} ms a step")
    print("| engines | trajectories a second | of linear |\n|---|---|---|")
    for count, rate in rates.items():
        print(f"| {count} | {rate:.1f} | {rate / rates[1] / count:.2f} |")


def seconds_a_step(staleness: int, folder: str) -> tuple[float, float, float]:
    """Of a run of Sokoban: a step, its sampling and its learning, medians without the first."""
    config = compose(
        [
            "env=sokoban",
            "engine.shard=null",
            "engine.slots=80",  # so that sampling takes about as long as learning
            f"train.steps={STEPS + 1}",
            "train.groups=16",
            "eval.every=0",
            "eval.instances=2",
            f"run.dir={folder}",
            "run.save_every=100",
            f"train.staleness={staleness}",
        ]
    )
    rows = []
    with open_trainer(config) as trainer:
        measure_start(trainer)
        for step in range(1, STEPS + 1):
            began = time.perf_counter()
            row = train_step(trainer, step)
            finish_step(trainer, step, row)
            whole = time.perf_counter() - began
            rows.append((whole, row["time/rollout_s"], row["time/update_s"]))
    whole, sampling, learning = (
        statistics.median(column) for column in zip(*rows[1:], strict=True)
    )
    return whole, sampling, learning


def measure_overlap() -> None:
    """Steps an hour with and without staleness, in turns."""
    print("| staleness | seconds a step | sampling | learning | steps an hour |")
    print("|---|---|---|---|---|")
    found: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for staleness in (0, 1):
            with tempfile.TemporaryDirectory() as folder:
                whole, sampling, learning = seconds_a_step(staleness, folder)
            found[staleness].append(whole)
            print(
                f"| {staleness} | {whole:.2f} | {sampling:.2f} | {learning:.2f} | "
                f"{3600 / whole:.0f} |",
                flush=True,
            )
    ratios = [apart / ahead for apart, ahead in zip(found[0], found[1], strict=True)]
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"staleness=1 makes {statistics.median(ratios):.2f} times the steps an hour ({told})")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["players", "overlap"]
    if "players" in wanted:
        measure_players()
    if "overlap" in wanted:
        measure_overlap()
