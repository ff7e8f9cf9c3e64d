"""The command line: Hydra's ``key=value``, composed, checked, and handed to a command."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from ragen_lite.agents.errors import UserError
from ragen_lite.config.checks import check
from ragen_lite.config.files import CONFIGS, choices, groups
from ragen_lite.config.groups import TABLES, entry_of, store
from ragen_lite.config.keys import Key, keys, options
from ragen_lite.config.overrides import refuse_unused, rewrite_all
from ragen_lite.config.scale import scaled
from ragen_lite.config.schema import Config, ConfigError


def help_text(command: str, purpose: str) -> str:
    """What ``--help`` prints."""
    lines = [purpose, "", f"python -m ragen_lite.{command} KEY=VALUE ...", ""]
    lines.append("Groups, each a set of values (GROUP=CHOICE):")
    lines += [f"  {group}={' | '.join(choices(group))}" for group in groups()]
    lines += [
        "  env=MODULE:NAME-v0 takes any registered Gymnasium env, model=PATH any Hugging Face",
        "  folder or hub name; an option of the task may be written without env.kwargs:",
        "  env=sokoban boxes=2",
        "",
        "Values, with their defaults before a group changes them:",
    ]
    for key in keys():
        lines += _described(key)
    for group, table in TABLES.items():
        for name in table:
            summary = (entry_of(group, name).__doc__ or "").splitlines()[0]
            lines += ["", f"  {group}={name}: {summary}"]
            for key in options(group, name):
                lines += _described(key)
    lines += ["", "--cfg job shows the resolved values; -m runs a sweep, such as"]
    lines.append("-m algo=grpo,rloo seed=1,2,3")
    return "\n".join(lines)


def _described(key: Key) -> list[str]:
    default = "null" if key.default is None else key.default
    return [f"  {key.name}={default}", f"      {key.doc}"]


def compose(arguments: list[str], name: str = "train") -> Config:
    """The configuration that the arguments of a command describe. Raises ConfigError."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    store()
    # Hydra keeps one configuration a process; a test or a notebook composes several.
    GlobalHydra.instance().clear()
    overrides = rewrite_all(arguments, name)
    try:
        with initialize_config_dir(str(CONFIGS.resolve()), version_base=None):
            config = OmegaConf.to_object(hydra_compose("config", overrides))
    # Their first line says what is wrong; the rest is Hydra's own affairs.
    except (HydraException, OmegaConfBaseException) as error:
        first, *rest = str(error.__cause__ or error).splitlines()
        raise ConfigError(f"{_typed(arguments, rest)}: {first}") from error
    finally:
        GlobalHydra.instance().clear()
    assert isinstance(config, Config)
    check(config)
    return config


def _typed(arguments: list[str], details: list[str]) -> str:
    """The argument that an error of Hydra is about, as it was typed; all where it does not say."""
    about = [line.partition("full_key: ")[2] for line in details if "full_key: " in line]
    keys = [argument.partition("=")[0] for argument in arguments]
    found = [a for a, key in zip(arguments, keys, strict=True) if about and about[0].endswith(key)]
    return " ".join(found or arguments)


def command(name: str, purpose: str, run: Callable[[Config], None]) -> None:
    """The main function of a command: read the command line, and run.

    What is wrong with the input is said in a sentence, and the process exits with 2.
    """
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character of a task shows a mark in its place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if "--help" in arguments or "-h" in arguments:
        print(help_text(name, purpose))
        return
    reporting_errors(lambda: _run(name, arguments, run))


def _run(name: str, arguments: list[str], run: Callable[[Config], None]) -> None:
    overrides = rewrite_all(arguments, name)
    refuse_unused(name, overrides)
    if any(argument.startswith("-") for argument in arguments):  # --cfg, --multirun, ...
        _hydra(overrides, run)
    else:
        run(scaled(compose(arguments, name), print))


def reporting_errors(action: Callable[[], None]) -> None:
    """Do what a command does.

    What is wrong with its input is said in a sentence, and the process exits with 2.
    """
    try:
        action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _hydra(arguments: list[str], run: Callable[[Config], None]) -> None:
    import hydra
    from omegaconf import DictConfig, OmegaConf

    store()

    def job(raw: DictConfig) -> None:
        config = OmegaConf.to_object(raw)
        assert isinstance(config, Config)
        try:
            run(scaled(config, print))
        except UserError as error:  # here, since Hydra would print a traceback
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    # Hydra takes the sign of a sweep before the values only.
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    rest = [argument for argument in arguments if argument not in sweep]
    sys.argv = [sys.argv[0], *sweep, *rest]
    main = hydra.main(config_path=str(CONFIGS.resolve()), config_name="config", version_base=None)
    main(job)()
