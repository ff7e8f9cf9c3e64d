"""A learner that needs less memory: weights and moments of fewer bits, blocks computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ragen_lite import export
from ragen_lite.algorithms.critics import NoCritic, OwnCritic
from ragen_lite.algorithms.kl import NoKL
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import ConfigError, ModelConfig
from ragen_lite.learning import checkpoint
from ragen_lite.learning.learner import Learner, Optim
from ragen_lite.learning.making import LearnerSetup, make_learner
from ragen_lite.learning.memory import block_names, checkpoint_blocks, halved
from ragen_lite.learning.scoring import scorer
from ragen_lite.models import lora
from ragen_lite.models.loading import load_policy
from tests.fixtures import families
from tests.fixtures.making import torch_engine
from tests.ragen_lite.learning.test_families import PPO, samples
from tests.ragen_lite.models.test_loading import folder_of, loaded


@pytest.fixture
def base(tokenizer: Any, tmp_path: Path) -> Path:
    return folder_of(families.make("qwen3"), tokenizer, tmp_path / "base")


def gradients(
    base: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: str, critic: Any = None
) -> dict[str, torch.Tensor]:
    """Those of a step of a fresh policy, and of its critic."""
    policy = loaded(base)
    optim = Optim(lr=1e-2, steps=5, checkpointing=checkpointing)
    setup = LearnerSetup(ModelConfig(str(base)), 0, optim, 1.0, NoKL(), critic or NoCritic())
    learner = make_learner(setup, policy)
    trunks = [policy.model.get_decoder(), getattr(learner.critic, "own_trunk", None)]
    blocks = [block for trunk in trunks if trunk is not None for block in trunk.layers]
    assert all(("forward" in vars(block)) == (checkpointing != "off") for block in blocks)
    monkeypatch.setattr(learner, "_update", lambda metrics: metrics)  # the gradients are kept
    learner.step(samples(), [1.0] * 2, PPO())
    found = {n: p.grad for n, p in policy.model.named_parameters()}
    if learner.critic is not None:
        found |= {n: p.grad for n, p in learner.critic.named.items()}  # type: ignore[attr-defined]
    assert any((g != 0).any() for g in found.values() if g is not None)
    return {name: grad for name, grad in found.items() if grad is not None}


@pytest.mark.parametrize("checkpointing", ["blocks", "offload"])
def test_blocks_that_are_computed_again_give_the_same_gradients(
    base: Path, checkpointing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients(base, monkeypatch, "off")
    found = gradients(base, monkeypatch, checkpointing)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, rtol=1e-4, atol=1e-7), name


def kept_bytes(base: Path, checkpointing: str) -> int:
    """What the forward pass of a step keeps for its backward pass."""
    policy = loaded(base)
    optim = Optim(lr=1e-2, steps=5, checkpointing=checkpointing)
    setup = LearnerSetup(ModelConfig(str(base)), 0, optim, 1.0, NoKL(), NoCritic())
    learner = make_learner(setup, policy)
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch, *_ = learner._micro_batches(samples(), [1.0] * 2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner._forward(batch, 1.0, False)
    return sum(sizes.values())


def test_less_is_kept_for_the_backward_pass(base: Path) -> None:
    assert kept_bytes(base, "blocks") < 0.7 * kept_bytes(base, "off")


def test_a_micro_batch_that_does_not_fit_is_halved_and_the_step_is_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(fits: int) -> tuple[dict[str, float], Learner]:
        learner = Learner(loaded(base).model, Optim(lr=1e-2, steps=5, microbatch_tokens=4096))
        forward = learner._forward

        def limited(batch: Any, *rest: Any) -> Any:
            if batch.token_ids.numel() > fits:
                raise torch.OutOfMemoryError("no room")
            return forward(batch, *rest)

        monkeypatch.setattr(learner, "_forward", limited)
        return learner.step(alike, [1.0] * 4, PPO()), learner

    alike = samples()[:1] * 4  # in one micro-batch, where they fit
    whole, learner = step(10**6)
    longest = len(alike[0].token_ids)
    small, other = step(longest)
    assert whole["train/microbatch_tokens"] == 4096 > small["train/microbatch_tokens"] >= longest
    assert small["train/grad_norm"] == pytest.approx(whole["train/grad_norm"], rel=1e-4)
    with pytest.raises(torch.OutOfMemoryError):
        step(longest - 1)
    assert [halved(16384, 3000), halved(3500, 3000), halved(3000, 3000)] == [8192, 3000, 0]
    assert learner.updates == other.updates == 1


# ---- bitsandbytes ----


@pytest.fixture
def blocks(tokenizer: Any, tmp_path: Path) -> Path:
    """A model whose rows are whole blocks of 64 weights."""
    shape = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16, "initializer_range": 0.1}
    return folder_of(families.make("qwen3", **shape), tokenizer, tmp_path / "blocks")


def quantized(base: Path, **keys: Any) -> Any:
    pytest.importorskip("bitsandbytes")
    return loaded(base, quantize="nf4", **keys)


def test_rows_that_are_no_whole_blocks_are_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match="rows of 32 weights"):
        quantized(base)


def test_weights_of_four_bits_are_frozen_and_lora_is_trained_beside_them(blocks: Path) -> None:
    policy = quantized(blocks, lora_rank=4)
    kinds = {type(module).__name__ for module in policy.model.modules()}
    assert "Linear4bit" in kinds
    learner = Learner(policy.model, Optim(lr=1e-2, steps=5), adapter=policy.adapter)
    before = learner.score(samples())
    assert all(".lora_" in n for n, p in policy.model.named_parameters() if p.requires_grad)
    learner.step(samples(), [1.0] * 2, PPO())
    after = learner.score(samples())
    assert any(abs(a - b).max() > 1e-4 for a, b in zip(before, after, strict=True))
    # Near the model that it was made from, and not the same.
    plain = scorer(loaded(blocks).model, 1.0)(samples())
    gap = max(abs(a - b).max() for a, b in zip(before, plain, strict=True))
    assert 0 < gap < 1.0
    with lora.switched_off(policy.adapter) as reference:
        off = scorer(reference, 1.0)(samples())
    assert all((a == b).all() for a, b in zip(before, off, strict=True))


def test_an_engine_plays_with_weights_of_four_bits(blocks: Path) -> None:
    from ragen_lite.agents.engines.protocol import Request
    from ragen_lite.agents.trajectory import Sampling
    from ragen_lite.learning.samples import demonstration

    policy = quantized(blocks, lora_rank=4)
    engine = torch_engine(policy.model, policy.chat.stop_ids, 200)
    prompt = policy.chat.start("You play.", "Go?")
    engine.submit(Request(0, tuple(prompt), Sampling(1.0, 8), 7))
    done: list[Any] = []
    while not done:
        done = engine.step()
    reply = done[0][1]
    ids = [*prompt, *reply.token_ids]
    sample = demonstration(ids, [False] * len(prompt) + [True] * len(reply.token_ids))
    (scored,) = scorer(policy.model, 1.0)([sample])
    assert scored == pytest.approx(reply.logprobs, abs=1e-4)


def test_an_adapter_beside_four_bits_is_saved_resumed_and_exported(
    blocks: Path, tmp_path: Path
) -> None:
    policy = quantized(blocks, lora_rank=4)
    learner = Learner(policy.model, Optim(lr=1e-2, steps=5), adapter=policy.adapter)
    learner.step(samples(), [1.0] * 2, PPO())
    saved = checkpoint.save(tmp_path / "run", 1, learner, policy.tokenizer)
    again = quantized(saved)
    other = Learner(again.model, Optim(lr=1e-2, steps=5), adapter=again.adapter)
    checkpoint.restore(saved, other)
    assert learner.step(samples(), [1.0] * 2, PPO()) == other.step(samples(), [1.0] * 2, PPO())
    saved = checkpoint.save(tmp_path / "run", 2, learner, policy.tokenizer)
    export.main([f"model={saved}", f"to={tmp_path / 'plain'}", "quantize=nf4"])
    plain = loaded(tmp_path / "plain").model
    assert not any(type(module).__name__ == "Linear4bit" for module in plain.modules())
    pairs = zip(learner.score(samples()), scorer(plain, 1.0)(samples()), strict=True)
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in pairs)


def test_weights_of_four_bits_without_matrices_are_written_out_too(
    blocks: Path, tmp_path: Path
) -> None:
    policy = quantized(blocks)
    export.main([f"model={blocks}", f"to={tmp_path / 'plain'}", "quantize=nf4"])
    plain = loaded(tmp_path / "plain").model
    pairs = zip(scorer(policy.model, 1.0)(samples()), scorer(plain, 1.0)(samples()), strict=True)
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in pairs)


def test_blocks_in_parts_on_ranks_are_known_and_a_model_without_any_is_refused(base: Path) -> None:
    model = loaded(base).model.get_decoder()
    (name,) = block_names(loaded(base).model)
    for block in model.layers:
        # As torch's FSDP2 does: a class of its own over the block's.
        block.__class__ = type(f"FSDP{name}", (type(block),), {})
    checkpoint_blocks(model, False, frozenset({name}))
    assert all("forward" in vars(block) for block in model.layers)
    with pytest.raises(ConfigError, match="does not say what its blocks are"):
        checkpoint_blocks(model, False, frozenset())


def test_moments_of_eight_bits_learn_and_resume(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    optim = Optim(lr=1e-2, steps=5, name="adamw_8bit")

    def fresh() -> Learner:
        return Learner(loaded(base).model, optim)

    learner = fresh()
    first = learner.step(samples(), [1.0] * 2, PPO())
    # bitsandbytes leaves small tensors in 32 bits.
    kinds = {
        v.dtype for s in learner.optimizer.state.values() for v in s.values() if hasattr(v, "dtype")
    }
    assert torch.uint8 in kinds
    saved = checkpoint.save(tmp_path, 1, learner, load_policy(ModelConfig(str(base))).tokenizer)
    other = fresh()
    checkpoint.restore(saved, other)
    assert learner.step(samples(), [1.0] * 2, PPO()) == other.step(samples(), [1.0] * 2, PPO())
    pairs = zip(learner.trained, other.trained, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and first["train/skipped"] == 0


# ---- the command line ----


def test_a_merged_folder_is_a_plain_model(base: Path, tmp_path: Path) -> None:
    policy = loaded(base, lora_rank=4)
    learner = Learner(policy.model, Optim(lr=1e-2, steps=5), adapter=policy.adapter)
    learner.step(samples(), [1.0] * 2, PPO())
    saved = checkpoint.save(tmp_path / "run", 1, learner, policy.tokenizer)
    export.main([f"model={saved}", f"to={tmp_path / 'plain'}"])
    assert not (tmp_path / "plain" / "adapter_config.json").exists()
    plain = loaded(tmp_path / "plain")
    assert plain.adapter is None
    pairs = zip(learner.score(samples()), scorer(plain.model, 1.0)(samples()), strict=True)
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)
    export.main([f"model={saved}", f"to={tmp_path / 'half'}", "dtype=bfloat16"])
    from safetensors.torch import load_file

    half = load_file(tmp_path / "half" / "model.safetensors")
    merged = dict(lora.merged_weights(policy.model))
    # Rounded once, from the sum in float32.
    assert all(torch.equal(half[n], merged[n].to(torch.bfloat16)) for n in half)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["to=x"], "model=... is missing"),
        (["model=tiny"], "to=... is missing"),
        (["model=tiny", "too=x"], "too=x: give KEY=VALUE"),
        (["model=tiny", "to=x", "dtype=int8"], "dtype=int8: choose one of"),
    ],
)
def test_export_refuses_in_a_sentence(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        export.main(line)
    assert message in capsys.readouterr().err


def test_a_folder_that_is_there_is_not_written_over(base: Path) -> None:
    with pytest.raises(ConfigError, match="it is there already, and not empty"):
        export.export("tiny", base)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["model.quantize=int3"], "choose one of null, nf4"),
        (["train.optimizer=sgd"], "choose one of adamw, adamw_8bit"),
        (["train.checkpointing=on"], "choose one of off, blocks, offload"),
        (["train.optimizer=adamw_8bit", "train.workers=2"], "it is for one learner"),
        (["train.betas=[0.9]"], "two numbers from 0 to below 1"),
        (["train.lr_end=0.5", "train.schedule=constant"], "does nothing with train.schedule"),
    ],
)
def test_what_cannot_work_is_refused(line: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(line)


def test_checkpointing_reaches_a_critics_own_trunk(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients(base, monkeypatch, "off", OwnCritic())
    found = gradients(base, monkeypatch, "blocks", OwnCritic())
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, rtol=1e-4, atol=1e-7), name
