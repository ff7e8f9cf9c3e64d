"""A run's folder: its name, its lock, and what a refused resume leaves."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import ConfigError, RunConfig
from ragen_lite.learning import checkpoint
from ragen_lite.runs.folder import Run, run_slug


@pytest.mark.parametrize(
    ("env_id", "slug"),
    [
        ("ragen_lite/Sokoban-v0", "sokoban-run"),
        ("my_package:MyEnv-v12", "myenv-run"),
        ("pkg:pkg/NoVer", "nover-run"),
        ("NoVer", "nover-run"),
    ],
)
def test_a_slug_is_one_part_of_a_path(env_id: str, slug: str) -> None:
    assert run_slug(env_id, "train", "run") == slug


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    config = RunConfig(dir=str(tmp_path))
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda _: Run.open(config, "sokoban-run", {"seed": 0}), range(40)))
    assert len({run.folder for run in runs}) == 40
    assert all((run.folder / "checkpoints").is_dir() for run in runs)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (f"run.name={'x' * 300}", "run.name='x.*1 to 100 characters without slashes"),
        ("run.name=a/b", "without slashes"),
        ("seed=99999999999999999999", "it must be below 2\\^63"),
    ],
)
def test_names_and_seeds_that_cannot_be(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([argument])


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Any) -> Path:
    """A run with a checkpoint of step 1 and a row of step 2."""
    from tests.ragen_lite.learning.test_checkpoint import learner

    run = Run.open(RunConfig(dir=str(tmp_path)), "sokoban-run", asdict(compose([])))
    checkpoint.save(run.folder / "checkpoints", 1, learner(tokenizer, 1), tokenizer)
    for step in (1, 2):
        run.log({"step": step})
        run.write_trajectories(step, [{"turns": []}])
    run._lock.close()
    return run.folder


def left(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_resume_that_is_refused_touches_nothing(saved: Path) -> None:
    before = left(saved)
    config = RunConfig(dir=str(saved.parent), resume="auto")
    with pytest.raises(ConfigError, match="seed .was 0, now 1"):
        Run.open(config, "sokoban-run", asdict(compose(["seed=1"])))
    assert left(saved) == before
    run = Run.open(config, "sokoban-run", asdict(compose([])))
    assert run.start == 1 and [row["step"] for row in run.metrics()] == [1]


@pytest.mark.parametrize("text", [None, "[1, 2", "- 1\n- 2\n"])
def test_a_configuration_that_is_gone_or_broken_is_said(saved: Path, text: str | None) -> None:
    (saved / "config.yaml").unlink()
    if text is not None:
        (saved / "config.yaml").write_text(text)
    config = RunConfig(dir=str(saved.parent), resume=str(saved))
    with pytest.raises(ConfigError, match="run.resume: .*config.yaml"):
        Run.open(config, "sokoban-run", asdict(compose([])))


def test_a_folder_has_one_process_at_a_time(saved: Path) -> None:
    """A second one is refused while the first lives, and let in when it has died."""
    pytest.importorskip("fcntl")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom ragen_lite.runs.folder import Run\n"
        "run = Run(Path(sys.argv[1])); run.lock(); print('held', flush=True); time.sleep(60)"
    )
    line = [sys.executable, "-c", code, str(saved)]
    config = RunConfig(dir=str(saved.parent), resume="auto")
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        before = left(saved)
        with pytest.raises(ConfigError, match="another process trains there"):
            Run.open(config, "sokoban-run", asdict(compose([])))
        assert left(saved) == before
        other.kill()
        other.wait()
    assert Run.open(config, "sokoban-run", asdict(compose([]))).start == 1


def test_a_full_disk_says_which_checkpoint_is_whole_and_cleans_up(
    saved: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ragen_lite.learning.test_checkpoint import learner

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(checkpoint.NotSaved, match=r"step 2 .*No space left.*step-1 is the newest"):
        checkpoint.save(saved / "checkpoints", 2, learner(tokenizer, 2), tokenizer)
    assert [path.name for path in (saved / "checkpoints").iterdir()] == ["step-1"]
