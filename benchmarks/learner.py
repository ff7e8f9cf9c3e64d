"""The learner's step against a bare forward and backward pass, its padding, and the memory of a
large vocabulary.

python benchmarks/learner.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start, group_by_instance
from ragen_lite.algorithms.advantages import GRPO
from ragen_lite.algorithms.losses import PPO, token_weights
from ragen_lite.config.command_line import compose
from ragen_lite.envs.splits import task_seed
from ragen_lite.learning.batches import collate, plan
from ragen_lite.learning.credit import give_credit
from ragen_lite.learning.learner import Learner
from ragen_lite.learning.optim import Optim
from ragen_lite.models.loading import load_policy

VOCABULARY = 151_936  # Qwen2.5's
TOKENS = 2048


def bare(model: Any, batches: list[Any]) -> None:
    """Forward, next-token loss on the same tokens, backward: the least a step can do, tensors made
    beforehand."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        hidden = model.get_decoder()(input_ids=batch.token_ids, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden.flatten(0, 1)[batch.predictors])
        torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum").backward()


def speed() -> None:
    config = compose(["env=sokoban"])
    policy = load_policy(config.model)
    engine = TorchEngine(EngineSetup(policy.model, policy.chat.stop_ids, policy.max_model_len))
    starts = [
        Start(task_seed(0, 1, group), "train", group, member)
        for group in range(config.train.groups)
        for member in range(config.train.group_size)
    ]
    rollout = Rollout(engine, policy.chat, EnvSpec(config.env.id), 0)
    trajectories = rollout.play(starts, Sampling(1.0, 48))
    groups = group_by_instance(trajectories)
    credited = give_credit(groups, GRPO(), [True] * len(groups))
    samples = [sample for c in credited for sample in c.samples(turn_mask=True)]
    weights = token_weights([s.trained for s in samples], "token")
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


def peak(chunked: bool) -> None:
    """Print the peak memory in MB that the loss of TOKENS tokens adds at a vocabulary of
    VOCABULARY."""
    from ragen_lite.learning.scoring import CHUNK, chunked_head

    hidden = torch.randn(TOKENS, 64, requires_grad=True)
    output = torch.nn.Linear(64, VOCABULARY, bias=False)
    targets = torch.randint(VOCABULARY, (TOKENS,))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins here (Linux)
    before = resident("VmRSS")
    size = CHUNK // VOCABULARY if chunked else TOKENS
    logprobs, _ = chunked_head(output, hidden, targets, 1.0, size, entropy_grad=False)
    logprobs.sum().backward()
    print(resident("VmHWM") - before)


def memory() -> None:
    whole, parts = (
        float(
            subprocess.run(
                [sys.executable, __file__, kind], capture_output=True, text=True, check=True
            ).stdout
        )
        for kind in ("--whole", "--chunked")
    )
    print(
        f"| peak memory of the loss, {TOKENS} tokens, vocabulary {VOCABULARY:,}: chunked / unchunked | {parts:,.0f} MB | "
        f"{whole:,.0f} MB | {parts / whole:.2f} | at most 0.25 |"
    )


if __name__ == "__main__":
    if sys.argv[1:] in (["--whole"], ["--chunked"]):
        peak(sys.argv[1] == "--chunked")
    else:
        speed()
        memory()
