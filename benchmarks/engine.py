"""The torch engine and the rollout loop, each as a ratio within one run.

python benchmarks/engine.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ragen_lite.agents.engines.draws import draw_key
from ragen_lite.agents.engines.protocol import EngineSetup, Request
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start
from ragen_lite.config.schema import ModelConfig
from ragen_lite.models.loading import load_policy
from ragen_lite.runs.summaries import tokens_sampled

REPEATS = 5


class Recorder(TorchEngine):
    """A TorchEngine that notes the requests of a rollout, for the bare engine to serve again."""

    def __init__(self, setup: EngineSetup) -> None:
        super().__init__(setup)
        self.requests: dict[int, list[Request]] = {}

    def submit(self, request: Request) -> None:
        self.requests.setdefault(request.id, []).append(request)
        super().submit(request)


def serve(engine: TorchEngine, requests: dict[int, list[Request]]) -> int:
    """The bare engine: each trajectory's next recorded request as soon as its last is answered;
    tokens sampled."""
    turn = dict.fromkeys(requests, 0)
    for id in requests:
        engine.submit(requests[id][0])
    tokens = 0
    left = len(requests)
    while left:
        for id, completion in engine.step():
            tokens += len(completion.token_ids)
            turn[id] += 1
            if turn[id] < len(requests[id]):
                engine.submit(requests[id][turn[id]])
            else:
                engine.release(id)
                left -= 1
    return tokens


def timed(call: Callable[[], int]) -> float:
    """Tokens a second."""
    began = time.perf_counter()
    tokens = call()
    return tokens / (time.perf_counter() - began)


def loop_against_engine(policy: Any) -> None:
    """Rollout through environment and dialogue against the bare engine on the very same requests,
    alternating."""
    engine = Recorder(EngineSetup(policy.model, policy.chat.stop_ids, policy.max_model_len))
    rollout = Rollout(engine, policy.chat, EnvSpec("ragen_lite/Sokoban-v0"), 0)
    starts = [Start(seed, member=m, group=seed) for seed in range(20) for m in range(8)]

    def whole() -> int:
        engine.requests = {}
        return tokens_sampled(rollout.play(starts, Sampling(1.0, 48)))

    whole()
    ours = []
    bare = []
    for _ in range(REPEATS):
        ours.append(timed(whole))
        bare.append(
            timed(lambda: serve(engine, {id: list(r) for id, r in engine.requests.items()}))
        )
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    print(
        f"| rollout through Sokoban and dialogue / bare engine, same requests | {statistics.median(ours):,.0f} tokens/s | "
        f"{statistics.median(bare):,.0f} tokens/s | {ratio:.2f} | 0.9 |"
    )


def conversations(turns: int, n: int, prompt: int, reply: int, vocab: int) -> list[list[list[int]]]:
    """Message tokens of n conversations, turn by turn."""
    rng = np.random.default_rng(0)
    return [[rng.integers(300, vocab, prompt).tolist() for _ in range(turns)] for _ in range(n)]


def play(engine: TorchEngine, talks: list[list[list[int]]], reply: int) -> int:
    """Fixed-length conversations on the engine."""
    history: list[list[int]] = [list(talk[0]) for talk in talks]
    turn = [0] * len(talks)
    sampling = Sampling(1.0, reply)

    def submit(i: int) -> None:
        engine.submit(Request(i, tuple(history[i]), sampling, draw_key(0, i, 0, turn[i])))

    for i in range(len(talks)):
        submit(i)
    left = len(talks)
    while left:
        for i, completion in engine.step():
            history[i] += completion.token_ids
            turn[i] += 1
            if turn[i] < len(talks[i]):
                history[i] += talks[i][turn[i]]
                submit(i)
            else:
                engine.release(i)
                left -= 1
    return sum(len(talk) for talk in talks) * reply


def generate(model: Any, talks: list[list[list[int]]], reply: int) -> int:
    """The same conversations with model.generate, which reads the whole history again each turn."""
    history: list[list[int]] = [[] for _ in talks]
    for turn in range(len(talks[0])):
        history = [h + talk[turn] for h, talk in zip(history, talks, strict=True)]
        ids = torch.tensor(history)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            min_new_tokens=reply,
            max_new_tokens=reply,
            eos_token_id=None,
        )
        history = out.tolist()
    return sum(len(talk) for talk in talks) * reply


def engine_against_generate(policy: Any) -> None:
    talks = conversations(8, 64, 40, 20, len(policy.tokenizer))
    engine = TorchEngine(EngineSetup(policy.model, frozenset(), policy.max_model_len))
    ours = []
    theirs = []
    for _ in range(3):
        ours.append(timed(lambda: play(engine, talks, 20)))
        theirs.append(timed(lambda: generate(policy.model, talks, 20)))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"| engine / model.generate, 64 conversations of 8 turns (40 tokens in, 20 out) | {statistics.median(ours):,.0f} "
        f"tokens/s | {statistics.median(theirs):,.0f} tokens/s | {ratio:.1f} | 2.5 |"
    )


def cost_of_turns(policy: Any) -> None:
    print(
        "\n| turns | tokens fed a trajectory | a turn | re-reading the history would feed |\n|---|---|---|---|"
    )
    for turns in (2, 4, 8, 16):
        engine = TorchEngine(EngineSetup(policy.model, frozenset(), policy.max_model_len))
        play(engine, [t for t in conversations(turns, 4, 40, 20, len(policy.tokenizer))], 20)
        again = sum(60 * k + 40 + 19 for k in range(turns))
        print(
            f"| {turns} | {engine.fed_tokens / 4:.0f} | {engine.fed_tokens / 4 / turns:.1f} | {again} |"
        )


def main() -> None:
    policy = load_policy(ModelConfig())
    print("| | ours | other | ratio | wanted |\n|---|---|---|---|---|")
    loop_against_engine(policy)
    engine_against_generate(policy)
    cost_of_turns(policy)


if __name__ == "__main__":
    main()
