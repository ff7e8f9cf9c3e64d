"""What rows begin with is read once: the log-probs and gradients are those of whole rows."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ragen_lite.learning import scoring
from ragen_lite.learning.batches import Batch, Sample, collate
from ragen_lite.learning.exactness import Inexact, check_exact
from ragen_lite.learning.prefixes import empty_cache, shared_length
from ragen_lite.learning.scoring import PolicyForward
from tests.fixtures import families
from tests.fixtures.making import torch_engine

ROWS = 6
BEGINNING = 70


def rows() -> list[Sample]:
    """Six conversations with one beginning, of different lengths after it."""
    rng = np.random.default_rng(0)
    beginning = rng.integers(3, 800, BEGINNING)
    made = []
    for length in range(30, 30 + ROWS):
        ids = np.concatenate([beginning, rng.integers(3, 800, length)])
        mask = np.arange(len(ids)) >= BEGINNING + 10
        made.append(Sample(ids.tolist(), mask, mask * -1.0, mask * 1.0, mask))
    return made


def batch(dtype: torch.dtype) -> Batch:
    return collate(rows(), [1.0] * ROWS, range(ROWS), 0, dtype)


def learnt(model: Any, share: bool) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Log-probs, and the gradient of their sum by parameter."""
    model.zero_grad()
    forward = PolicyForward(model)
    forward.share = share
    logprobs = forward(batch(next(model.parameters()).dtype), 0.9)[0]
    logprobs.sum().backward()
    gradients = [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]
    return logprobs.detach().numpy(), gradients


@pytest.mark.parametrize("family", families.EXACT)
def test_a_shared_beginning_changes_nothing(family: str) -> None:
    model = families.make(family)
    plain, gradients = learnt(model, share=False)
    shared, others = learnt(model, share=True)
    np.testing.assert_allclose(shared, plain, rtol=0, atol=2e-5)
    assert len(others) == len(gradients)
    for one, other in zip(gradients, others, strict=True):
        # Sums of many terms in another order, in float32.
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-5 * max(1.0, np.abs(one).max()))


def test_the_beginning_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.make("llama")
    read = []
    real = scoring.hidden_after

    def watched(decoder: Any, token_ids: Any, shared: int, cache: Any) -> Any:
        read.append(shared)
        return real(decoder, token_ids, shared, cache)

    monkeypatch.setattr(scoring, "hidden_after", watched)
    learnt(model, share=True)
    assert read == [BEGINNING]
    # The keys of a window are not those of the whole beginning.
    assert empty_cache(families.make("mistral").get_decoder()) is None


def test_a_family_that_reads_it_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.make("llama")
    engine = torch_engine(model, frozenset({2}), 300, slots=3)
    real = scoring.hidden_after
    monkeypatch.setattr(scoring, "hidden_after", lambda *told: real(*told) + 1.0)
    with pytest.raises(Inexact, match="the learner's log-probs"):
        check_exact(
            engine,
            model,
            scoring.scorer(model, 1.0),
            np.arange(3, 800),
            1.0,
            nullcontext,
            "float32",
        )


def test_how_much_rows_share() -> None:
    ids = torch.arange(400).repeat(3, 1)
    assert shared_length(ids, 400) == 400 and shared_length(ids, 200) == 200
    assert shared_length(ids[:1], 400) == 0  # a row alone shares nothing
    assert shared_length(ids, 100) == 0  # 200 tokens are too few
    ids[2, 150] = 0
    assert shared_length(ids, 400) == 150
    ids[1, 0] = 7
    assert shared_length(ids, 400) == 0
