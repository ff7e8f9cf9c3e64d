"""What comes in with a folder: its ends, its faults in a sentence, its adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragen_lite.agents.trajectory import Stop
from ragen_lite.config.schema import ConfigError, ModelConfig
from ragen_lite.learning import checkpoint
from ragen_lite.learning.learner import Learner, Optim
from ragen_lite.learning.scoring import scorer
from ragen_lite.models import lora, scratch
from ragen_lite.models.folders import positions_of
from ragen_lite.models.loading import load_policy
from tests.fixtures import families
from tests.fixtures.making import torch_engine
from tests.ragen_lite.learning.test_families import PPO, samples


def folder_of(model: Any, tokenizer: Any, path: Path) -> Path:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def loaded(path: Path | str, **keys: Any) -> Any:
    return load_policy(ModelConfig(str(path), **keys), 0, 400)


def test_all_ends_of_a_folder_stop_a_reply_and_are_saved(tokenizer: Any, tmp_path: Path) -> None:
    model = families.make("qwen3")
    ids = [tokenizer.convert_tokens_to_ids(word) for word in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config.eos_token_id = [*ids, 700]
    policy = loaded(folder_of(model, tokenizer, tmp_path / "m"))
    assert policy.chat.stop_ids == {*ids, 700}
    learner = Learner(policy.model, Optim(lr=1e-2, steps=5))
    saved = checkpoint.save(tmp_path, 1, learner, tokenizer)
    told = json.loads((saved / "generation_config.json").read_text())
    assert told["eos_token_id"] == sorted([*ids, 700])


@pytest.mark.parametrize("family", ["qwen3", "mistral", "qwen3_moe", "gemma2", "cohere2"])
def test_transformers_generates_what_the_engine_does_and_stops_where_it_stops(
    family: str, tokenizer: Any, tmp_path: Path
) -> None:
    model = families.make(family)
    model.generation_config.eos_token_id = list(range(300, 500))
    policy = loaded(folder_of(model, tokenizer, tmp_path / "m"))
    learner = Learner(policy.model, Optim(lr=1e-3, steps=5))
    learner.step(samples(), [1.0] * 2, PPO())
    saved = checkpoint.save(tmp_path, 1, learner, tokenizer)
    again = loaded(saved)
    stops = set()
    for start in range(8):
        prompt = tuple(samples()[0].token_ids[start : start + 30].tolist())
        engine = torch_engine(policy.model, policy.chat.stop_ids, 300)
        ours = families.greedy(engine, prompt, 40)
        ids = torch.tensor([prompt])
        theirs = again.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40
        )
        assert list(ours.token_ids) == theirs[0, len(prompt) :].tolist()
        stops.add(ours.stop)
    assert Stop.EOS in stops


def test_weights_that_are_no_numbers_are_refused_by_name(tokenizer: Any, tmp_path: Path) -> None:
    model = families.make("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, :3] = torch.tensor(
            [float("nan"), float("inf"), 1.0]
        )
    folder_of(model, tokenizer, tmp_path / "m")
    with pytest.raises(
        ConfigError, match=r"2 of the \d+ numbers of model.layers.1.mlp.up_proj.weight"
    ):
        loaded(tmp_path / "m")


def without(path: Path, *keys: str) -> None:
    """Take tensors out of a folder."""
    file = path / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name not in keys}
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_folder_that_does_not_hold_its_configurations_weights_is_refused(
    tokenizer: Any, tmp_path: Path
) -> None:
    model = families.make("llama")
    missing = folder_of(model, tokenizer, tmp_path / "missing")
    without(missing, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(
        ConfigError, match="1 of its weights are missing, such as model.layers.1.mlp.up_proj"
    ):
        loaded(missing)
    surplus = folder_of(model, tokenizer, tmp_path / "surplus")
    told = json.loads((surplus / "config.json").read_text())
    (surplus / "config.json").write_text(json.dumps(told | {"num_hidden_layers": 3}))
    with pytest.raises(
        ConfigError, match="9 weights of the folder have no place .* model.layers.3"
    ):
        loaded(surplus)
    shape = folder_of(model, tokenizer, tmp_path / "shape")
    (shape / "config.json").write_text(json.dumps(told | {"intermediate_size": 40}))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        loaded(shape)


@pytest.mark.parametrize(
    "template",
    ["{% for %}", "{{ raise_exception('never') }}", "{{ messages[0].content[0].text.x }}"],
)
def test_a_template_that_raises_is_refused_in_a_sentence(
    template: str, tokenizer: Any, tmp_path: Path
) -> None:
    folder_of(families.make("llama"), tokenizer, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match="template"):
        loaded(tmp_path / "m")


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder_of(families.make("llama", vocab_size=300), tokenizer, tmp_path / "m")
    with pytest.raises(
        ConfigError, match=r"a token of id \d+, but the model's embedding has 300 rows"
    ):
        loaded(tmp_path / "m")


def test_a_control_token_without_a_row_that_no_conversation_holds_is_no_fault(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = len(tokenizer)
    folder_of(families.make("llama", vocab_size=rows), tokenizer, tmp_path / "m")
    other = scratch.load_tokenizer()
    other.add_special_tokens({"extra_special_tokens": ["<image>"]})  # as Gemma 3 has one
    other.save_pretrained(tmp_path / "m")
    policy = loaded(tmp_path / "m")
    assert len(policy.tokenizer) == rows + 1 and policy.plain_ids.max() < rows


def test_positions_that_change_with_the_length_end_where_they_were_made_for() -> None:
    rope = {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 128,
    }
    assert positions_of(families.make("llama", rope_parameters=rope), 4096) == 128
    assert positions_of(families.make("llama"), 4096) == 512
    nested = {
        "full_attention": rope,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    assert positions_of(families.make("gemma3_text", rope_parameters=nested), 4096) == 128


# ---- LoRA ----


@pytest.fixture
def base(tokenizer: Any, tmp_path: Path) -> Path:
    return folder_of(families.make("qwen3"), tokenizer, tmp_path / "base")


def trained(base: Path, tmp_path: Path, steps: int = 1) -> tuple[Any, Learner, Path]:
    policy = loaded(base, lora_rank=4)
    learner = Learner(policy.model, Optim(lr=1e-2, steps=5), adapter=policy.adapter)
    for _ in range(steps):
        learner.step(samples(), [1.0] * 2, PPO())
    return policy, learner, checkpoint.save(tmp_path / "run", steps, learner, policy.tokenizer)


def test_lora_trains_its_matrices_alone_and_begins_as_the_model_is(
    base: Path, tmp_path: Path
) -> None:
    plain = loaded(base)
    policy = loaded(base, lora_rank=4)
    before = scorer(plain.model, 1.0)(samples())
    assert all(
        (a == b).all() for a, b in zip(before, scorer(policy.model, 1.0)(samples()), strict=True)
    )
    policy, learner, _ = trained(base, tmp_path)
    names = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert names and all(".lora_" in name for name in names)
    own = dict(plain.model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        if ".lora_" not in name:
            assert torch.equal(parameter, own[name.replace(".base_layer", "")])
    after = learner.score(samples())
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    # The reference is the model without its matrices, to the last bit.
    with lora.switched_off(policy.adapter) as reference:
        off = scorer(reference, 1.0)(samples())
    assert all((a == b).all() for a, b in zip(before, off, strict=True))
    assert all((a == b).all() for a, b in zip(after, learner.score(samples()), strict=True))


def test_a_checkpoint_of_lora_is_a_peft_folder_and_comes_back(base: Path, tmp_path: Path) -> None:
    policy, learner, saved = trained(base, tmp_path)
    assert (saved / "adapter_model.safetensors").is_file()
    assert not (saved / "model.safetensors").exists()
    # As a model, by its folder alone.
    again = loaded(saved)
    on = Learner(again.model, Optim(lr=1e-2, steps=5), adapter=again.adapter)
    names = {name for name, p in again.model.named_parameters() if p.requires_grad}
    assert len(names) == len(on.trained) == len(learner.trained)
    expected = learner.score(samples())
    found = scorer(again.model, 1.0)(samples())
    assert all((a == b).all() for a, b in zip(expected, found, strict=True))
    # As a run that goes on: the next step is the same, bit for bit.
    other_policy = loaded(base, lora_rank=4)
    other = Learner(other_policy.model, Optim(lr=1e-2, steps=5), adapter=other_policy.adapter)
    checkpoint.restore(saved, other)
    assert learner.step(samples(), [1.0] * 2, PPO()) == other.step(samples(), [1.0] * 2, PPO())
    pairs = zip(learner.trained, other.trained, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_merged_weights_are_another_models_that_says_the_same(base: Path, tmp_path: Path) -> None:
    policy, learner, _ = trained(base, tmp_path, steps=3)
    plain = loaded(base).model
    own = dict(plain.named_parameters())
    merged = dict(lora.merged_weights(policy.model))
    assert merged.keys() == own.keys()
    with torch.no_grad():
        for name, tensor in merged.items():
            own[name].copy_(tensor)
    for a, b in zip(learner.score(samples()), scorer(plain, 1.0)(samples()), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert dict(lora.merged_weights(plain)).keys() == own.keys()


def test_an_adapter_is_refused_in_a_sentence_where_it_cannot_be(base: Path, tmp_path: Path) -> None:
    _, _, saved = trained(base, tmp_path)
    for keys in ({"lora_rank": 8}, {"lora_rank": 4, "lora_alpha": 64}):
        with pytest.raises(ConfigError, match="is an adapter of rank 4 and alpha 8"):
            loaded(saved, **keys)
    told = json.loads((saved / "adapter_config.json").read_text())
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(told | {"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="does not say which model it belongs to"):
        loaded(saved)
    path.write_text(json.dumps(told | {"peft_type": "IA3"}))
    with pytest.raises(ConfigError, match="an adapter of the kind IA3"):
        loaded(saved)
    path.write_text(json.dumps(told | {"use_dora": True, "modules_to_save": ["lm_head"]}))
    with pytest.raises(
        ConfigError, match="a LoRA adapter with use_dora, modules_to_save changes more"
    ):
        loaded(saved)
    path.write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        loaded(saved)
    path.write_text(json.dumps(told))
    weights = saved / "adapter_model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    first = min(tensors)
    save_file({k: v for k, v in tensors.items() if k != first}, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="1 tensors are missing or too many"):
        loaded(saved)
    save_file(tensors | {first: tensors[first] * torch.nan}, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="are nan or infinite"):
        loaded(saved)
    weights.write_bytes(whole[:100])
    with pytest.raises(ConfigError, match="the adapter cannot be loaded"):
        loaded(saved)
    weights.write_bytes(whole)
    with pytest.raises(ConfigError, match="random weights could never be"):
        loaded("scratch", lora_rank=2)
    shutil.rmtree(base)
    with pytest.raises(ConfigError, match="no model there"):
        loaded(saved)


def test_an_adapter_is_read_from_anywhere_with_its_own_template(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, saved = trained(Path("base"), tmp_path)
    template = (saved / "chat_template.jinja").read_text()
    (saved / "chat_template.jinja").write_text(template.replace("{% for", "Hello{% for", 1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    policy = loaded(saved)
    assert policy.tokenizer.decode(policy.chat.start("S", "U")).startswith("Hello")


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "gpt2"])
def test_lora_leaves_packed_experts_alone(family: str, tokenizer: Any, tmp_path: Path) -> None:
    own = dict(families.make(family).named_parameters())
    policy = loaded(folder_of(families.make(family), tokenizer, tmp_path / "m"), lora_rank=2)
    assert dict(lora.merged_weights(policy.model)).keys() == own.keys()
    changed = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert changed and not any("experts" in name for name in changed)
