"""The configuration: documented, and plain about what cannot be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from ragen_lite.config import groups as group_tables
from ragen_lite.config.checks import check, get
from ragen_lite.config.command_line import compose, help_text
from ragen_lite.config.files import choices, groups
from ragen_lite.config.groups import TABLES, algorithm_of
from ragen_lite.config.keys import flatten, keys, options
from ragen_lite.config.old_keys import NEW_KEYS, upgrade_values
from ragen_lite.config.overrides import refuse_unused, rewrite, rewrite_all
from ragen_lite.config.schema import Config, ConfigError
from tests.fixtures.toys import Halved


def test_every_key_and_option_is_documented() -> None:
    documented = [
        *keys(),
        *(o for g, table in TABLES.items() for n in table for o in options(g, n)),
    ]
    short = [key.name for key in documented if len(key.doc) <= 15]
    assert not short, f"keys without a sentence under their field: {short}"


def test_help_names_every_key_and_choice() -> None:
    text = help_text("train", "purpose")
    for key in keys():
        assert f"  {key.name}=" in text
    for group in groups():
        for choice in choices(group):
            assert choice in text
    assert "loss.clip_high=0.28" in text and "task_credit" not in text


def test_groups_and_values_compose() -> None:
    line = ["env=countdown", "algo=dr_grpo", "train.steps=7", "env.kwargs.max_numbers=3", "seed=4"]
    config = compose(line)
    assert config.env.id == "ragen_lite/Countdown-v0" and config.env.kwargs == {"max_numbers": 3}
    algorithm: Any = algorithm_of(config)
    assert algorithm.loss.aggregation == "constant" and not algorithm.credit.normalize
    assert (config.train.steps, config.seed, config.model.path) == (7, 4, "tiny")


def test_credit_and_loss_go_together_freely() -> None:
    algorithm: Any = algorithm_of(compose(["credit=rloo", "loss=ppo", "loss.clip_high=0.3"]))
    assert type(algorithm.credit).__name__ == "RLOO" and algorithm.loss.clip_high == 0.3
    beside: Any = algorithm_of(compose(["algo=reinforce", "credit=turn_return"]))
    assert type(beside.credit).__name__ == "TurnReturn"
    assert type(beside.loss).__name__ == "Reinforce"


@pytest.mark.parametrize(
    ("arguments", "credit", "instances"),
    [
        ([], "GiGPO", "SEC"),
        (["env=sokoban", "credit.step_weight=0.5"], "GiGPO", "SEC"),
        (["env=sokoban", "model=x/y"], "GiGPO", "AsDrawn"),
        (["env=sokoban", "algo=grpo", "instances=as_drawn"], "GRPO", "AsDrawn"),
        (["env=sokoban", "credit=rloo", "instances.temperature=1"], "RLOO", "SEC"),
        (["env=hanoi"], "GRPO", "SEC"),
        (["recipe=ragen"], "GAE", "AsDrawn"),
        (["recipe=none", "env=ragen_lite/Sokoban-v0"], "GiGPO", "SEC"),
        (["env.id=ragen_lite/Bandit-v0"], "GRPO", "SEC"),
    ],
)
def test_a_task_and_a_model_have_preferences(
    arguments: list[str], credit: str, instances: str
) -> None:
    algorithm = algorithm_of(compose(arguments))
    assert type(algorithm.credit).__name__ == credit
    assert type(algorithm.instances).__name__ == instances


@pytest.mark.parametrize(
    ("arguments", "normalize"),
    [
        (["env=bandit", "steady=0.2"], False),
        (["env=hanoi"], True),
        (["env=bandit", "credit.normalize=true"], True),
        (["env=bandit", "algo=grpo"], True),
        (["env=bandit", "credit=grpo"], True),
        (["env=bandit", "loss=reinforce"], False),
    ],
)
def test_a_tasks_own_credit_holds_where_neither_algo_nor_credit_is_named(
    arguments: list[str], normalize: bool
) -> None:
    algorithm: Any = algorithm_of(compose(arguments))
    assert algorithm.credit.normalize is normalize


def test_models_by_path_and_envs_by_id() -> None:
    assert compose(["model=Qwen/Qwen2.5-0.5B-Instruct"]).model.path == "Qwen/Qwen2.5-0.5B-Instruct"
    assert compose(["model=/some/where"]).sample.max_tokens == 256
    assert compose(["env=my_package:MyEnv-v0"]).env.id == "my_package:MyEnv-v0"
    assert rewrite("+env.kwargs.boxes=2", []) == ["++env.kwargs.boxes=2"]
    several = rewrite("env=knights_knaves_curriculum,my:My-v0", [])
    assert several == ["env=knights_knaves_curriculum,my_My_v0"]


@pytest.mark.parametrize(
    "option", [f"{g}={o}" for g in groups() for o in choices(g) if o not in ("hf")]
)
def test_every_shipped_choice_is_a_whole_configuration(option: str) -> None:
    # A critic and a credit that reads it go together.
    beside = {"credit=gae": "critic=own", "credit=bi_level_gae": "critic=own"}
    beside |= {"critic=own": "credit=gae", "critic=shared": "credit=gae"}
    check(compose([option, *([beside[option]] if option in beside else [])]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("env=sokobn", "choose one of arithmetic, .*sokoban.*did you mean sokoban"),
        ("algo=pppo", "choose one of .*cispo, dr_grpo, .*turn_return"),
        ("trian.steps=3", "unknown key 'trian.steps' - did you mean train.steps"),
        ("steps=3", "unknown key 'steps'"),
        ("train.steps=many", "train.steps=many: Value 'many' of type 'str' could not be converted"),
        ("run.wandb=maybe", "run.wandb=maybe: .*bool"),
        ("train.steps=0", "train.steps=0: it must be above 0"),
        ("credit=opo", "credit=opo: choose one of .*grpo, .*rloo, .*turn_return, .*oracle"),
        ("loss=dpo", "choose one of .*ppo, gspo, .*reinforce"),
        ("filter=std", "choose one of .*outcome, spread, .*none"),
        ("kl=k3 ", "choose one of off, k1, k2, k3 - did you mean k3"),
        ("~kl", "~kl: kl stays; choose another, as kl=NAME"),
        ("~kl=k3", "kl stays"),
        ("kl.coef=0.1", "does nothing with kl=off, which has no options.*kl=k1 or k2 or k3"),
        ("loss.clip_hihg=0.1", "loss=ppo has .*did you mean loss.clip_high"),
        ("loss.name=ppo", "unknown key 'loss.name'"),
        (
            "loss.aggregation=mean",
            "loss.aggregation='mean': choose one of token, sequence, constant",
        ),
        ("loss.clip_low=-1", "loss.clip_low=-1.0: it must not be below 0"),
        ("credit.normalize=often", "credit.normalize=often: .*bool"),
        ("correction.truncation=3", "does nothing with correction=off"),
        ("train.group_size=1", "a group of one has no baseline"),
        ("train.groups=1000000000000", "more than a million trajectories"),
        ("train.mini_batches=1000", "more than the 160 trajectories"),
        ("sample.temperature=0", "greedy replies of a group are all the same"),
        ("engine=sglang", "choose one of auto, .*torch, vllm"),
        ("engine.name=sglang", "engine.name='sglang': choose one of auto, .*vllm"),
        ("train.steps=[1", "train.steps="),
    ],
)
def test_what_cannot_work_is_said_plainly(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        compose([argument])


def test_an_option_that_does_nothing_with_the_chosen_pair_cannot_be_written() -> None:
    for chosen in (["algo=reinforce"], ["loss=reinforce"]):
        with pytest.raises(ConfigError, match="loss.clip_high does nothing with loss=reinforce"):
            compose([*chosen, "loss.clip_high=0.3"])
    with pytest.raises(ConfigError, match="does nothing with loss=reinforce"):  # of a sweep, one
        rewrite_all(["loss=ppo,reinforce", "loss.clip_high=0.3"])
    assert rewrite_all(["loss=ppo,reinforce", "loss.turn_mask=false"])


@pytest.mark.parametrize("old", NEW_KEYS)
def test_an_old_key_is_refused_with_the_new_one_named(old: str) -> None:
    with pytest.raises(ConfigError, match=f"older version: write {NEW_KEYS[old]}=1"):
        compose([f"{old}=1"])


def test_old_names_are_refused_with_the_new_ones_named() -> None:
    for old, new in (
        ("algo=turn", "algo=turn_return"),
        ("algo.credit=turn", "credit=turn_return"),
        ("algo.loss=clip", "loss=ppo"),
    ):
        with pytest.raises(ConfigError, match=f"write {new}$"):
            compose([old])


def test_an_old_runs_values_are_read_under_their_new_keys() -> None:
    algo = {
        "credit": "turn", "normalize": True, "loss": "clip", "clip_low": 0.2, "clip_high": 0.28,
        "aggregation": "token", "kl": "off", "kl_coef": 0.0, "entropy_coef": 0.0,
        "filter": "outcome", "correction": "off", "turn_mask": True,
    }  # fmt: skip
    old = upgrade_values(flatten({"algo": algo, "seed": 0}))
    new = flatten(asdict(compose(["algo=turn_return"])))
    assert old == {key: new[key] for key in old} and len(old) == 12
    assert not any(key.startswith("algo") for key in old)


def test_an_entry_of_a_table_is_a_choice_with_options_and_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {**TABLES["credit"], "halved": "tests.fixtures.toys:Halved"}
    monkeypatch.setitem(group_tables.TABLES, "credit", table)
    assert group_tables.entry_from(
        compose(["credit=halved", "credit.scale=2"]), "credit"
    ) == Halved(2)
    assert "credit.scale=0.5" in help_text("train", "") and "halved" in choices("credit")
    with pytest.raises(ConfigError, match="credit.scale does nothing with credit=gigpo"):
        compose(["credit.scale=2"])
    with pytest.raises(ConfigError, match="could not be converted to Float"):
        compose(["credit=halved", "credit.scale=much"])


def test_a_sweep_over_tasks_that_learn_by_different_algorithms_names_one() -> None:
    with pytest.raises(ConfigError, match="env=sokoban,bandit: .* add algo=grpo"):
        rewrite_all(["-m", "env=sokoban,bandit"])
    assert "algo=gigpo" in rewrite_all(["-m", "env=sokoban,ragen_lite/Sokoban-v0"])
    assert not any("algo" in a for a in rewrite_all(["-m", "env=bandit,countdown"]))
    assert "algo=rloo" in rewrite_all(["-m", "env=sokoban,bandit", "algo=rloo"])


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("train", "demos=solver"),
        ("sft", "algo=rloo"),
        ("sft", "loss=ppo"),
        ("sft", "credit.normalize=true"),
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
    assert all(get(Config(), key.name) == key.default for key in keys())


def test_an_option_of_the_task_may_be_written_bare() -> None:
    config = compose(["env=hanoi", "max_disks=3", "seed=4"])
    assert config.env.id == "ragen_lite/Hanoi-v0" and config.seed == 4
    assert config.env.kwargs == {"max_disks": 3}
    assert compose(["env=mix", "tasks={hanoi:1}"]).env.kwargs == {"tasks": {"hanoi": 1}}
    assert compose(["env=math", "data=gsm8k"]).env.kwargs == {"data": "gsm8k"}
    for arguments, message in (
        (["env=hanoi", "max_disk=3"], "did you mean max_disks, which is an option of the task"),
        (["env=hanoi", "boxes=3"], "no option of the task, which has min_disks"),
        (["env=hanoy"], "did you mean hanoi"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose(arguments)
