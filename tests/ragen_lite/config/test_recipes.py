"""The recipes: whole against the table of published facts, second to what the user names, and run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from docs.recipe_pages import facts, names
from ragen_lite.config.command_line import compose
from ragen_lite.config.files import files_of
from ragen_lite.config.keys import flatten
from ragen_lite.config.overrides import refuse_unused, rewrite_all
from ragen_lite.config.scale import SAMPLE_OF, SAMPLES, scaled
from ragen_lite.config.schema import Config, ConfigError
from tests.fixtures.commands import run
from tests.fixtures.runs import folder, rows

OWN = {"none", "tiny", "tiny_all", "tiny_habits"}  # those of the embedded model
NAMED = [
    "deepscaler",
    "grpo_demo",
    "logic_rl",
    "mini_r1",
    "oat_zero",
    "open_r1",
    "open_thoughts",
    "ragen",
    "simplerl",
    "starpo_s",
    "tinyzero",
    "unlock_deepseek",
    "unsloth",
]


def values(config: Config) -> dict[str, Any]:
    """The configuration by key, options of the task among them."""
    found = flatten(asdict(config))
    return found | {f"env.kwargs.{name}": value for name, value in config.env.kwargs.items()}


def test_every_recipe_has_its_facts() -> None:
    # Somebody's own recipes may stand beside them.
    assert names() == NAMED and {*NAMED, *OWN} <= set(files_of("recipe"))


@pytest.mark.parametrize("name", NAMED)
def test_no_published_hyper_parameter_is_missing_without_a_word(name: str) -> None:
    told = facts(name)
    given = values(compose([f"recipe={name}"]))
    assert len(told["parameters"]) > 30
    for published, entry in told["parameters"].items():
        if "key" not in entry:
            assert entry["word"], published
            continue
        key = entry["key"]
        found = given["train.groups"] * given["train.group_size"] if " x " in key else given[key]
        wanted = entry.get("here", entry["published"])
        assert found == wanted, f"{published}: {key}={found}, not {wanted}"


@pytest.mark.parametrize("name", NAMED)
def test_what_follows_from_published_numbers_is_what_the_recipe_has(name: str) -> None:
    """The numbers that are no copies: steps of an epoch, optimiser steps, rates of a critic."""
    parameters = facts(name)["parameters"]
    published = {key: entry["published"] for key, entry in parameters.items()}
    config = compose([f"recipe={name}"])
    train = config.train
    if "critic.optim.lr" in published:
        assert config.critic.lr_ratio * train.lr == pytest.approx(published["critic.optim.lr"])
    if "critic_learning_rate" in published:
        assert config.critic.lr_ratio * train.lr == pytest.approx(published["critic_learning_rate"])
    ratio = published.get("warmup_ratio")
    if ratio:
        assert train.warmup == pytest.approx(ratio * train.steps, abs=1)
    mini = published.get("actor_rollout_ref.actor.ppo_mini_batch_size")
    if name in ("tinyzero", "logic_rl", "deepscaler"):  # counted in prompts
        assert train.groups / mini == train.mini_batches
    if name == "ragen":
        assert train.groups * train.group_size / mini == train.mini_batches
    if name == "starpo_s":  # of what the filter leaves
        kept = config.filter.share * train.groups * train.group_size
        assert kept / mini == train.mini_batches
    if name in ("simplerl", "oat_zero"):  # counted in replies
        batch = published["train_batch_size"]
        assert train.groups * train.group_size / batch == train.mini_batches
    # Rows, an iteration's prompts, passes over the data.
    passes = {"tinyzero": (327_680, 15), "open_r1": (93_733, 1), "grpo_demo": (7_473, 1)}
    passes |= {"oat_zero": (8_000, 20), "logic_rl": (4_500, 5), "simplerl": (8_192, 20)}
    if name in passes:
        count, epochs = passes[name]
        assert train.steps == pytest.approx(count / train.groups * epochs, rel=0.01)
    if name == "open_thoughts":
        assert train.steps == pytest.approx(113_957 * 3 / 96, abs=1)


# ---- what the user names ----


def test_what_the_user_names_takes_the_recipes_place() -> None:
    other = compose(["recipe=tinyzero", "credit=grpo", "critic=off", "train.group_size=8"])
    assert other.credit.name == "grpo" and other.critic.name == "off"
    assert other.loss.entropy_coef == 0.001 and other.model.path == "Qwen/Qwen2.5-3B"
    preset = compose(["recipe=tinyzero", "algo=rloo", "train.group_size=8"])
    assert (preset.credit.name, preset.critic.name, preset.filter.name) == (
        "rloo",
        "off",
        "outcome",
    )
    assert preset.kl.name == "k1" and preset.train.groups == 256
    # Another model, in the recipe's chat template and with its adapter.
    for model, path in (("tiny", "tiny"), ("somebody/else", "somebody/else")):
        other = compose(["recipe=tinyzero", f"model={model}"])
        assert (other.model.path, other.model.template) == (path, "plain")
        adapter = compose(["recipe=unsloth", f"model={model}"]).model
        assert (adapter.path, adapter.quantize, adapter.lora_rank) == (path, "nf4", 64)
    assert compose(["recipe=deepscaler", "engine=vllm"]).engine.max_model_len == 25600
    assert compose(["recipe=tinyzero", "env=bandit"]).env.kwargs == {}
    assert compose(["recipe=tinyzero", "language=zh"]).env.kwargs["language"] == "zh"
    assert compose(["recipe=tinyzero", "train.lr=1"]).train.lr == 1
    assert compose(["recipe=simplerl", "credit.lam=0.5"]).credit.lam == 0.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["recipe=tinyzer0"], "did you mean tinyzero"),
        (["recipe=tinyzero", "filter.share=0.5"], "filter.share does nothing with filter=none"),
        (["recipe=tinyzero", "boxes=2"], "unknown key 'boxes'"),
    ],
)
def test_what_a_recipe_does_not_take_is_refused(line: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(line)


@pytest.mark.parametrize("name", NAMED)
def test_another_model_changes_nothing_of_how_it_learns(name: str) -> None:
    own = compose([f"recipe={name}"])
    other = compose([f"recipe={name}", "model=tiny"])
    sizes = asdict(own.train) | {"microbatch_tokens": other.train.microbatch_tokens}
    assert asdict(other.train) == sizes and other.sample == own.sample


def test_recipes_can_be_swept_and_those_of_sft_are_not_trained() -> None:
    line = rewrite_all(["recipe=tinyzero,logic_rl", "model=tiny"])
    assert "recipe=tinyzero_as_told,logic_rl_as_told" in line
    for recipe in ("open_thoughts", "tiny"):
        with pytest.raises(ConfigError, match=f"^recipe={recipe}: it is of supervised learning"):
            refuse_unused("train", rewrite_all([f"recipe={recipe}"]))
    refuse_unused("sft", rewrite_all(["recipe=open_thoughts"]))


# ---- the smoke scale ----


@pytest.mark.parametrize("name", NAMED)
def test_smoke_cuts_and_says_what(name: str) -> None:
    told: list[str] = []
    config = scaled(compose([f"recipe={name}", "scale=smoke"]), told.append)
    assert config.train.steps == 3 and config.train.groups <= 2 and config.sample.max_tokens <= 48
    changed = {line.split("=")[1].removeprefix("smoke: ") for line in told}
    full = values(compose([f"recipe={name}"]))
    small = values(config)
    differ = {key for key in small if small[key] != full.get(key)} - {"scale"}
    assert {key.replace("env.kwargs.data", "env.kwargs") for key in differ} >= changed
    # The rest is the recipe's.
    for key in ("train.lr", "credit", "kl", "loss", "env.kwargs.template", "env.kwargs.reward"):
        assert small.get(key) == full.get(key)
    assert not any("data=" in line and "samples" not in line for line in told)


def test_samples_are_there_and_the_rest_of_the_scale_is_untouched() -> None:
    assert all((SAMPLES / name).is_file() for name in SAMPLE_OF.values())
    plain = compose(["env=bandit"])
    assert scaled(plain, lambda line: pytest.fail(line)) is plain


def smoke(name: str, tmp_path: Path) -> Path:
    command = "sft" if name == "open_thoughts" else "train"
    result = run(command, f"recipe={name}", "model=tiny", "scale=smoke", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "scale=smoke: train.steps=3" in result.stdout
    return folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.gate if n == "tinyzero" else ()) for n in NAMED]
)
def test_a_recipe_runs(name: str, tmp_path: Path) -> None:
    made = rows(smoke(name, tmp_path))
    assert made[-1]["step"] == 3 and all(row.get("train/skipped", 0) == 0 for row in made[1:])
    rewards = {key for key in made[-1] if key.startswith("rollout/reward/")}
    published = {"ragen": 0, "starpo_s": 0, "open_thoughts": 0, "grpo_demo": 5, "unsloth": 5}
    published |= {"open_r1": 3, "mini_r1": 2, "unlock_deepseek": 2, "logic_rl": 2}
    assert len(rewards) == published.get(name, 1)
