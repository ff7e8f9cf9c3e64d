"""A package of one's own: installed, found by name, trained on. One file and one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_env"
SMALL = [
    "train.steps=2",
    "train.groups=4",
    "train.group_size=4",
    "eval.instances=16",
    "eval.every=1",
    "filter=none",
]


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(300)
def test_the_example_package_is_installed_and_trained_on(tmp_path: Path) -> None:
    site, source = tmp_path / "site", tmp_path / "source"
    subprocess.run(
        ["cp", "-r", str(EXAMPLE), str(source)], check=True
    )  # building leaves files beside it
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    subprocess.run([*install, str(source)], check=True)
    paths = os.pathsep.join([str(site), *(p for p in sys.path if p)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def train(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "ragen_lite.train",
            *arguments,
            f"run.dir={tmp_path / 'runs'}",
        ]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path
        )

    result = train("env=guess_number", "highest=7", *SMALL)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert "val after step 1" in result.stdout and "solver" not in result.stdout  # it has none
    assert (
        "random" in result.stdout
        and json.loads((folder / "after.json").read_text())["rows"]["sampled"]["n"] == 16
    )
    assert "my_env:my_env/GuessNumber-v0" in (folder / "config.yaml").read_text()
    contract = [sys.executable, "-m", "pytest", "-q", str(EXAMPLE / "tests")]
    kept = subprocess.run(contract, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert kept.returncode == 0, kept.stdout
    wrong = train("env=guess_nunber")
    assert wrong.returncode == 2 and "did you mean guess_number" in wrong.stderr
    wrong = train("env=guess_number", "higest=7")
    assert (
        wrong.returncode == 2
        and "did you mean highest, which is an option of the task" in wrong.stderr
    )


def test_the_example_is_one_file_and_one_line() -> None:
    files = [
        p.relative_to(EXAMPLE)
        for p in EXAMPLE.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    ]
    assert {str(f) for f in files} == {
        "README.md",
        "pyproject.toml",
        "my_env/__init__.py",
        "tests/test_contract.py",
    }
    offered = (
        (EXAMPLE / "pyproject.toml")
        .read_text()
        .partition('"ragen_lite.envs"]')[2]
        .strip()
        .splitlines()
    )
    assert offered[0] == 'guess_number = "my_env:GuessNumber"'
