"""The files of configs/: what there is to choose, and what a choice sets."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from ragen_lite.agents.engines.table import ENGINES
from ragen_lite.config.groups import TABLES
from ragen_lite.config.schema import ConfigError
from ragen_lite.envs.registry import installed_tasks, own_tasks

CONFIGS = Path(__file__).parents[1] / "configs"
TASK_CREDIT = "task_credit"  # what a task prefers; no group of the command line
# The members of a group begin in the same state, and what is to be learnt is which push to make:
# GiGPO compares just that. GRPO is not told apart from it (benchmarks/RESULTS.md).
TASK_ALGO = {"ragen_lite/Sokoban-v0": "gigpo"}
AS_TOLD = "_as_told"  # the end of a recipe's name for Hydra
OF_ALGO = ("credit", "critic", "loss", "filter")  # the groups that files of algo/ set


def files_of(group: str) -> list[str]:
    """The files of a configuration group such as ``recipe``."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def choices(group: str) -> list[str]:
    """What can be written behind ``GROUP=``."""
    if group in TABLES:
        return list(TABLES[group])
    if group == "engine":
        return ["auto", *ENGINES]
    tasks = {*own_tasks(), *installed_tasks()} if group == "env" else set()
    return sorted({*files_of(group), *tasks})


def groups() -> list[str]:
    """The configuration groups."""
    folders = {path.name for path in CONFIGS.iterdir() if any(path.glob("*.yaml"))}
    return sorted({*folders, *TABLES, "engine", "env"} - {TASK_CREDIT})


def set_by(file_group: str, name: str, group: str) -> str | None:
    """The choice of a group that a file such as algo/ppo.yaml makes; None where it makes none."""
    path = CONFIGS / file_group / f"{name}.yaml"
    text = path.read_text() if path.is_file() else ""
    override = re.search(rf"override /{group}: (\w+)", text)
    return override[1] if override else None


def check_choice(group: str, names: list[str]) -> None:
    """Raise ConfigError for a name that nothing in the group has."""
    allowed = choices(group)
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, 1)
            hint = f" - did you mean {close[0]}?" if close else ""
            raise ConfigError(f"{group}={name}: choose one of {', '.join(allowed)}{hint}")


def less_named(recipe: str, named: set[str]) -> str:
    """A recipe without what belongs to groups that the user has named; its name for Hydra.

    Its values come after those of all groups, so what it says of the model, for example, would
    hold for any other one too. Raises ConfigError for an unknown recipe.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    check_choice("recipe", [recipe])
    # How long a conversation may be is no matter of the engine.
    named = named - {"engine"}
    told = OmegaConf.to_container(OmegaConf.load(CONFIGS / "recipe" / f"{recipe}.yaml")) or {}
    assert isinstance(told, dict)
    if "algo" in named:
        named = {*named, *OF_ALGO}
    defaults = [entry for entry in told.pop("defaults", []) if not _sets(entry) & named]
    kept = {key: value for key, value in told.items() if key not in named}
    if "model" in named:
        # Another model, in the recipe's chat template and with its adapter.
        rest = {key: value for key, value in told.get("model", {}).items() if key != "path"}
        kept["model"] = rest
    node = {"defaults": [*defaults, "_self_"], **kept}
    name = f"{recipe}{AS_TOLD}"
    ConfigStore.instance().store(group="recipe", name=name, node=node, package="_global_")
    return name


def _sets(entry: object) -> set[str]:
    """The group of an entry of a defaults list, such as ``override /env: countdown``."""
    keys = entry if isinstance(entry, dict) else ()
    return {str(key).removeprefix("override /") for key in keys}


def for_sft(recipe: str) -> bool:
    """Whether a recipe says what to learn from, and so is of supervised learning."""
    path = CONFIGS / "recipe" / f"{recipe}.yaml"
    return path.is_file() and bool(re.search(r"^demos:", path.read_text(), re.MULTILINE))
