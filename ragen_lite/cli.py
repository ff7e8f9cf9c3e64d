"""The command line: Hydra's ``key=value``, with what it would answer cryptically answered in a sentence."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from ragen_lite.config import Config, ConfigError, check, documented

CONFIGS = Path(__file__).with_name("configs")

# What each command reads; anything else on its command line would silently do nothing.
_RUNS = ("env", "model", "engine", "sample", "seed")
_LEARNS = (*_RUNS, "train", "eval.every", "eval.instances", "run", "recipe")
_USES = {
    "train": (*_LEARNS, "algo"),
    "sft": (*_LEARNS, "data"),
    "evaluate": (*_RUNS, "eval.instances", "eval.split", "eval.compare"),
    "play": (*_RUNS, "eval.split"),
}


def refuse_unused(command: str, arguments: list[str]) -> None:
    """Raise ConfigError for an argument that ``command`` does not read."""
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
    """The choices of a configuration group such as ``env``."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


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
    lines += [f"  {group}={' | '.join(options_of(group))}" for group in groups()]
    lines += [
        "  env=MODULE:NAME-v0 takes any registered Gymnasium env, model=PATH any Hugging Face folder or hub name",
        "",
    ]
    lines += ["Values, with their defaults before a group changes them:"]
    for key, default, doc in documented():
        lines.append(f"  {key}={'null' if default is None else default}\n      {doc}")
    lines += ["", "--cfg job shows the resolved values; -m runs a sweep, such as -m algo=grpo,rloo seed=1,2,3"]
    return "\n".join(lines)


# ---- the command line ----


def rewrite(argument: str) -> list[str]:
    """An argument as Hydra takes it: models by path, environments by id, options of the task. Raises ConfigError."""
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-") or key.startswith("hydra"):
        return [argument]
    bare = key.lstrip("+~")
    if bare in groups():
        if bare == "model" and value not in options_of("model") and "," not in value:
            return ["model=hf", f"model.path='{value}'"]
        if bare == "env" and (":" in value or "/" in value):
            return ["env=custom", f"env.id='{value}'"]
        for choice in value.split(","):
            if choice not in options_of(bare):
                close = difflib.get_close_matches(choice, options_of(bare), 1)
                hint = f" - did you mean {close[0]}?" if close else ""
                extra = ", or any registered Gymnasium env as MODULE:NAME-v0" if bare == "env" else ""
                raise ConfigError(f"{bare}={choice}: choose one of {', '.join(options_of(bare))}{extra}{hint}")
        return [argument]
    if bare.startswith(("env.kwargs.", "engine.options.")):
        return [f"++{bare}={value}"]
    known = [name for name, _, _ in documented()]
    if bare not in known:
        close = difflib.get_close_matches(bare, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the keys are {', '.join(known)}"
        raise ConfigError(f"unknown key {bare!r} - {hint} --help documents them all")
    return [argument]


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
    overrides = [new for argument in arguments for new in rewrite(argument)]
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
        rewritten = [new for a in arguments for new in rewrite(a)]
        refuse_unused(name, arguments)
        if any(a.startswith("-") for a in arguments):  # --cfg, --multirun, ...: Hydra's own
            _hydra(rewritten, run)
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

    sys.argv = [sys.argv[0], *arguments]
    hydra.main(config_path=str(CONFIGS.resolve()), config_name="config", version_base=None)(job)()
