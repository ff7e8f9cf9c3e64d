"""Rollouts with vLLM: against vLLM's own offline generation, against a loop with a turn barrier,
and the prefix cache.

python benchmarks/vllm_rollout.py
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engines.protocol import EngineSetup, Request
from ragen_lite.agents.engines.vllm import VLLMEngine
from ragen_lite.agents.engines.vllm_setup import import_vllm
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Completion, Sampling, Start
from ragen_lite.models import scratch
from ragen_lite.runs.summaries import tokens_sampled

TRAJECTORIES = 64
REPLY = 48
LONGEST = 128


class Measured(VLLMEngine):
    """The engine under measurement: it notes requests, and can be told the length of each reply.

    ``offline`` is vLLM's own LLM class around the very same engine.
    """

    def __init__(self, setup: EngineSetup) -> None:
        vllm = import_vllm()
        real = vllm.LLMEngine.from_engine_args

        def through_llm(engine_args: Any) -> Any:
            vllm.LLMEngine.from_engine_args = real
            given = {f.name: getattr(engine_args, f.name) for f in dataclasses.fields(engine_args)}
            usual = vllm.EngineArgs()
            self.offline = vllm.LLM(
                **{k: v for k, v in given.items() if v != getattr(usual, k, None)}
            )
            return self.offline.llm_engine

        vllm.LLMEngine.from_engine_args = through_llm
        super().__init__(setup)
        self.requests: dict[int, list[Request]] = {}
        self.lengths: Callable[[int, int], int] | None = None

    def submit(self, request: Request) -> None:
        earlier = self.requests.setdefault(request.id, [])
        if self.lengths is not None:
            length = self.lengths(request.id, len(earlier))
            request = dataclasses.replace(
                request, sampling=dataclasses.replace(request.sampling, max_tokens=length)
            )
        earlier.append(request)
        super().submit(request)

    def begin(self) -> None:
        """Forget what was noted, and every key and value that was computed."""
        self.requests = {}
        self.llm.reset_prefix_cache()


def offline(engine: Measured, requests: dict[int, list[Request]], turns: int) -> int:
    """The recorded requests through ``LLM.generate``, a turn at a time: every reply has the same
    length, so nobody waits at the end of a turn. Returns the tokens sampled."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    tokens = 0
    for turn in range(turns):
        now = [r[turn] for r in requests.values() if len(r) > turn]
        prompts = [TokensPrompt(prompt_token_ids=list(r.token_ids)) for r in now]
        same = SamplingParams(
            temperature=0.0, max_tokens=REPLY, stop_token_ids=sorted(engine._stop_ids), logprobs=0, flat_logprobs=True,
            detokenize=False,
        )  # fmt: skip
        tokens += sum(
            len(o.outputs[0].token_ids)
            for o in engine.offline.generate(prompts, same, use_tqdm=False)
        )
    return tokens


def barrier(
    engine: Measured, chat: Chat, spec: EnvSpec, starts: list[Start], sampling: Sampling
) -> int:
    """The loop of RAGEN (ragen/llm_agent/agent_proxy.py): everybody's turn is generated, then every
    environment steps, then the next turn begins. What it encodes and decodes is what ours does, so
    that only the barrier differs."""
    envs = [spec.open() for _ in starts]
    ids: list[list[int]] = []
    for env, start in zip(envs, starts, strict=True):
        env.reset(start.seed, start.options)
        answer = env.take()
        ids.append(chat.start(answer.system, answer.observation))
    active = list(range(len(starts)))
    tokens = 0
    while active:
        for i in active:
            engine.submit(Request(i, tuple(ids[i]), sampling, i))
        done: dict[int, Completion] = {}
        while len(done) < len(active):
            done |= dict(engine.step())
        for i in list(active):
            reply = done[i].token_ids
            tokens += len(reply)
            ids[i] += reply
            envs[i].step(chat.text(reply))
            answer = envs[i].take()
            if answer.over:
                engine.release(i)
                active.remove(i)
            else:
                ids[i] += chat.follow(reply[-1], answer.observation)
    return tokens


def timed(call: Callable[[], int], tokens: int) -> float:
    """Tokens a second; the call must sample as many as it did before."""
    began = time.perf_counter()
    assert call() == tokens
    return tokens / (time.perf_counter() - began)


def ragged(kind: str) -> Callable[[int, int], int]:
    """A reply's length by trajectory and turn: uniform, or log-normal (median 24, sigma 0.8), 4 to
    128 tokens."""

    def length(id: int, turn: int) -> int:
        rng = np.random.default_rng([7, id, turn])
        drawn = rng.uniform(4, 96) if kind == "uniform" else rng.lognormal(np.log(24), 0.8)
        return int(min(LONGEST, max(4, drawn)))

    return length


def row(name: str, ours: list[float], other: list[float], hits: float | None, wanted: str) -> None:
    """Print a line of the table; the ratio is the median of the pairs'."""
    ratio = statistics.median(a / b for a, b in zip(ours, other, strict=True))
    shown = "-" if hits is None else f"{hits:.1%}"
    print(
        f"| {name} | {statistics.median(ours):,.0f} tokens/s | {statistics.median(other):,.0f} tokens/s | "
        f"{ratio:.2f} | {shown} | {wanted} |",
        flush=True,
    )


def against_offline(engine: Measured, chat: Chat, turns: int, repeats: int) -> None:
    """Greedy on both sides, so that the same replies are written and the same prefixes are cached."""
    # Random weights write nothing readable, so every trajectory has all its turns.
    rollout = Rollout(
        engine,
        chat,
        EnvSpec("ragen_lite/Sokoban-v0", {"max_turns": turns, "max_actions_per_turn": 12}),
        0,
    )
    starts = [Start(seed) for seed in range(TRAJECTORIES)]

    def ours() -> int:
        engine.begin()
        return tokens_sampled(rollout.play(starts, Sampling(0.0, REPLY)))

    def theirs() -> int:
        return offline(engine, requests, turns)

    tokens = ours()
    requests = {i: list(r) for i, r in engine.requests.items()}
    engine.reset_metrics()
    a = []
    b = []
    for _ in range(repeats):
        a.append(timed(ours, tokens))
        engine.begin()
        b.append(timed(theirs, tokens))
    name = f"rollout / LLM.generate, {TRAJECTORIES} trajectories of {turns} turn{'s' * (turns > 1)}"
    row(name, a, b, engine.metrics().get("rollout/prefix_hits"), "0.95")


def against_barrier(engine: Measured, chat: Chat, kind: str, repeats: int) -> None:
    spec = EnvSpec("ragen_lite/Sokoban-v0", {"max_turns": 8, "max_actions_per_turn": 12})
    rollout = Rollout(engine, chat, spec, 0)
    starts = [Start(seed) for seed in range(TRAJECTORIES)]
    engine.lengths = ragged(kind)

    def ours() -> int:
        engine.begin()
        return tokens_sampled(rollout.play(starts, Sampling(0.0, LONGEST)))

    def waiting() -> int:
        engine.begin()
        return barrier(engine, chat, spec, starts, Sampling(0.0, LONGEST))

    tokens = ours()
    engine.reset_metrics()
    a = []
    b = []
    hits = None
    for _ in range(repeats):
        engine.reset_metrics()
        a.append(timed(ours, tokens))
        hits = engine.metrics().get("rollout/prefix_hits")
        b.append(timed(waiting, tokens))
    row(f"rollout / turn barrier, 8 turns, {kind} reply lengths", a, b, hits, "1.3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    tokenizer = scratch.load_tokenizer()
    chat = Chat(tokenizer)
    model = scratch.make_model(tokenizer, hidden=96, layers=4, heads=3, context=4096).eval()
    options_of_vllm = {"gpu_memory_utilization": 0.2}
    engine = Measured(
        EngineSetup(model, chat.stop_ids, 4096, TRAJECTORIES, options=options_of_vllm)
    )
    engine.load_weights(model.named_parameters(), 0)
    print("| | ours | other | ratio | prefix hits | wanted |\n|---|---|---|---|---|---|")
    for turns in (1, 4, 8):
        against_offline(engine, chat, turns, options.repeats)
    for kind in ("uniform", "log-normal"):
        against_barrier(engine, chat, kind, options.repeats)
    engine.close()


if __name__ == "__main__":
    main()
