"""Where an iteration's seconds go: python -m benchmarks.operations [FLAG=VALUE ...]

The default task's sampling and learning, by one thread in one process: the share of each kind of
operation, and how far matrix products and the attention of single tokens are from what the same
thread does at best, in large products and in reading memory.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.learner import first_starts, samples_of
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Trajectory
from ragen_lite.algorithms.losses import PPO
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import Config
from ragen_lite.learning.generation import resolve, start_engine
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.optim import Optim
from ragen_lite.models.loading import Policy, load_policy
from ragen_lite.runs.evaluation import make_spec

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
ATTENTION = "aten::_scaled_dot_product"
MOVED = ("aten::copy_", "aten::index", "aten::cat", "aten::clone", "aten::_index_put", "aten::fill")
ROUNDS = 3
READ = 2**26  # numbers, more than a processor's caches hold


def kind_of(operation: str) -> str:
    """The row of the table that an operation of torch's belongs to."""
    if operation in PRODUCTS:
        return "matrix products"
    if operation.startswith(ATTENTION):
        return "attention"
    if operation.startswith(MOVED):
        return "copies, the cache's among them"
    return "norms, activations and the rest of torch"


def parts(config: Config, policy: Policy) -> dict[str, Callable[[], Any]]:
    """Sampling a step's first half, which is a shard, and learning from it."""
    train, sampling = config.train, Sampling(config.sample.temperature, config.sample.max_tokens)
    engine, _ = start_engine(resolve(config.engine).config, policy, sampling.temperature)
    rollout = Rollout(engine, policy.chat, make_spec(config.env), 0)
    starts = first_starts(train.groups // 2, train.group_size)

    def sample() -> list[Trajectory]:
        return rollout.play(starts, sampling)

    samples, weights = samples_of(sample())
    optim = Optim(lr=0.0, steps=1, microbatch_tokens=train.microbatch_tokens)
    learner = Learner(policy.model, optim)
    return {"sampling": sample, "learning": lambda: learner.step(samples, weights, PPO())}


def profiled(call: Callable[[], Any]) -> tuple[dict[str, float], float, float]:
    """Seconds by kind; billions of products' operations a second; and of single tokens'
    attention, GB of keys and values a second (0 where there is none)."""
    call()
    with profile(
        activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True, acc_events=True
    ) as profiler:
        began = time.perf_counter()
        call()
        whole = time.perf_counter() - began
    seconds: Counter[str] = Counter()
    products = flops = attended = read = 0.0
    for event in profiler.key_averages(group_by_input_shape=True):
        own = event.self_cpu_time_total / 1e6
        if event.key.startswith("aten::"):
            seconds[kind_of(event.key)] += own
        if event.key in PRODUCTS:
            products += own
            flops += event.flops
        shapes = event.input_shapes
        if (
            event.key.startswith(ATTENTION)
            and "backward" not in event.key
            and shapes[0][2:3] == [1]
        ):
            attended += own
            read += event.count * 2 * 4 * torch.Size(shapes[1]).numel()
    # What is left is nobody's in torch.
    seconds["environments, tokenizer, Python"] = whole - seconds.total()
    return dict(seconds), flops / products / 1e9, read / attended / 1e9 if attended else 0.0


def best(call: Callable[[], Any]) -> float:
    """The fewest seconds of some calls."""
    found = []
    for _ in range(10):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def main(flags: list[str]) -> None:
    torch.set_num_threads(1)
    config = compose(flags)
    policy = load_policy(config.model)
    square = torch.randn(2048, 2048)
    numbers = torch.randn(READ)
    peak = 2 * 2048**3 / best(lambda: square @ square) / 1e9
    memory = 4 * READ / best(numbers.sum) / 1e9
    print("| | share | |\n|---|---|---|")
    for name, call in parts(config, policy).items():
        runs = [profiled(call) for _ in range(ROUNDS)]
        seconds, rate, read = min(runs, key=lambda run: sum(run[0].values()))
        whole = sum(seconds.values())
        for kind, own in sorted(seconds.items(), key=lambda pair: -pair[1]):
            note = ""
            if kind == "matrix products":
                note = f"{rate:.0f} GFLOP/s; {peak:.0f} in a large product"
            if kind == "attention" and read:
                note = f"single tokens': {read:.1f} GB/s; {memory:.1f} in adding up numbers"
            print(f"| {name}: {kind} | {own / whole:.0%} | {note} |")


if __name__ == "__main__":
    main(sys.argv[1:])
