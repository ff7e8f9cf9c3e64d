"""The README's example environment is played and trained on as it is printed there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ragen_lite.config.command_line import compose

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.gate
def test_the_example_environment_runs(tmp_path: Path) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.S)
        if "class Guess" in block
    )
    (tmp_path / "guess.py").write_text(code)
    assert len(code.splitlines()) < 32
    lines = [
        line
        for line in README.splitlines()
        if line.startswith("python -m") and "env=guess:" in line
    ]
    assert len(lines) == 2
    for line in lines:
        small = (
            ["train.groups=2", "train.group_size=2", "train.mini_batches=1", "eval.instances=2"]
            if "train" in line
            else []
        )
        arguments = [sys.executable, "-W", "ignore", *line.split()[1:], *small]
        env = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
            input="10\n\n",
            timeout=110,
        )
        assert result.returncode == 0, result.stdout + result.stderr
    assert "Guess a number." in result.stdout or "success" in result.stdout


def test_the_line_of_an_entry_point_gives_it_a_short_name(tmp_path: Path) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.S)
        if "class Guess" in block
    )
    line = re.search(r'\[project.entry-points."ragen_lite.envs"\]\n(\w+) = "(.*)"', README)
    assert line is not None
    name, value = line.groups()
    (tmp_path / "guess.py").write_text(code)
    (tmp_path / "guess-1.dist-info").mkdir()
    (tmp_path / "guess-1.dist-info" / "METADATA").write_text("Name: guess\nVersion: 1\n")
    (tmp_path / "guess-1.dist-info" / "entry_points.txt").write_text(
        f"[ragen_lite.envs]\n{name} = {value}\n"
    )
    arguments = [
        sys.executable,
        "-m",
        "ragen_lite.evaluate",
        f"env={name}",
        "model=random",
        "eval.instances=2",
    ]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        arguments, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=110
    )
    assert result.returncode == 0 and "guess:guess/Guess-v0" in result.stdout, (
        result.stdout + result.stderr
    )


def test_the_documents_are_as_the_source_makes_them() -> None:
    line = [sys.executable, str(ROOT / "docs" / "make.py"), "--check"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_the_commands_of_the_cluster_can_be_composed() -> None:
    """Every line that trains, in the document and in the examples, is a configuration."""
    texts = [
        (ROOT / name).read_text(encoding="utf-8")
        for name in (
            "docs/cluster.md",
            "examples/cluster/slurm.sh",
            "examples/cluster/kuberay.yaml",
        )
    ]
    joined = "\n".join(texts).replace("\\\n", " ")
    # YAML folds the lines of its entry point.
    joined = re.sub(r"(\S)\n    (?=[a-z.]+=)", r"\1 ", joined)
    lines = re.findall(r"python -m ragen_lite\.train ([^\n`#]*)", joined)
    assert len(lines) >= 6
    for line in lines:
        words = [word for word in shlex.split(line) if "=" in word and "$" not in word]
        config = compose(words)
        assert config.engine.workers or config.engine.name == "vllm"


def test_the_names_of_files_in_the_documents_are_those_of_files() -> None:
    """A file that a document names in backticks is there."""
    documents = [
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
    ]
    for document in documents:
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(
            r"`((?:envs|agents|ragen_lite|configs|tests|benchmarks|docs|examples)/[a-z0-9_/.]+)`",
            text,
        ):
            assert (ROOT / name).exists(), f"{document} names {name}, which is not there"
