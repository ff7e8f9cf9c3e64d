"""One step of the learner against one of TRL's GRPOTrainer on the same tokens: seconds and memory.

python -m benchmarks.memory                                     # 4 rows of 512 tokens
python -m benchmarks.memory --tokens 4 256 --completion 128 --cases full lora --json memory.json
python -m benchmarks.memory --small                             # a tiny model, in seconds

The model has the shape of Qwen2.5-0.5B and random weights. The tokens, the log-probs that they were
sampled with and the advantages are drawn beforehand, so nothing is sampled: a step is forward pass,
PPO's clipped loss without KL, backward pass, clipping and AdamW, on a CPU, in float32. Each side has
a process of its own for each case and makes two steps. The seconds are the second one's. Losses and
gradient norms of both must be alike to 1e-3, or the run fails.

The peak is the most memory resident during the steps, less what was before the model was loaded. It
is the kernel's VmHWM, set back once the model is there: ``ru_maxrss`` of a child begins at its
parent's and has the peak of loading in it, which is the same call on both sides. ``state`` is what
weights, gradients and moments have by the sizes of their tensors; ``beyond`` is the rest.

Ours is ``Learner.step`` of a learner as ``ragen_lite.train`` makes it; theirs is ``GRPOTrainer.train``
whose ``_generate_and_score_completions`` gives the tokens, in one micro-batch like ours.

What is not equal, and for whom it is:

- Without Triton, so on every CPU, TRL's head scores the prompts' positions too; on a GPU it leaves
  them out as ours always does. For ours. ``--completion`` one less than the tokens makes it equal.
- Rows that have one prompt (the case ``prompt``) are ours to read once; TRL reads each.
- With moments of 8 bits, transformers keeps those of the embedding in 32 bits. For ours in memory.
- Beside weights of 4 bits TRL would have LoRA's matrices in bfloat16; here they stay float32, like
  ours, or the gradients would not be alike. For neither: they are small, and a CPU gains nothing.
- TRL's model is in training mode, ours never is; this model has no dropout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.memory_sides import Case, Measured, draw_tokens, run
from benchmarks.trl_side import library
from ragen_lite.models.scratch import TINY

SIDES = ("ours", "TRL")
ALIKE = 1e-3  # losses and gradient norms, relative
GB = 1e9

# Qwen2.5-0.5B's config.json, and one of the same family that takes a moment.
QWEN = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
}
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 1024,
}

CASES = {
    "full": Case("all weights"),
    "prompt": Case("all weights, one prompt", prompt=True),
    "blocks": Case("all weights, blocks computed again", again=True),
    "adamw8": Case("all weights, AdamW of 8 bits", optimizer="adamw_8bit"),
    "lora": Case("LoRA", rank=16),
    "qlora": Case("QLoRA, blocks computed again", again=True, rank=16, quantize="nf4"),
}

Pair = dict[str, Measured | str]  # by side; a text where a side could not be measured


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of numbers that should be the same.

    >>> difference([1.0, 2.0], [1.0, 2.5])
    0.2
    """
    pairs = zip(ours, theirs, strict=True)
    return max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in pairs)


def unlike(pair: Pair) -> float:
    """How far losses and gradient norms of a case are apart; 0 where a side is missing."""
    ours, theirs = (pair[side] for side in SIDES)
    if isinstance(ours, str) or isinstance(theirs, str):
        return 0.0
    return max(difference(ours.losses, theirs.losses), difference(ours.norms, theirs.norms))


# ---- the table ----


def trio(ours: float, theirs: float, form: str) -> list[str]:
    """Ours, theirs, and their ratio.

    >>> trio(1.0, 4.0, ".1f")
    ['1.0', '4.0', '**0.25**']
    """
    ratio = f"**{ours / theirs:.2f}**" if theirs > 0 else "-"
    return [format(ours, form), format(theirs, form), ratio]


HEADER = """| case | CPU s, ours | TRL | ours / TRL | wall s, ours | TRL | peak GB, ours | TRL | ours / TRL \
| state GB, ours | TRL | beyond GB, ours | TRL | ours / TRL | unlike |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def row_of(case: Case, pair: Pair) -> str:
    """A case's row of the table, or what kept it from being measured."""
    ours, theirs = (pair[side] for side in SIDES)
    if isinstance(ours, str) or isinstance(theirs, str):
        failed = [f"{side}: {told}" for side, told in pair.items() if isinstance(told, str)]
        return f"| {case.told} | {'; '.join(failed)} |"
    cells = [
        case.told,
        *trio(ours.cpu[-1], theirs.cpu[-1], ".2f"),
        *trio(ours.wall[-1], theirs.wall[-1], ".2f")[:2],
        *trio(ours.peak / GB, theirs.peak / GB, ".2f"),
        *trio(ours.state / GB, theirs.state / GB, ".2f")[:2],
        *trio((ours.peak - ours.state) / GB, (theirs.peak - theirs.state) / GB, ".2f"),
        f"{unlike(pair):.0e}",
    ]
    return f"| {' | '.join(cells)} |"


# ---- the processes ----


def make_model(folder: str, shape: dict[str, int]) -> None:
    """Save a model of random weights, with the embedded model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = AutoConfig.for_model(
        "qwen2",
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def in_child(side: str, name: str, options: argparse.Namespace, folder: str) -> Measured | str:
    """A side of a case, measured in a process of its own; its last words where it failed."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", side, name, folder]
    command += ["--tokens", *map(str, options.tokens), "--completion", str(options.completion)]
    command += ["--threads", str(options.threads)] + ["--small"] * options.small
    done = subprocess.run(command, capture_output=True, text=True, env=environment(options.threads))
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode:
        return lines[-1] if lines else f"ended with {done.returncode}"
    # The libraries may print before it.
    return Measured(**json.loads(lines[-1]))


def environment(threads: int) -> dict[str, str]:
    """A child's: as many threads of OpenMP as of torch, since bitsandbytes has its own."""
    told = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **told}


def child(side: str, name: str, options: argparse.Namespace, folder: str) -> None:
    """Print what a side of a case measures."""
    torch.set_num_threads(options.threads)
    case = CASES[name]
    rows, length = options.tokens
    vocabulary = shape_of(options)["vocab_size"]
    tokens = draw_tokens(rows, length, options.completion, vocabulary, case.prompt)
    print("\n" + json.dumps(asdict(run(side, case, tokens, folder))))


def shape_of(options: argparse.Namespace) -> dict[str, int]:
    """The model's."""
    return SMALL if options.small else QWEN


def compare(options: argparse.Namespace) -> dict[str, Pair]:
    """Measure the cases, one process at a time; print and write each once it is there."""
    rows, length = options.tokens
    print(f"TRL {library().__version__} and ours, float32 on a CPU, threads: {options.threads};")
    print(f"{rows} rows of {length} tokens, the last {options.completion} trained; step 2 of 2\n")
    print(HEADER, flush=True)
    pairs: dict[str, Pair] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(folder, shape_of(options))
        for name in options.cases:
            pairs[name] = {side: in_child(side, name, options, folder) for side in SIDES}
            print(row_of(CASES[name], pairs[name]), flush=True)
            if options.json:
                options.json.write_text(as_json(options, pairs, library().__version__) + "\n")
    return pairs


def as_json(options: argparse.Namespace, pairs: dict[str, Pair], version: str) -> str:
    """All that was measured, against a version of TRL."""
    asked = {name: getattr(options, name) for name in ("tokens", "completion", "threads", "small")}
    cases = {
        name: {
            side: told if isinstance(told, str) else {**asdict(told), "state": told.state}
            for side, told in pair.items()
        }
        for name, pair in pairs.items()
    }
    return json.dumps({"trl": version, **asked, "cases": cases}, indent=1)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with the defaults of the size that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", nargs=2, type=int, metavar=("ROWS", "LENGTH"))
    parser.add_argument("--completion", type=int, help="how many of a row are trained, the last")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a tiny model, in seconds")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.tokens = options.tokens or ([4, 160] if options.small else [4, 512])
    options.completion = options.completion or options.tokens[1] // 2
    if not 0 < options.completion < options.tokens[1]:
        parser.error("--completion: at least one token, and fewer than a row has")
    return options


def main() -> None:
    """Measure, print, and fail where the two sides did not do the same work."""
    options = parse()
    if options.child:
        side, name, folder = options.child
        child(side, name, options, folder)
        return
    pairs = compare(options)
    wrong = [name for name, pair in pairs.items() if unlike(pair) > ALIKE]
    if wrong:
        raise SystemExit(f"losses or gradient norms are not alike: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
