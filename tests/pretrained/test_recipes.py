"""Recipes on a pretrained model: those whose task it can read, three short steps each."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragen_lite.models.smollm2 import smollm2_folder
from tests.fixtures.commands import run
from tests.fixtures.runs import folder, records, rows

pytestmark = [pytest.mark.pretrained, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def smollm2() -> None:
    try:
        smollm2_folder()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["grpo_demo", "mini_r1", "open_r1"])
def test_a_recipe_runs_on_smollm2(name: str, tmp_path: Path) -> None:
    line = [f"recipe={name}", "model=smollm2", "scale=smoke", "eval.instances=2"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    made = folder(tmp_path)
    assert [row["step"] for row in rows(made)][-1] == 3
    # What it writes is English, in its own chat template, behind what the recipe begins replies with.
    replies = [turn["reply"] for record in records(made, 1) for turn in record["turns"]]
    assert all(len(reply.split()) > 5 for reply in replies)
    if name == "mini_r1":
        assert all(reply.startswith("I work this out step by step.\n<think>") for reply in replies)


@pytest.mark.timeout(900)
def test_supervised_learning_on_traces_runs_on_smollm2(tmp_path: Path) -> None:
    line = ["recipe=open_thoughts", "model=smollm2", "scale=smoke", "eval.instances=2"]
    result = run("sft", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    losses = [row["train/loss"] for row in rows(folder(tmp_path)) if "train/loss" in row]
    assert len(losses) == 3 and all(0 < loss < 10 for loss in losses)
