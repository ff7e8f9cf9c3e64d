"""Command-line arguments as Hydra takes them, and plain answers where it would be cryptic.

``env=NAME`` is a file of configs/env, a task of ours or an installed package's; an option of the
task may be written bare (``env=sokoban boxes=2``).
"""

from __future__ import annotations

import difflib
import re

from ragen_lite.config.files import (
    AS_TOLD,
    CONFIGS,
    TASK_ALGO,
    TASK_CREDIT,
    check_choice,
    choices,
    files_of,
    for_sft,
    groups,
    less_named,
    set_by,
)
from ragen_lite.config.groups import DEFAULTS, TABLES
from ragen_lite.config.keys import all_options, keys, options
from ragen_lite.config.old_keys import renew
from ragen_lite.config.schema import ConfigError
from ragen_lite.config.values import as_value
from ragen_lite.envs.registry import UnknownEnv, find, options_of, own_tasks

FREE = ("env.kwargs.", "engine.options.")  # keys whose last part is anybody's

# What each command reads; anything else on its command line would silently do nothing.
_RUNS = ("env", "model", "engine", "sample", "seed")
_LEARNS = (
    *_RUNS,
    "train",
    "eval.every",
    "eval.instances",
    "eval.patience",
    "run",
    "recipe",
    "scale",
)
USES = {
    "train": (*_LEARNS, "algo", *TABLES),
    "sft": (*_LEARNS, "demos"),
    "evaluate": (*_RUNS, "context", "eval.instances", "eval.samples", "eval.split", "eval.compare"),
    "play": (*_RUNS, "context", "eval.split"),
}
UNUSED = {
    ("play", "engine.shard"),
    ("play", "engine.workers"),
    ("play", "engine.restarts"),
    ("evaluate", "engine.workers"),
    ("evaluate", "engine.restarts"),
    ("sft", "train.staleness"),
    ("sft", "train.restarts"),
    ("sft", "train.epochs"),
    ("sft", "train.stages"),
    ("sft", "train.tokens"),
    ("sft", "eval.patience"),
}
# What is not trained has no matrices of its own; an adapter's folder brings them.
UNUSED |= {
    (command, f"model.{key}")
    for command in ("evaluate", "play")
    for key in ("lora_rank", "lora_alpha")
}


def split_argument(argument: str) -> tuple[str, str] | None:
    """Key and value of ``key=value``; None of anything else, which is Hydra's own."""
    key, equals, value = argument.partition("=")
    if not equals or key.startswith(("-", "hydra")):
        return None
    return key.lstrip("+~"), value


def value_of(arguments: list[str], key: str) -> str | None:
    """What an argument gives a key; of several the last, as Hydra has it."""
    pairs = [pair for argument in arguments if (pair := split_argument(argument))]
    return next((value for name, value in reversed(pairs) if name == key), None)


# ---- rewriting ----


def rewrite_all(arguments: list[str], command: str = "train") -> list[str]:
    """The arguments of a command as Hydra takes them. Raises ConfigError."""
    result: list[str] = []
    # A task's own credit gives way where the user, or a recipe, has named one.
    recipes = set_by("recipe", value_of(arguments, "recipe") or "none", "credit")
    own: list[str] = []
    if value_of(arguments, "algo") or value_of(arguments, "credit") or recipes:
        own = [f"~{TASK_CREDIT}"]
    elif command == "train" and value_of(arguments, "recipe") in (None, "none"):
        own = _task_algo(value_of(arguments, "env.id") or value_of(arguments, "env") or "sokoban")
    # Overrides stand together, before or behind options of Hydra's such as --cfg job.
    place = next((i for i, argument in enumerate(arguments) if split_argument(argument)), 0)
    arguments = [*arguments[:place], *own, *arguments[place:]]
    for argument in arguments:
        result += rewrite(_as_task_option(argument, arguments), arguments)
    return result


def _task_algo(told: str) -> list[str]:
    """The algorithm of a task that prefers one, as an argument; ``told`` names several in a sweep.

    Raises ConfigError where those prefer different ones: a sweep has one for all.
    """
    preferred = {TASK_ALGO.get(own_tasks().get(task, task)) for task in told.split(",")}
    if len(preferred) > 1:
        raise ConfigError(
            f"env={told}: these tasks learn by different algorithms where none is named: add "
            "algo=grpo, or another, for all; ragen_lite.ablate takes each task's own"
        )
    algo = preferred.pop()
    return [f"algo={algo}"] if algo else []


def rewrite(argument: str, arguments: list[str]) -> list[str]:
    """One argument as Hydra takes it: models by path, environments by id. Raises ConfigError."""
    taken = argument.lstrip("~").partition("=")[0]
    if argument.startswith("~") and taken in TABLES:
        raise ConfigError(f"{argument}: {taken} stays; choose another, as {taken}=NAME")
    pair = split_argument(argument)
    if pair is None:
        return [argument]
    key, value = pair
    if new := renew(key, value):
        raise ConfigError(f"{key}={value} is of an older version: write {new}")
    if key in groups():
        return _choice(key, value, argument, arguments)
    if key.startswith(FREE):
        return [f"++{key}={as_value(key, value)}"]
    _check_key(key, arguments)
    return [argument.partition("=")[0] + "=" + as_value(key, value)]


def _choice(group: str, value: str, argument: str, arguments: list[str]) -> list[str]:
    # Any other value is a path or a hub name.
    if group == "model" and value not in files_of("model"):
        path = as_value("model.path", value)
        if "," not in value or path.startswith("'"):
            return ["model=hf", f"model.path={path}"]
    names = value.split(",")
    if group == "env":
        return environment(value)
    if group == "recipe":
        named = {pair[0] for pair in map(split_argument, arguments) if pair}
        return [f"recipe={','.join(less_named(name, named) for name in names)}"]
    check_choice(group, names)
    return [argument]


def _check_key(key: str, arguments: list[str]) -> None:
    """Raise ConfigError for a key that does not exist, or not with what is chosen."""
    group = key.partition(".")[0]
    if group in TABLES:
        _check_option(group, key, arguments)
        return
    known = [item.name for item in keys()]
    if key not in known:
        close = difflib.get_close_matches(key, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the keys are {known}"
        raise ConfigError(f"unknown key {key!r} - {hint} --help documents them all")


def _check_option(group: str, key: str, arguments: list[str]) -> None:
    names = _choices_of(group, arguments)
    # Of a sweep, every choice must have it: Hydra would refuse the first job that lacks it.
    names = [name for name in names if key not in {item.name for item in options(group, name)}]
    if not names:
        return
    own = {item.name for name in names for item in options(group, name)}
    chosen = f"{group}={','.join(names)}"
    has = ", ".join(sorted(own)) or "no options"
    owners = [name for name in TABLES[group] if key in {o.name for o in options(group, name)}]
    if owners:
        raise ConfigError(f"{key} does nothing with {chosen}, which has {has}: it is an option of "
                          f"{group}={' or '.join(owners)}")  # fmt: skip
    close = difflib.get_close_matches(key, all_options(group), 1)
    hint = f" - did you mean {close[0]}?" if close else ""
    raise ConfigError(f"unknown key {key!r}: {chosen} has {has}{hint}")


def _choices_of(group: str, arguments: list[str]) -> list[str]:
    """The choices of a group of TABLES that the arguments name, by itself or by ``algo``."""
    if named := value_of(arguments, group):
        return named.split(",")
    # A sweep names several; an algorithm that is named goes before a recipe's.
    named = "algo" if value_of(arguments, "algo") else "recipe"
    told = set_by("recipe", value_of(arguments, "recipe") or "none", "model")
    model = value_of(arguments, "model") or told or "tiny"
    otherwise = set_by("model", model, group) or DEFAULTS[group]
    presets = (value_of(arguments, named) or "").split(",")
    return [set_by(named, preset, group) or otherwise for preset in presets]


# ---- tasks ----


def environment(value: str) -> list[str]:
    """``env=VALUE``, the tasks of VALUE standing between commas.

    A task that is neither ours nor a file of configs/env joins Hydra's group by its id. Raises
    ConfigError.
    """
    from hydra.core.config_store import ConfigStore

    names = []
    for choice in value.split(","):
        name = re.sub(r"\W+", "_", choice)
        if choice not in (*files_of("env"), *own_tasks()):
            try:
                env_id = find(choice, choices("env"))
            except UnknownEnv as error:
                raise ConfigError(f"env={error}") from error
            except ImportError as error:
                message = f"env={value}: its package cannot be imported: {error}"
                raise ConfigError(message) from error
            ConfigStore.instance().store(group="env", name=name, node={"id": env_id})
        names.append(name)
    return [f"env={','.join(names)}"]


def task_options(arguments: list[str]) -> tuple[str, ...]:
    """The options of the task that the arguments name (of the default one where they name none)."""
    recipe = value_of(arguments, "recipe") or "none"
    usual = set_by("recipe", recipe, "env") or "sokoban"
    name = value_of(arguments, "env.id") or value_of(arguments, "env") or usual
    if name in files_of("env"):
        text = (CONFIGS / "env" / f"{name}.yaml").read_text()
        line = re.search(r"^ *id: *(\S+)", text, re.MULTILINE)
        name = line[1] if line else name
    try:
        return tuple(options_of(find(name.strip("'"))))
    except Exception:  # whatever is wrong with the environment is told where it is made
        return ()


def _as_task_option(argument: str, arguments: list[str]) -> str:
    """A bare ``option=value`` of the task under its whole key. Raises ConfigError."""
    key, equals, _ = argument.partition("=")
    known = [item.name for item in keys()]
    if not equals or not key.isidentifier() or key in known or key in groups():
        return argument
    own = task_options(arguments)
    if key in own:
        return f"env.kwargs.{argument}"
    close = difflib.get_close_matches(key, [*own, *known], 1)
    if close:
        where = "is an option of the task" if close[0] in own else "is a key"
        raise ConfigError(f"unknown key {key!r} - did you mean {close[0]}, which {where}?")
    raise ConfigError(
        f"unknown key {key!r}: it is no key (--help documents them) and no option of the task, "
        f"which has {', '.join(own) or 'none'}"
    )


def refuse_unused(command: str, arguments: list[str]) -> None:
    """Raise ConfigError for an argument that ``command`` does not read.

    ``arguments`` are as ``rewrite_all`` returns them.
    """
    uses = USES[command]
    for told in (value_of(arguments, "recipe") or "").split(","):
        recipe = told.removesuffix(AS_TOLD)
        if command == "train" and for_sft(recipe):
            raise ConfigError(f"recipe={recipe}: it is of supervised learning: ragen_lite.sft")
    for argument in arguments:
        pair = split_argument(argument)
        if pair is None:
            continue
        key = pair[0]
        read = any(key == use or key.startswith(f"{use}.") for use in uses)
        if not read or (command, key) in UNUSED:
            raise ConfigError(f"{key} does nothing in {command}, which reads {', '.join(uses)}")
