"""ablate: what it trains, what it refuses to compare, how it goes on, and its table by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragen_lite.ablate import RunsFailed, check_runs, main, plan, values_of
from ragen_lite.config.schema import ConfigError
from ragen_lite.runs.ablation import Cell, Measured, interval, write_results
from tests.fixtures.runs import rows

BANDIT = (
    "env=bandit",
    "train.steps=2",
    "train.groups=2",
    "train.group_size=4",
    "train.mini_batches=2",
    "eval.every=0",
    "eval.instances=8",
    "sample.max_tokens=32",
)


def test_commas_in_brackets_and_quotes_divide_nothing() -> None:
    assert values_of("algo=grpo,rloo") == ["grpo", "rloo"]
    assert values_of("train.stages=[{from: 2, groups: 3}],[]") == ["[{from: 2, groups: 3}]", "[]"]
    assert values_of("data='a,b'") == ["'a,b'"]
    assert values_of("tasks=sokoban:2,countdown:1") == ["sokoban:2,countdown:1"]


def test_every_combination_is_a_cell_and_the_last_flag_is_compared() -> None:
    found = plan(["env=bandit,hanoi", "algo=grpo,ppo", "seed=0,1", "train.lr=1e-3", "jobs=2"])
    assert [cell.name("1") for cell in found.cells] == [
        "env-bandit_algo-grpo_seed-1",
        "env-bandit_algo-ppo_seed-1",
        "env-hanoi_algo-grpo_seed-1",
        "env-hanoi_algo-ppo_seed-1",
    ]
    assert [(cell.panel, cell.label) for cell in found.cells][2] == (("env=hanoi",), "algo=grpo")
    assert (found.seeds, found.fixed, found.jobs) == (["0", "1"], ["train.lr=1e-3"], 2)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (["env=bandit"], "nothing to compare"),
        (["algo=grpo,grpo"], "a value comes twice"),
        (["algo=grpo,rloo", "seed=1,1"], "seed=1,1: a value comes twice"),
        (["algo=grpo,rloo", "jobs=none"], "jobs=none: give the number"),
        (["algo=grpo,rloo", "jobs=1,2"], "jobs=1,2: give the number"),
        (["model=/a/b,/ab"], "two runs would have the same name"),
        (["algo=grpo,rloo", "run.name=x"], "run.name is the sweep's own"),
        (["algo=grpo,rloo", "--fast"], "--fast: give KEY=VALUE"),
    ],
)
def test_what_cannot_be_compared_is_refused(line: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        plan(line)


def test_every_cell_is_checked_before_anything_is_trained(tmp_path: Path) -> None:
    folder = f"run.dir={tmp_path / 'sweep'}"
    for line, why in (
        (["algo=nothing,grpo"], "algo=nothing: choose one of"),
        (["credit=gae,grpo"], "credit=gae reads a critic's values"),
        (["algo=grpo,rloo", "demos=solver"], "demos does nothing in train"),
    ):
        with pytest.raises(ConfigError, match=why):
            main([*BANDIT, *line, folder])
    assert not (tmp_path / "sweep").exists()


def made(root: Path, cell: Cell, seed: str, wins: list[int], tokens: int) -> None:
    """A finished run of four instances, as its files are."""
    cell.slugs[seed] = f"bandit-{cell.name(seed)}"
    folder = root / f"20260101-000000-{cell.slugs[seed]}"
    folder.mkdir(parents=True)
    measured: dict[str, Any] = {
        "success": {"sampled": wins, "greedy": [1, 0]},
        "instances": {"sampled": list("abcc"), "greedy": ["a", "b"]},
    }
    for name in ("before", "after"):
        (folder / f"{name}.json").write_text(json.dumps(measured))
    for name in ("random", "solver"):
        (folder / f"{name}.json").write_text(json.dumps({"rows": {name: {"success": 0.25}}}))
    steps = [
        {"step": i, "rollout/success": 0.5, "rollout/tokens": tokens, "rollout/reply_tokens": i}
        for i in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))


def test_the_table_is_paired_by_seed_and_instance(tmp_path: Path) -> None:
    cells = [Cell({"algo": name}) for name in ("grpo", "rloo")]
    for seed, first, second in (
        ("0", [1, 0, 0, 1], [1, 1, 0, 1]),
        ("1", [0, 0, 1, 1], [1, 1, 1, 1]),
    ):
        made(tmp_path, cells[0], seed, first, 50)
        made(tmp_path, cells[1], seed, second, 70)
    cells[0].slugs["2"] = cells[1].slugs["2"] = "never-ran"
    text = write_results(tmp_path, cells, ["0", "1", "2"])
    base, other = json.loads((tmp_path / "ablation.json").read_text())
    assert base["after"] == 4 / 8 and other["after"] == 7 / 8
    assert other["gain"] == 3 / 8 and other["tokens"] == 140
    low, high = other["gain_interval"]
    assert 0 <= low < 3 / 8 < high <= 1 and "gain" not in base
    assert other["reply_tokens"] == [1.5, 1.5] and other["reflection"] == []
    assert "| 140 | 1.5 to 1.5 |  |  |" in text
    assert (
        "| algo=rloo | 2/3 |" in text
        and "random policy 25.0%, solver 25.0%; a seed: 4 episodes of 3" in text
    )
    assert (tmp_path / "ablation.png").stat().st_size > 5000


def test_a_metrics_change_is_that_of_the_first_and_the_last_steps() -> None:
    rows: list[dict[str, Any]] = [{"x": None, "y": 7.0}, *({"x": float(i)} for i in range(12))]
    run = Measured({}, {}, rows, [])
    assert run.change("x") == [2.0, 9.0] and run.change("y") == [7.0, 7.0] and not run.change("z")


def test_runs_on_other_instances_have_no_pairs(tmp_path: Path) -> None:
    cells = [Cell({"env": name}) for name in ("bandit", "hanoi")]
    for cell in cells:
        made(tmp_path, cell, "0", [1, 0, 1, 1], 50)
    (folder,) = tmp_path.glob("*hanoi*")
    after = json.loads((folder / "after.json").read_text())
    after["instances"]["sampled"] = list("wxyz")
    (folder / "after.json").write_text(json.dumps(after))
    write_results(tmp_path, cells, ["0"])
    base, other = json.loads((tmp_path / "ablation.json").read_text())
    assert (base["after"], other["after"]) == (0.75, 0.75) and "gain" not in other


def test_an_interval_draws_seeds_and_instances() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.random(50), (5, 1))
    apart = np.tile(rng.random((5, 1)), (1, 50))
    for values, spread, n in ((same, same[0].std(), 50), (apart, apart[:, 0].std(), 5)):
        low, high = interval(values, np.ones(50))
        assert high - low == pytest.approx(2 * 1.96 * spread / np.sqrt(n), rel=0.15)
    assert interval(np.full((3, 2), 4.0), np.array([4.0, 4.0])) == (1.0, 1.0)


@pytest.mark.slow
@pytest.mark.gate
def test_a_sweep_goes_on_from_what_is_finished(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = [*BANDIT, "algo=grpo,rloo", "seed=0", "jobs=2", f"run.dir={tmp_path}"]
    main(line)
    told = capfd.readouterr().out
    assert "0 runs are finished, 2 are to be trained" in told and "| algo=rloo | 1/1 |" in told
    # The same command trains nothing; more seeds train theirs.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/metrics.jsonl")}
    main(line)
    assert "2 runs are finished, 0 are to be trained" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # One that was interrupted goes on from its checkpoint.
    (cut,) = tmp_path.glob("*algo-rloo_seed-0")
    (cut / "after.json").unlink()
    main(line)
    assert "1/1  algo-rloo_seed-0 finished" in capfd.readouterr().out
    assert [row["step"] for row in rows(cut)] == [0, 1, 2]
    # Runs that differ in more than the flag do not stand in one table.
    with pytest.raises(ConfigError, match=r"differs in more than the flag: train.steps \(was 2"):
        check_runs(plan([*line, "train.steps=3"]))
    with pytest.raises(ConfigError, match="eval.instances"):
        check_runs(plan([*line, "eval.instances=9"]))
    # A run that fails is named, with its log, and the others stay.
    for weights in cut.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(b"damaged")
    (cut / "after.json").unlink()
    with pytest.raises(RunsFailed, match="1 runs failed: algo-rloo_seed-0"):
        main(line)
    assert "algo-rloo_seed-0.log" in capfd.readouterr().out
