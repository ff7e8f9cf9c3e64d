"""The learner's step against a bare forward and backward pass, its padding, and the memory of a
large vocabulary.

python benchmarks/learner.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start, Trajectory, group_by_instance
from ragen_lite.algorithms.advantages import GRPO
from ragen_lite.algorithms.losses import PPO, token_weights
from ragen_lite.config.command_line import compose
from ragen_lite.envs.splits import task_seed
from ragen_lite.learning.batches import Sample, collate, plan
from ragen_lite.learning.credit import give_credit
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.optim import Optim
from ragen_lite.models.loading import load_policy

VOCABULARY = 151_936  # Qwen2.5's
TOKENS = 2048
NARROW = 64  # so that the logits are what there is
FEW, WIDE = 256, 896  # Qwen2.5-0.5B's width


def bare(model: Any, batches: list[Any]) -> None:
    """Forward, next-token loss on the same tokens, backward: the least a step can do, tensors made
    beforehand."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        hidden = model.get_decoder()(input_ids=batch.token_ids, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden.flatten(0, 1)[batch.predictors])
        torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum").backward()


def first_starts(groups: int, group_size: int) -> list[Start]:
    """Those of a run's first step."""
    return [
        Start(task_seed(0, 1, group), "train", group, member)
        for group in range(groups)
        for member in range(group_size)
    ]


def samples_of(trajectories: Sequence[Trajectory]) -> tuple[list[Sample], list[float]]:
    """What a learner's step takes: samples with GRPO's credit, all groups kept, and weights."""
    groups = group_by_instance(trajectories)
    credited = give_credit(groups, GRPO(), [True] * len(groups))
    samples = [sample for c in credited for sample in c.samples(turn_mask=True)]
    return samples, token_weights([s.trained for s in samples], "token")


def speed() -> None:
    config = compose(["env=sokoban"])
    policy = load_policy(config.model)
    engine = TorchEngine(EngineSetup(policy.model, policy.chat.stop_ids, policy.max_model_len))
    rollout = Rollout(engine, policy.chat, EnvSpec(config.env.id), 0)
    starts = first_starts(config.train.groups, config.train.group_size)
    samples, weights = samples_of(rollout.play(starts, Sampling(1.0, 48)))
    rows = plan([len(s.token_ids) for s in samples], config.train.microbatch_tokens)
    batches = [collate(samples, weights, r, 0, torch.float32) for r in rows]
    learner = Learner(
        policy.model,
        Optim(lr=0.0, steps=1, microbatch_tokens=config.train.microbatch_tokens),
    )

    def step() -> dict[str, float]:
        return learner.step(samples, weights, PPO())

    step(), bare(policy.model, batches)
    ours = []
    least = []
    for _ in range(7):
        began = time.perf_counter()
        metrics = step()
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        bare(policy.model, batches)
        least.append(time.perf_counter() - began)
    tokens = sum(len(s.token_ids) for s in samples)
    ratio = statistics.median(b / a for a, b in zip(ours, least, strict=True))
    print("| | ours | other | ratio | wanted |\n|---|---|---|---|---|")
    print(
        f"| learner step / bare forward and backward, {tokens:,} tokens | {tokens / statistics.median(ours):,.0f} tokens/s "
        f"| {tokens / statistics.median(least):,.0f} tokens/s | {ratio:.2f} | 0.85 |"
    )
    print(f"| padding of that step | {metrics['train/padding']:.1%} | | | under 5% |")


def resident(field: str) -> float:
    """A figure of this process's memory in MB."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    )
    return int(line.split()[1]) / 1024


def peak(kind: str, tokens: int, width: int) -> None:
    """Print the peak memory in MB that a head's loss adds at a vocabulary of VOCABULARY, and its
    CPU seconds.

    Args:
        kind: whole (all logits at once), parts (autograd adds the parts' gradients up), or buffer
            (they add to one: what the learner does).
        tokens: that are scored.
        width: of the hidden states.
    """
    from ragen_lite.learning.linear_head import by_matrix
    from ragen_lite.learning.scoring import CHUNK, chunked_head

    torch.set_num_threads(1)
    hidden = torch.randn(tokens, width, requires_grad=True)
    output = torch.nn.Linear(width, VOCABULARY, bias=False)
    targets = torch.randint(VOCABULARY, (tokens,))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins here (Linux)
    before = resident("VmRSS")
    began = time.process_time()
    size = tokens if kind == "whole" else CHUNK // VOCABULARY
    if kind == "buffer":
        logprobs, _ = by_matrix(hidden, output.weight, targets, 1.0, size)
    else:
        logprobs, _ = chunked_head(output, hidden, targets, 1.0, size, entropy_grad=False)
    logprobs.sum().backward()
    print(resident("VmHWM") - before, time.process_time() - began)


def measured(kind: str, tokens: int, width: int) -> list[float]:
    """What ``peak`` prints, in a process of its own."""
    line = [sys.executable, __file__, kind, str(tokens), str(width)]
    found = subprocess.run(line, capture_output=True, text=True, check=True)
    return [float(number) for number in found.stdout.split()]


def memory() -> None:
    """The head's memory beside all logits at once, and beside autograd's sum of the parts."""
    parts, _ = measured("buffer", TOKENS, NARROW)
    whole, _ = measured("whole", TOKENS, NARROW)
    print(
        f"| peak memory of the loss, {TOKENS} tokens, vocabulary {VOCABULARY:,}: in parts / at once | {parts:,.0f} MB | "
        f"{whole:,.0f} MB | {parts / whole:.2f} | at most 0.25 |"
    )
    for name, unit, place in (("peak memory", "MB", 0), ("CPU time", "s", 1)):
        ours = measured("buffer", FEW, WIDE)[place]
        other = measured("parts", FEW, WIDE)[place]
        print(
            f"| {name} of a head of {WIDE} x {VOCABULARY:,}, {FEW} tokens: one gradient / one a part | {ours:,.1f} {unit} | "
            f"{other:,.1f} {unit} | {ours / other:.2f} | below 1 |"
        )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        peak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        speed()
        memory()
