"""Folders of other families, and LoRA, by the command line: trained, killed, resumed to the same bytes, and evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import families
from tests.fixtures.commands import run
from tests.fixtures.runs import contents, folder, rows

LINE = (
    "env=bandit", "train.groups=3", "train.group_size=4", "train.mini_batches=2", "train.steps=3", "filter=none",
    "eval.instances=4", "eval.every=0", "sample.max_tokens=16", "run.save_every=1", "train.lr=1e-3", "kl=k3",
)  # fmt: skip
KINDS = ("several ends", "window", "mixture of experts", "capped logits", "lora")
FAMILIES = {
    "several ends": "qwen3",
    "window": "mistral",
    "mixture of experts": "qwen3_moe",
    "capped logits": "gemma2",
}


def arguments(kind: str, tokenizer: Any, path: Path) -> list[str]:
    """What makes a command train such a model."""
    if kind == "lora":
        return ["model=tiny", "model.lora_rank=2"]
    model = families.make(FAMILIES[kind])
    if kind == "several ends":
        ends = ("<|im_end|>", "<|endoftext|>")
        model.generation_config.eos_token_id = [
            tokenizer.convert_tokens_to_ids(end) for end in ends
        ]
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return [f"model={path}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.gate if k == "lora" else ()) for k in KINDS]
)
def test_a_model_is_trained_resumed_and_evaluated(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    line = [*LINE, *arguments(kind, tokenizer, tmp_path / "model")]
    (tmp_path / "whole").mkdir()
    whole = run("train", *line, cwd=tmp_path / "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    made = folder(tmp_path / "whole")
    assert all(row["train/logprob_gap"] < 1e-4 for row in rows(made)[1:])
    copy = tmp_path / "again" / "runs" / made.name
    shutil.copytree(made, copy)
    for step in (2, 3):
        shutil.rmtree(copy / "checkpoints" / f"step-{step}")
    (copy / "after.json").unlink()
    resumed = run("train", *line, "run.resume=auto", cwd=tmp_path / "again")
    assert resumed.returncode == 0 and "after step 1" in resumed.words, resumed.stderr
    assert contents(copy, 3) == contents(made, 3)
    saved = made / "checkpoints" / "step-3"
    measured = run(
        "evaluate",
        "env=bandit",
        f"model={saved}",
        "eval.instances=3",
        "sample.max_tokens=16",
        cwd=tmp_path,
    )
    assert measured.returncode == 0, measured.stderr


def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": null}'
    )
    result = run("evaluate", "env=bandit", f"model={tmp_path / 'a'}", cwd=tmp_path)
    assert (
        result.returncode == 2
        and "is a LoRA adapter that does not say which model" in result.stderr
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.lora_alpha=3", "does nothing without model.lora_rank"),
        ("model.lora_rank=-1", "must not be below 0"),
        ("model.date=today", "give YEAR-MONTH-DAY"),
    ],
)
def test_keys_of_a_model_are_refused_in_a_sentence(
    argument: str, message: str, tmp_path: Path
) -> None:
    result = run("train", "env=bandit", argument, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr


def test_what_is_not_trained_has_no_lora_of_its_own(tmp_path: Path) -> None:
    result = run("evaluate", "env=bandit", "model.lora_rank=2", cwd=tmp_path)
    assert "model.lora_rank does nothing in evaluate" in result.stderr
