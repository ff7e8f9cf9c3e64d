"""The benchmark of what is learnt beyond the demonstrations: its options, its table, and all of it once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.difficulty_table import gain, rate, table
from benchmarks.generalise import DIFFICULTIES, RECIPE, Study
from ragen_lite.envs.registry import check_options, find
from ragen_lite.models.scratch import load_tokenizer, make_model
from ragen_lite.runs.control import read_controls


def study(task: str, tmp_path: Path) -> Study:
    entry = yaml.safe_load(RECIPE.read_text())["env"]["kwargs"]["tasks"][task]
    return Study(task, entry, "tiny", (), ("1e-3",), 4, tmp_path, 1)


def test_easy_and_hard_instances_are_apart(tmp_path: Path) -> None:
    tasks = yaml.safe_load(RECIPE.read_text())["env"]["kwargs"]["tasks"]
    graded = [task for task in tasks if study(task, tmp_path).easy]
    assert {"sokoban", "rubik", "countdown", "knights_knaves"} <= set(graded)
    for task in graded:
        each = study(task, tmp_path)
        check_options(find(task), each.easy)
        check_options(find(task), each.hard)
    assert study("sokoban", tmp_path).hard == {"min_cost": 7}


def test_the_table_pairs_instances(tmp_path: Path) -> None:
    wins = [1.0, 0.0, 1.0, 1.0]
    lost = [1.0, 0.0, 0.0, 1.0]
    four = gain([wins, wins], [lost, lost], "abcd")
    assert four.startswith("+25.0% (+0.0% to +75.0%")
    # Where all are one instance, nothing tells how much another would differ.
    assert gain([wins], [lost], "aaaa") == "+25.0% (+25.0% to +25.0%)"
    assert rate(wins, "abcd") == "75.0% (30.1% to 95.4%)"
    assert rate(wins, "aabb") == "75.0% (25.6% to 96.3%)"
    better = {d: {"sampled": wins, "greedy": wins} for d in ("easy", "hard")}
    worse = {d: {"sampled": lost, "greedy": lost} for d in ("easy", "hard")}
    specs = {d: study("rubik", tmp_path).spec(d) for d in DIFFICULTIES}
    lines = table("rubik", specs, 4, {"base": [worse], "rl": [better, better]})
    assert (
        lines[3].startswith("| solver | | 100.0%")
        and "| rl | 1 | 75.0% (30.1% to 95.4%)" in lines[6]
    )
    assert lines[-3].startswith("| rl against base, paired | all | +25.0%")
    assert lines[-1] == "Of 4 draws of each difficulty, different instances: 3 easy, 3 hard"


def test_a_folder_is_of_one_base_and_one_set_of_flags(tmp_path: Path) -> None:
    study("rubik", tmp_path).begin()
    study("rubik", tmp_path).begin()
    other = replace(study("rubik", tmp_path), flags=("train.lr=1e-3",))
    with pytest.raises(SystemExit, match="take another --folder"):
        other.begin()
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"other weights")
    other = replace(study("rubik", tmp_path), model=str(base))
    with pytest.raises(SystemExit, match="take another --folder"):
        other.begin()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_it_once(tmp_path: Path) -> None:
    tokenizer = load_tokenizer()
    base = tmp_path / "base"
    make_model(tokenizer, 32, 1, 2).save_pretrained(base)
    tokenizer.save_pretrained(base)
    line = [
        sys.executable, "-m", "benchmarks.generalise", "rubik", "train.steps=1", "train.groups=2", "sample.max_tokens=16",
        "--model", str(base), "--seeds", "1", "--lr", "1e-3", "--instances", "2", "--folder", str(tmp_path),
        "--control", str(base),
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| rl against control_1e-3, paired | all |" in done.stdout
    (entry,) = read_controls(str(base)).values()
    assert len(entry["success"]["sampled"]) == 256 and "generalise rubik" in entry["command"]
    # What is finished is kept.
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (
        "is trained" in done.stdout
        and "is trained" not in again.stdout
        and "| control_1e-3 | 0 |" in again.stdout
    )
