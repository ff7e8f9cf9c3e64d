"""What a GPU does: arithmetic, memory of the loss, MFU of a step, tokens a second, the default demonstration.

python -m benchmarks.gpu [--out benchmarks/gpu.json] [--small] [--skip demonstration ...]

It writes one JSON as it goes, from which the table of RESULTS.md is made (make docs). Under ten minutes on one card. ``--small`` takes
tiny shapes, to see that it works; without a card that is all it does. vLLM's part is measured where vLLM is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.engine import conversations, play
from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.algorithms.losses import PPO
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.learner import Learner, Optim
from ragen_lite.learning.scoring import casting, scorer

OUT = Path(__file__).with_name("gpu.json")
VOCABULARY = 151_936  # Qwen2.5's
# Dense bfloat16, without sparsity, as the makers state it.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
CONCURRENT = (64, 128, 256, 512)


@dataclass(frozen=True)
class Shape:
    """A Qwen2 of random weights."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = VOCABULARY

    def make(self, device: str) -> Any:
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=self.vocabulary, hidden_size=self.hidden, intermediate_size=self.inner,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            max_position_embeddings=4096, tie_word_embeddings=True,
        )  # fmt: skip
        with torch.device(device):
            return Qwen2ForCausalLM(config).eval()


SMALL_SHAPE = Shape("small", 64, 128, 2, 4, 2, vocabulary=2048)
SHAPES = (Shape("0.5B", 896, 4864, 24, 14, 2), Shape("1.5B", 1536, 8960, 28, 12, 2))


def samples_of(count: int, length: int, vocabulary: int) -> list[Sample]:
    """Conversations of random tokens, three quarters of them sampled."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        mask = np.arange(length) >= length // 4
        ids = rng.integers(3, vocabulary, length)
        made.append(
            Sample(ids, mask, np.where(mask, -np.log(vocabulary), 0.0), mask * rng.normal(), mask)
        )
    return made


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def arithmetic(shape: Shape, device: str) -> dict[str, float]:
    """How far log-probs in bfloat16 are from those in float32, the weights being the same."""
    model = shape.make(device)
    samples = samples_of(8, 256, shape.vocabulary)
    exact = np.concatenate(scorer(model, 1.0)(samples))
    coarse = np.concatenate(scorer(model, 1.0, casting(model, autocast=True))(samples))
    gaps = np.abs(exact - coarse)
    return {"mean_gap": float(gaps.mean()), "largest_gap": float(gaps.max())}


def loss_memory(device: str, tokens: int = 16_384) -> dict[str, float]:
    """Peak memory of one step's loss over a large vocabulary, beside what its logits alone would take."""
    shape = Shape("narrow", 64, 128, 1, 4, 2)
    model = shape.make(device)
    learner = Learner(model, Optim(lr=1e-5, steps=2, microbatch_tokens=tokens), autocast=True)
    samples = samples_of(tokens // 1024, 1024, shape.vocabulary)
    learner.step(samples, [1.0] * len(samples), PPO())
    whole = 4.0 * sum(sample.trained for sample in samples) * shape.vocabulary
    if device != "cuda":
        return {"tokens": tokens, "whole_logits_bytes": whole}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    learner.step(samples, [1.0] * len(samples), PPO())
    peak = torch.cuda.max_memory_allocated() - before
    return {"tokens": tokens, "peak_bytes": float(peak), "whole_logits_bytes": whole}


def peak_flops() -> float | None:
    """Of the card, where it is one of those known here."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((flops for card, flops in PEAK_FLOPS.items() if card in name), None)


def learner_step(
    shape: Shape, device: str, count: int, length: int, repeats: int = 3
) -> dict[str, Any]:
    """Tokens a second of an optimiser step in bfloat16, and its share of the card's peak (MFU).

    Six floating-point operations a parameter and token are counted, and nothing for attention.
    """
    model = shape.make(device)
    parameters = sum(p.numel() for p in model.parameters())
    learner = Learner(model, Optim(lr=1e-6, steps=10, microbatch_tokens=16_384), autocast=True)
    samples = samples_of(count, length, shape.vocabulary)
    weights = [1.0] * count
    learner.step(samples, weights, PPO())
    synchronise(device)
    began = time.perf_counter()
    for _ in range(repeats):
        learner.step(samples, weights, PPO())
    synchronise(device)
    seconds = (time.perf_counter() - began) / repeats
    rate = count * length / seconds
    peak = peak_flops()
    mfu = None if peak is None else 6 * parameters * rate / peak
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"parameters": parameters, "tokens_per_second": rate, "mfu": mfu, "peak_bytes": memory}


def engine_rates(
    shape: Shape, device: str, counts: tuple[int, ...], reply: int
) -> dict[str, float]:
    """Tokens sampled a second by the torch engine, by how many trajectories are under way: two turns each."""
    model = shape.make(device)
    found = {}
    for count in counts:
        setup = EngineSetup(model, frozenset(), 1024, count, cast=casting(model, autocast=True))
        engine = TorchEngine(setup)
        talks = conversations(2, count, 100, reply, shape.vocabulary)
        play(engine, talks, reply)
        synchronise(device)
        began = time.perf_counter()
        sampled = play(engine, talks, reply)
        synchronise(device)
        found[str(count)] = sampled / (time.perf_counter() - began)
        engine.close()
    return found


def vllm_rates(shape: Shape, counts: tuple[int, ...], reply: int) -> dict[str, float] | None:
    """The same of vLLM, where it is installed."""
    if importlib.util.find_spec("vllm") is None:
        return None
    from ragen_lite.agents.engines.vllm import VLLMEngine

    model = shape.make("cuda")
    engine = VLLMEngine(EngineSetup(model, frozenset(), 1024, max(counts), dtype="bfloat16"))
    engine.load_weights(model.named_parameters(), 0)
    found = {}
    for count in counts:
        talks = conversations(2, count, 100, reply, shape.vocabulary)
        began = time.perf_counter()
        found[str(count)] = play(engine, talks, reply) / (time.perf_counter() - began)  # type: ignore[arg-type]
    engine.close()
    return found


def demonstration(steps: int) -> dict[str, Any]:
    """The default run, in one shard: how long it takes, and its success before and after."""
    with tempfile.TemporaryDirectory() as cwd:
        line = [
            sys.executable,
            "-m",
            "ragen_lite.train",
            "env=sokoban",
            "engine.shard=null",  # shards are for cores
            f"train.steps={steps}",
            f"run.dir={cwd}",
        ]
        began = time.perf_counter()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"failed": done.stderr[-2000:]}
        (made,) = Path(cwd).glob("*")
        rates = re.findall(r"(before|after), sampled: success ([0-9.]+)%", done.stdout)
        rows = [json.loads(row) for row in (made / "metrics.jsonl").read_text().splitlines()]
        gaps = [row["train/logprob_gap"] for row in rows if "train/logprob_gap" in row]
    success = {f"success_{when}": float(rate) / 100 for when, rate in rates}
    seconds = time.perf_counter() - began
    return {"steps": steps, "seconds": seconds, "largest_logprob_gap": max(gaps), **success}


def measure(small: bool, skip: Sequence[str] = (), out: Path | None = None) -> dict[str, Any]:
    """All of it but what is skipped, as JSON; ``out`` has at any time what is measured by then."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = (SMALL_SHAPE,) if small else SHAPES
    counts = (4, 8) if small else CONCURRENT
    size = (4, 64) if small else (64, 1024)
    reply = 8 if small else 100
    card = torch.cuda.get_device_name() if device == "cuda" else "none"
    found: dict[str, Any] = {
        "card": card,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    steps: list[tuple[str, Any]] = [
        ("arithmetic", lambda: arithmetic(shapes[0], device)),
        ("loss_memory", lambda: loss_memory(device, 1024 if small else 16_384)),
        *((f"learner_{s.name}", lambda s=s: learner_step(s, device, *size)) for s in shapes),
        ("engine", lambda: engine_rates(shapes[0], device, counts, reply)),
        ("vllm", lambda: vllm_rates(shapes[0], counts, reply) if device == "cuda" else None),
        ("demonstration", lambda: demonstration(1 if small else 80)),
    ]
    for name, step in steps:
        print(f"{name} ...", flush=True)
        found[name] = None if name in skip else step()
        print(f"{name}: {found[name]}", flush=True)
        if out is not None:
            out.write_text(json.dumps(found, indent=1) + "\n")
        if device == "cuda":
            torch.cuda.empty_cache()
    return found


def table(found: dict[str, Any] | None) -> list[str]:
    """A row a measurement."""
    if found is None:
        return ["No card has been measured yet: `make bench-gpu` on one fills this table."]
    gaps = found["arithmetic"]
    memory = found["loss_memory"]
    shown = found.get("demonstration")
    lines = [f"| {found['card']}, torch {found['torch']}, transformers {found['transformers']} | |"]
    lines.append("|---|---|")
    text = f"{gaps['mean_gap']:.2g} in the mean, {gaps['largest_gap']:.2g} at most"
    lines.append(row("bfloat16 against float32, nats a token", text))
    text = f"{memory['peak_bytes'] / 1e9:.1f} GB; the logits alone, whole, {memory['whole_logits_bytes'] / 1e9:.1f} GB"
    lines.append(row(f"memory of a loss over {memory['tokens']:,} tokens of 151,936", text))
    for name, step in found.items():
        if name.startswith("learner_") and step is not None:
            mfu = "unknown" if step["mfu"] is None else f"{step['mfu']:.1%}"
            text = f"{step['tokens_per_second']:,.0f} tokens/s, MFU {mfu}, {step['peak_bytes'] / 1e9:.1f} GB"
            lines.append(row(f"learner's step, {name.removeprefix('learner_')}", text))
    for name in ("engine", "vllm"):
        if found.get(name):
            rates = ", ".join(f"{count}: {rate:,.0f}" for count, rate in found[name].items())
            which = "torch engine" if name == "engine" else "vLLM"
            lines.append(row(f"{which}, tokens/s by trajectories under way", rates))
    if shown is None:
        return lines
    text = (
        f"{shown['steps']} steps in {shown['seconds']:.0f} s, success {shown['success_before']:.1%} to "
        f"{shown['success_after']:.1%}"
    )
    lines.append(row("the default demonstration", text))
    return lines


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--skip", nargs="*", default=[], help="what is not to be measured")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.small:
        print("there is no GPU here: nothing is measured (--small shows that it works)")
        return
    measure(given.small, given.skip, None if given.small else given.out)
    if not given.small:
        print(f"written: {given.out}; make docs puts it into RESULTS.md")


if __name__ == "__main__":
    main()
