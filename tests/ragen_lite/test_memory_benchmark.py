"""The benchmark of a step's seconds and memory: its helpers, which need no TRL."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.memory import (
    CASES,
    SMALL,
    as_json,
    difference,
    make_model,
    parse,
    row_of,
    unlike,
)
from benchmarks.memory_sides import Measured, draw_tokens, run, size_of


def measured(factor: float = 1.0) -> Measured:
    return Measured(
        cpu=[9.0, 2.0 * factor],
        wall=[9.0, 3.0 * factor],
        losses=[0.5, 0.25],
        norms=[1.0, 2.0],
        peak=8e9 * factor,
        weights=1e9,
        gradients=1e9,
        moments=2e9,
    )


def test_both_sides_are_given_the_same_tokens() -> None:
    tokens = draw_tokens(3, 10, 4, 50, prompt=True)
    samples, inputs = tokens.samples(), tokens.inputs()
    whole = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    assert [list(sample.token_ids) for sample in samples] == whole.tolist()
    assert (tokens.ids[:, :6] == tokens.ids[0, :6]).all()
    for row, sample in enumerate(samples):
        assert sample.trained == 4
        own = sample.behaviour_logprobs[sample.loss_mask]
        assert np.allclose(own, inputs["old_per_token_logps"][row])
        assert np.allclose(sample.advantages[sample.loss_mask], inputs["advantages"][row])
    assert inputs["completion_mask"].shape == (3, 4)


def test_the_tokens_are_always_the_same_ones() -> None:
    one, other = (draw_tokens(3, 10, 4, 50, prompt=False) for _ in range(2))
    assert (one.ids == other.ids).all() and (one.logprobs == other.logprobs).all()
    assert len({tuple(row) for row in one.ids[:, :6].tolist()}) == 3


def test_the_state_is_weights_gradients_and_moments() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    found = Measured()
    found.measure_state(model, optimizer)
    # Beside the moments of 10 numbers, AdamW counts the steps of two tensors.
    assert (found.weights, found.gradients, found.moments) == (26 * 4, 10 * 4, 2 * 10 * 4 + 2 * 4)
    assert found.state == found.weights + found.gradients + found.moments
    shared = torch.zeros(5)
    assert size_of([shared, shared.view(5, 1)]) == 20


def test_a_row_has_the_second_step_and_what_is_beyond_the_state() -> None:
    pair = {"ours": measured(), "TRL": measured(2.0)}
    cells = row_of(CASES["full"], pair).strip("| ").split(" | ")
    assert cells[1:4] == ["2.00", "4.00", "**0.50**"]
    assert cells[6:9] == ["8.00", "16.00", "**0.50**"]
    assert cells[-4:] == ["4.00", "12.00", "**0.33**", "0e+00"]


def test_what_failed_is_told_in_place_of_numbers() -> None:
    pair = {"ours": measured(), "TRL": "ImportError: no such thing"}
    assert row_of(CASES["qlora"], pair).endswith("| TRL: ImportError: no such thing |")
    assert unlike(pair) == 0.0


def test_different_work_is_seen() -> None:
    other = measured()
    other.norms = [1.0, 2.01]
    assert unlike({"ours": measured(), "TRL": other}) == pytest.approx(0.01 / 2.01)
    assert difference([0.0], [0.0]) == 0.0


def test_the_options_have_a_size_of_their_own_when_small() -> None:
    small = parse(["--small"])
    assert small.tokens == [4, 160] and small.completion == 80
    assert parse(["--tokens", "2", "64"]).completion == 32
    with pytest.raises(SystemExit):
        parse(["--tokens", "2", "64", "--completion", "64"])


def test_what_was_measured_is_written_by_case_and_side() -> None:
    pairs = {"full": {"ours": measured(), "TRL": "failed"}}
    told = json.loads(as_json(parse(["--small"]), pairs, "1.2.3"))
    assert told["trl"] == "1.2.3" and told["cases"]["full"]["TRL"] == "failed"
    assert told["cases"]["full"]["ours"]["state"] == 4e9


def test_our_side_makes_its_two_steps(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak is Linux's to tell")
    make_model(str(tmp_path), SMALL)
    tokens = draw_tokens(2, 24, 8, SMALL["vocab_size"], prompt=False)
    for name in ("full", "blocks"):
        found = run("ours", CASES[name], tokens, str(tmp_path))
        assert len(found.cpu) == len(found.losses) == 2
        assert np.isfinite(found.losses + found.norms).all()
        assert found.moments == pytest.approx(2 * found.weights, rel=1e-3)
