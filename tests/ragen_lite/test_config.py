"""The configuration: small, documented, and plain about what cannot be."""

from __future__ import annotations

import pytest

from ragen_lite.cli import choices, compose, groups, help_text, refuse_unused, rewrite
from ragen_lite.config import Config, ConfigError, check, documented, get


def test_it_has_at_most_45_fields_each_documented() -> None:
    fields = list(documented())
    assert len(fields) <= 45
    assert all(len(doc) > 15 for _, _, doc in fields), [key for key, _, doc in fields if len(doc) <= 15]


def test_help_names_every_key_and_choice() -> None:
    text = help_text("train", "purpose")
    for key, _, _ in documented():
        assert f"  {key}=" in text
    for group in groups():
        for option in choices(group):
            assert option in text


def test_groups_and_values_compose() -> None:
    config = compose(["env=countdown", "algo=dr_grpo", "train.steps=7", "env.kwargs.max_numbers=3", "seed=4"])
    assert config.env.id == "ragen_lite/Countdown-v0" and config.env.kwargs == {"max_numbers": 3}
    assert config.algo.aggregation == "constant" and not config.algo.normalize
    assert (config.train.steps, config.seed, config.model.path) == (7, 4, "tiny")


def test_a_file_of_a_task_may_set_more_than_its_id() -> None:
    assert not compose(["env=bandit", "steady=0.2"]).algo.normalize and compose(["env=hanoi"]).algo.normalize
    assert compose(["env=bandit", "algo.normalize=true"]).algo.normalize
    assert rewrite("env=knights_knaves_curriculum,my:My-v0") == ["env=knights_knaves_curriculum,my_My_v0"]


def test_models_by_path_and_envs_by_id() -> None:
    assert compose(["model=Qwen/Qwen2.5-0.5B-Instruct"]).model.path == "Qwen/Qwen2.5-0.5B-Instruct"
    assert compose(["model=/some/where"]).sample.max_tokens == 256
    assert compose(["env=my_package:MyEnv-v0"]).env.id == "my_package:MyEnv-v0"
    assert rewrite("+env.kwargs.boxes=2") == ["++env.kwargs.boxes=2"]


@pytest.mark.parametrize("option", [f"{g}={o}" for g in groups() for o in choices(g) if o not in ("hf")])
def test_every_shipped_choice_is_a_whole_configuration(option: str) -> None:
    check(compose([option]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("env=sokobn", "choose one of arithmetic, .*sokoban.*did you mean sokoban"),
        ("algo=ppo", "choose one of dr_grpo, grpo, reinforce, rloo, turn"),
        ("trian.steps=3", "unknown key 'trian.steps' - did you mean train.steps"),
        ("steps=3", "unknown key 'steps'"),
        ("train.steps=many", "train.steps=many: Value 'many' of type 'str' could not be converted to Integer"),
        ("run.wandb=maybe", "run.wandb=maybe: .*bool"),
        ("train.steps=0", "train.steps=0: it must be above 0"),
        ("algo.credit=gae", "algo.credit='gae': choose one of grpo, rloo, turn"),
        ("algo.loss=dpo", "choose one of clip, reinforce"),
        ("algo.filter=std", "choose one of outcome, spread, none"),
        ("algo.kl=k3", "does nothing: set both"),
        ("algo.kl_coef=0.1", "does nothing: set both"),
        ("algo.aggregation=mean", "token, sequence, constant"),
        ("train.group_size=1", "a group of one has no baseline"),
        ("train.groups=1000000000000", "more than a million trajectories"),
        ("train.mini_batches=1000", "more than the 160 trajectories"),
        ("sample.temperature=0", "greedy replies of a group are all the same"),
        ("engine.name=sglang", "choose one of auto, torch, vllm"),
        ("train.steps=[1", "train.steps="),
    ],
)
def test_what_cannot_work_is_said_plainly(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        compose([argument])


def test_a_clip_ratio_without_clipping_is_refused() -> None:
    with pytest.raises(ConfigError, match="do nothing with algo.loss=reinforce"):
        compose(["algo=reinforce", "algo.clip_high=0.3"])


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("train", "demos=solver"),
        ("sft", "algo=rloo"),
        ("sft", "train.epochs=2"),
        ("evaluate", "train.lr=1"),
        ("play", "run.name=x"),
    ],
)
def test_a_key_that_a_command_does_not_read_is_refused(command: str, argument: str) -> None:
    with pytest.raises(ConfigError, match=f"does nothing in {command}"):
        refuse_unused(command, [argument])
    refuse_unused(command, ["env=sokoban", "++env.kwargs.boxes=2", "seed=1", "--cfg"])


def test_keys_resolve() -> None:
    assert all(get(Config(), key) == default for key, default, _ in documented())


def test_an_option_of_the_task_may_be_written_bare() -> None:
    config = compose(["env=hanoi", "max_disks=3", "seed=4"])
    assert config.env.id == "ragen_lite/Hanoi-v0" and config.env.kwargs == {"max_disks": 3} and config.seed == 4
    assert compose(["env=mix", "tasks={hanoi:1}"]).env.kwargs == {"tasks": {"hanoi": 1}}
    assert compose(["env=math", "data=gsm8k"]).env.kwargs == {"data": "gsm8k"}
    for arguments, message in (
        (["env=hanoi", "max_disk=3"], "did you mean max_disks, which is an option of the task"),
        (["env=hanoi", "boxes=3"], "no option of the task, which has min_disks"),
        (["env=hanoy"], "did you mean hanoi"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose(arguments)
