"""From a short name such as ``frozen_lake`` to the id that Gymnasium makes it by.

The names are those of this package's tasks and of installed packages' environments. A package
offers its environments by the entry point group ``ragen_lite.envs``: ``name =
"package.module:Class"``, the class being the entry point of what the module registers with
``gymnasium.register``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

GROUP = "ragen_lite.envs"
# By the type of an option's default: what to call its values, and the types that they may have.
# An option whose default is text may take a dictionary or a list too, such as weights by name.
FITTING: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str, dict, list)),
}


class UnknownEnv(ValueError):
    """A name that no task, no installed package and no Gymnasium registration knows.

    Its text says which names there are.
    """


def short_name(env_id: str) -> str:
    """The short name of an id.

    >>> short_name("ragen_lite/FrozenLake-v0"), short_name("ragen_lite/Game2048-v0")
    ('frozen_lake', 'game_2048')
    """
    # Without namespace and version; then an underscore before a capital letter or a digit that
    # follows a small letter.
    name = env_id.rpartition("/")[2].partition("-v")[0]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=[0-9])", "_", name).lower()


def own_tasks() -> dict[str, str]:
    """Short names and ids of the tasks of this package."""
    return {
        short_name(env_id): env_id
        for env_id, spec in gym.registry.items()
        if spec.namespace == "ragen_lite"
    }


def installed_tasks() -> dict[str, EntryPoint]:
    """Short names and entry points of installed packages' environments."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def options_of(env_id: str) -> dict[str, inspect.Parameter]:
    """The parameters of an environment's constructor, by name, without ``render_mode``.

    It imports the environment's module.

    Args:
        env_id: as ``gymnasium.make`` takes it, ``MODULE:NAME-v0`` included.
    """
    # Gymnasium reads MODULE:NAME as "import MODULE, which registers NAME".
    module, colon, plain = env_id.rpartition(":")
    if colon:
        importlib.import_module(module)
    creator: Any = gym.spec(plain).entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    return {
        name: p
        for name, p in inspect.signature(creator).parameters.items()
        if name != "render_mode"
    }


def check_options(env_id: str, kwargs: dict[str, Any]) -> None:
    """Refuse options that the constructor does not have, or whose type is not their default's.

    Args:
        env_id: as ``gymnasium.make`` takes it.
        kwargs: the options by name.

    Raises:
        ValueError: names the option, and what there is or what is needed.
    """
    options = options_of(env_id)
    # A constructor with **kwargs takes any name, so nothing can be checked.
    if any(p.kind is p.VAR_KEYWORD for p in options.values()):
        return
    for name, value in kwargs.items():
        if name not in options:
            close = difflib.get_close_matches(name, options, 1)
            hint = f" - did you mean {close[0]}?" if close else ""
            raise ValueError(f"no option {name}; there are {', '.join(options) or 'none'}{hint}")
        # The exact type, not isinstance: True is an int to Python, but no whole number here. For
        # a default of another type, such as None, everything is let through.
        wanted, fitting = FITTING.get(type(options[name].default), ("", (type(value),)))
        if type(value) not in fitting:
            raise ValueError(f"{name}={value}: {wanted} is needed")


def find(name: str, others: Iterable[str] = ()) -> str:
    """The id of an environment, as ``gymnasium.make`` takes it.

    Args:
        name: a short name, or an id, which is returned as it is.
        others: further names, for the error's suggestions only.

    Raises:
        UnknownEnv: nothing has this name, or the package that offers it does not register it.
    """
    # An id is not looked up here: ``gymnasium.make`` says what is wrong with one.
    if "/" in name or ":" in name or name in gym.registry:
        return name
    if name in (known := own_tasks()):
        return known[name]
    offered = installed_tasks()
    if name in offered:
        entry = offered[name]
        importlib.import_module(entry.module)
        # Registrations name their class as text or hold the class itself.
        for env_id, spec in gym.registry.items():
            if spec.entry_point == entry.value or spec.entry_point is entry.load():
                # With the module before it, so that another process imports it too.
                return f"{entry.module}:{env_id}"
        raise UnknownEnv(
            f"the installed package offers {name} as {entry.value}, but {entry.module} registers no"
            " such entry point with gymnasium.register"
        )
    every = sorted({*known, *offered, *others})
    close = difflib.get_close_matches(name, every, 1)
    hint = f" - did you mean {close[0]}?" if close else ""
    raise UnknownEnv(
        f"{name}: choose one of {', '.join(every)}, or any registered Gymnasium env as"
        f" MODULE:NAME-v0{hint}"
    )
