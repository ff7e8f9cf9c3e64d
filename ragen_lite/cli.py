"""The command line: Hydra's ``key=value``, with what it would answer cryptically answered in a sentence.

``env=NAME`` is a file of configs/env, a task of ours or an installed package's; an option of the task may be written
bare (``env=sokoban boxes=2``).
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ragen_lite.config import Config, ConfigError, check, documented
from ragen_lite.envs.registry import UnknownEnv, find, installed, ours
from ragen_lite.envs.registry import options_of as task_parameters

CONFIGS = Path(__file__).with_name("configs")

# What each command reads; anything else on its command line would silently do nothing.
_RUNS = ("env", "model", "engine", "sample", "seed")
_LEARNS = (*_RUNS, "train", "eval.every", "eval.instances", "run", "recipe")
_USES = {
    "train": (*_LEARNS, "algo"),
    "sft": (*_LEARNS, "demos"),
    "evaluate": (*_RUNS, "eval.instances", "eval.split", "eval.compare"),
    "play": (*_RUNS, "eval.split"),
}


def refuse_unused(command: str, arguments: list[str]) -> None:
    """Raise ConfigError for an argument that ``command`` does not read; ``arguments`` as ``rewritten`` returns them."""
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        if "=" not in argument or argument.startswith("-") or key.startswith("hydra"):
            continue
        uses = _USES[command]
        if not any(key == use or key.startswith(f"{use}.") for use in uses) or (command, key) == (
            "sft",
            "train.epochs",
        ):
            raise ConfigError(f"{key} does nothing in {command}, which reads {', '.join(uses)}")


def options_of(group: str) -> list[str]:
    """The files of a configuration group such as ``env``."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def choices(group: str) -> list[str]:
    """What can be written behind ``GROUP=``."""
    tasks = {*ours(), *installed()} if group == "env" else set()
    return sorted({*options_of(group), *tasks})


def groups() -> list[str]:
    """The configuration groups."""
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and any(path.glob("*.yaml")))


def help_text(command: str, purpose: str) -> str:
    """What ``--help`` prints."""
    lines = [
        purpose,
        "",
        f"python -m ragen_lite.{command} KEY=VALUE ...",
        "",
        "Groups, each a set of values (GROUP=CHOICE):",
    ]
    lines += [f"  {group}={' | '.join(choices(group))}" for group in groups()]
    lines += [
        "  env=MODULE:NAME-v0 takes any registered Gymnasium env, model=PATH any Hugging Face folder or hub name;",
        "  an option of the task may be written without env.kwargs: env=sokoban boxes=2",
        "",
    ]
    lines += ["Values, with their defaults before a group changes them:"]
    for key, default, doc in documented():
        lines.append(f"  {key}={'null' if default is None else default}\n      {doc}")
    lines += ["", "--cfg job shows the resolved values; -m runs a sweep, such as -m algo=grpo,rloo seed=1,2,3"]
    return "\n".join(lines)


# ---- the command line ----


def task_options(arguments: list[str]) -> tuple[str, ...]:
    """The options of the task that the arguments name (of the default one where they name none)."""
    name = next((a.partition("=")[2] for a in arguments if a.startswith("env=")), "sokoban")
    name = next((a.partition("=")[2] for a in arguments if a.startswith("env.id=")), name)
    if name in options_of("env"):
        lines = [line.strip() for line in (CONFIGS / "env" / f"{name}.yaml").read_text().splitlines()]
        name = next((line.removeprefix("id:").strip() for line in lines if line.startswith("id:")), name)
    try:
        return tuple(task_parameters(find(name.strip("'"))))
    except Exception:  # whatever is wrong with the environment is told where it is made
        return ()


def rewritten(arguments: list[str]) -> list[str]:
    """The arguments as Hydra takes them. Raises ConfigError."""
    options: tuple[str, ...] | None = None
    result = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        known = [name for name, _, _ in documented()]
        if equals and key.isidentifier() and key not in known and key not in groups():
            options = task_options(arguments) if options is None else options
            if key in options:
                argument = f"env.kwargs.{argument}"
            elif close := difflib.get_close_matches(key, [*options, *known], 1):
                where = "is an option of the task" if close[0] in options else "is a key"
                raise ConfigError(f"unknown key {key!r} - did you mean {close[0]}, which {where}?")
            else:
                raise ConfigError(
                    f"unknown key {key!r}: it is no key (--help documents them) and no option of the task, which has "
                    f"{', '.join(options) or 'none'}"
                )
        result += rewrite(argument)
    return result


def rewrite(argument: str) -> list[str]:
    """An argument as Hydra takes it: models by path, environments by id, options of the task. Raises ConfigError."""
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-") or key.startswith("hydra"):
        return [argument]
    bare = key.lstrip("+~")
    if bare in groups():
        if bare == "model" and value not in options_of("model") and "," not in value:
            return ["model=hf", f"model.path='{value}'"]
        if bare == "env" and not all(choice in options_of("env") for choice in value.split(",")):
            return environment(value)
        for choice in value.split(","):
            if choice not in options_of(bare):
                close = difflib.get_close_matches(choice, options_of(bare), 1)
                hint = f" - did you mean {close[0]}?" if close else ""
                raise ConfigError(f"{bare}={choice}: choose one of {', '.join(options_of(bare))}{hint}")
        return [argument]
    if bare.startswith(("env.kwargs.", "engine.options.")):
        return [f"++{bare}={value}"]
    known = [name for name, _, _ in documented()]
    if bare not in known:
        close = difflib.get_close_matches(bare, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the keys are {', '.join(known)}"
        raise ConfigError(f"unknown key {bare!r} - {hint} --help documents them all")
    return [argument]


def environment(value: str) -> list[str]:
    """``env=VALUE`` where tasks without a file in configs/env are among its choices, which stand between commas: such a
    task joins Hydra's group by its id. Raises ConfigError."""
    from hydra.core.config_store import ConfigStore

    names = []
    for choice in value.split(","):
        name = re.sub(r"\W+", "_", choice)
        if choice not in options_of("env"):
            try:
                ConfigStore.instance().store(group="env", name=name, node={"id": find(choice, choices("env"))})
            except UnknownEnv as error:
                raise ConfigError(f"env={error}") from error
            except ImportError as error:
                raise ConfigError(f"env={value}: its package cannot be imported: {error}") from error
        names.append(name)
    return [f"env={','.join(names)}"]


def compose(arguments: list[str]) -> Config:
    """The configuration that command-line arguments describe. Raises ConfigError."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _store()
    GlobalHydra.instance().clear()
    overrides = rewritten(arguments)
    try:
        with initialize_config_dir(str(CONFIGS.resolve()), version_base=None):
            config = OmegaConf.to_object(hydra_compose("config", overrides))
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{' '.join(overrides)}: {str(cause).splitlines()[0]}") from error
    finally:
        GlobalHydra.instance().clear()
    assert isinstance(config, Config)
    check(config)
    return config


def _store() -> None:
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)


def command(name: str, purpose: str, run: Callable[[Config], None]) -> None:
    """The main function of a command: read the command line, run, and say plainly what was wrong with the input."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(help_text(name, purpose))
        return
    try:
        overrides = rewritten(arguments)
        refuse_unused(name, overrides)
        if any(a.startswith("-") for a in arguments):  # --cfg, --multirun, ...: Hydra's own
            _hydra(overrides, run)
        else:
            run(compose(arguments))
    except _expected() as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _expected() -> tuple[type[Exception], ...]:
    from ragen_lite.agents.engine import EngineFailure, StaleWeights
    from ragen_lite.agents.openai_engine import ServerRefused
    from ragen_lite.agents.rollout import PromptTooLong
    from ragen_lite.learner import NotFinite

    return ConfigError, PromptTooLong, NotFinite, EngineFailure, StaleWeights, ServerRefused


def _hydra(arguments: list[str], run: Callable[[Config], None]) -> None:
    import hydra
    from omegaconf import DictConfig, OmegaConf

    _store()

    def job(raw: DictConfig) -> None:
        config = OmegaConf.to_object(raw)
        assert isinstance(config, Config)
        try:
            check(config)
            run(config)
        except _expected() as error:  # here, since Hydra would print a traceback
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    sweep = [a for a in arguments if a in ("-m", "--multirun")]  # Hydra takes it before the values only
    sys.argv = [sys.argv[0], *sweep, *(a for a in arguments if a not in sweep)]
    hydra.main(config_path=str(CONFIGS.resolve()), config_name="config", version_base=None)(job)()
