"""vLLM as a player of its own, in one of Ray's processes, beside a learner in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.runs import folder, rows
from tests.vllm.test_training import command

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_vllm_plays_in_a_process_of_rays_and_the_canary_reaches_it(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("vllm")
    line = (
        *("env=sokoban", "engine=vllm", "filter=none", "eval.every=0", "eval.instances=2"),
        *("train.groups=2", "train.group_size=4", "train.steps=3", "train.mini_batches=2"),
        *("engine.workers=1", "train.workers=1", "train.staleness=1"),
    )
    result = command("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Ray: started the cluster" in result.stdout
    steps = rows(folder(tmp_path))[1:]
    assert [row["rollout/age"] for row in steps] == [0, 1, 1]
    # The first batch is of the very weights that learn from it; later ones are a step older.
    assert steps[0]["train/logprob_gap"] < 1e-4 < steps[1]["train/logprob_gap"]
    assert all(row["train/probe_gap"] < 1e-5 for row in steps)
