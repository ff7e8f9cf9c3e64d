"""CONTRIBUTING's table, done: toys are added to a copy of the tree, one file and one line each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.commands import environment

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = {
    "toy_task": "envs/games/larger.py",
    "toy_advantage": "ragen_lite/algorithms/half_best.py",
    "toy_loss": "ragen_lite/algorithms/plain.py",
    "toy_engine": "agents/engines/one_slot.py",
    "toy_metric": "ragen_lite/runs/longest.py",
}
# Where a line goes: behind the opening of its table.
TABLES = {
    "ragen_lite/Larger-v0": "TASKS = {\n",
    "half_best": "ADVANTAGES = {\n",
    "plain": "LOSSES = {\n",
    "one_slot": "ENGINES = {\n",
    "rollout/longest": "METRICS = {\n",
}


def block(name: str) -> str:
    """A block of CONTRIBUTING by the name behind its language."""
    found = re.search(rf"```\w+ {name}\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert found, f"CONTRIBUTING has no block {name}"
    return found[1]


def in_copy(tree: Path, *line: str) -> subprocess.CompletedProcess[str]:
    env = environment() | {"PYTHONPATH": str(tree)}
    return subprocess.run(
        [sys.executable, *line], cwd=tree, env=env, capture_output=True, text=True
    )


def snapshot(tree: Path) -> dict[str, str]:
    """The text of every file of ours that a hand may touch."""
    paths = [p for kind in ("*.py", "*.yaml", "*.toml", "*.md", "*.json") for p in tree.rglob(kind)]
    own = [p for p in paths if not any(q.is_symlink() for q in (p, *p.parents))]
    return {p.relative_to(tree).as_posix(): p.read_text(encoding="utf-8") for p in own}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with every toy in it, its generated parts made by their targets."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "runs.tmp", "__pycache__", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    before = snapshot(copy)
    for name, path in FILES.items():
        (copy / path).write_text(block(name))
    for line in block("lines").splitlines():
        path, entry = line.split(maxsplit=1)
        table = TABLES[entry.split('"')[1]]
        text = (copy / path).read_text()
        assert text.count(table) == 1, f"{path} has no {table!r}"
        (copy / path).write_text(text.replace(table, f"{table}    {entry}\n"))
    (copy / "configs" / "recipe" / "toy.yaml").write_text(
        "# @package _global_\n# A recipe of a test.\nenv:\n  id: ragen_lite/Larger-v0\n"
    )
    touched(before, snapshot(copy))
    for target in (["-m", "benchmarks.instances", "--new"], ["docs/make.py"]):
        made = in_copy(copy, *target)
        assert made.returncode == 0, made.stderr
    return copy


def touched(before: dict[str, str], after: dict[str, str]) -> None:
    """One new file each, and one line each in a file that was there."""
    new = sorted(after.keys() - before.keys())
    assert new == sorted([*FILES.values(), "configs/recipe/toy.yaml"])
    changed = {name for name in before if before[name] != after[name]}
    lines = 0
    for name in changed:
        old = before[name].splitlines()
        added = [line for line in after[name].splitlines() if line not in old]
        lines += len(added)
        assert len(after[name].splitlines()) - len(old) == len(added)
    assert lines == len(FILES), f"{lines} lines in {sorted(changed)} for {len(FILES)} toys"


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(600)
def test_the_toys_train_together(tree: Path, tmp_path: Path) -> None:
    line = [
        *("recipe=toy", "credit=half_best", "credit.share=0.25", "loss=plain", "loss.slope=2"),
        *("engine=one_slot", "filter=none", "model.path=scratch:32x1x4", "train.steps=1"),
        *("train.groups=2", "train.group_size=4", "eval.instances=2", f"run.dir={tmp_path}"),
    ]
    result = in_copy(tree, "-m", "ragen_lite.train", *line)
    assert result.returncode == 0, result.stdout + result.stderr
    (metrics,) = tmp_path.glob("*/metrics.jsonl")
    assert '"rollout/longest": 1.0' in metrics.read_text()
    (config,) = tmp_path.glob("*/config.yaml")
    text = config.read_text()
    for value in ("name: half_best", "share: 0.25", "name: plain", "slope: 2.0", "name: one_slot"):
        assert value in text
    unknown = in_copy(tree, "-m", "ragen_lite.train", "credit=half_best", "credit.normalize=true")
    assert "credit.normalize does nothing with credit=half_best" in unknown.stderr
    help_text = in_copy(tree, "-m", "ragen_lite.train", "--help").stdout
    assert "The share of the best return that is taken off." in help_text


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(600)
def test_every_test_of_the_suite_passes_with_the_toys(tree: Path) -> None:
    """The toy task's contract, and the tests that look at every file, table or document."""
    suites = [
        "tests/test_layout.py",
        "tests/test_style.py",
        "tests/envs/test_fuzz.py",
        "tests/ragen_lite/config",
        "tests/ragen_lite/algorithms",
        "tests/ragen_lite/models",
        "tests/ragen_lite/test_readme.py",
    ]
    result = in_copy(tree, "-m", "pytest", "-n", "2", *suites)
    assert result.returncode == 0, result.stdout[-3000:]
    line = ["-n", "0", "tests/envs/test_contract.py", "-k", "Larger"]
    contract = in_copy(tree, "-m", "pytest", *line)
    assert contract.returncode == 0, contract.stdout[-3000:]
    passed = re.search(r"(\d+) passed", contract.stdout)
    assert passed and int(passed[1]) >= 14, contract.stdout
