"""The head of a large vocabulary against autograd: values, gradients, and how much it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ragen_lite.agents.engines.head import matrix_of
from ragen_lite.learning.linear_head import by_matrix
from ragen_lite.learning.scoring import head
from tests.fixtures import families

TOKENS = 23


def inputs(dtype: torch.dtype, frozen: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, 16, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(97, 16, generator=generator, dtype=dtype).requires_grad_(not frozen)
    return hidden, weight, torch.randint(97, (TOKENS,), generator=generator)


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("size", [5, TOKENS, 100])
def test_it_is_autograds(size: int, temperature: float, bonus: bool) -> None:
    hidden, weight, targets = inputs(torch.float64)
    some = torch.linspace(-1, 1, TOKENS, dtype=torch.float64)

    def gradients(found: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        logprobs, entropy = found
        loss = (logprobs * some).sum() + ((entropy * some**2).sum() if bonus else 0.0)
        return torch.autograd.grad(loss, [hidden, weight])

    plain = head(lambda tokens: tokens @ weight.T, hidden, targets, temperature)
    ours = by_matrix(hidden, weight, targets, temperature, size)
    for a, b in zip((*plain, *gradients(plain)), (*ours, *gradients(ours)), strict=True):
        assert (a - b).abs().max() < 1e-12


def test_its_gradient_is_that_of_small_differences() -> None:
    hidden, weight, targets = inputs(torch.float64)
    small = (hidden[:3].detach().requires_grad_(), weight[:9].detach().requires_grad_())
    chosen = targets[:3] % 9
    assert torch.autograd.gradcheck(lambda h, w: by_matrix(h, w, chosen, 0.8, 2), small)


def test_a_frozen_head_has_no_gradient() -> None:
    hidden, weight, targets = inputs(torch.float32, frozen=True)
    by_matrix(hidden, weight, targets, 1.0, 5)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is None and hidden.grad is not None


def test_under_autocast_the_products_are_in_bfloat16_and_the_sums_are_not() -> None:
    hidden, weight, targets = inputs(torch.float32)
    exact = by_matrix(hidden, weight, targets, 1.0, 5)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = by_matrix(hidden, weight, targets, 1.0, 5)[0]
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert found.dtype == torch.float32 and weight.grad is not None
    assert 0 < (found - exact).abs().max() < 0.2 and weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("family", "plain"), [("qwen3", True), ("llama", True), ("gemma2", False), ("cohere2", False)]
)
def test_only_a_head_that_is_one_matrix_is_taken_for_one(family: str, plain: bool) -> None:
    model = families.make(family)
    found = matrix_of(model)
    assert (found is not None) == plain
    assert not plain or found is model.get_output_embeddings().weight
