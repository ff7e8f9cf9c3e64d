"""The groups whose choices come from tables: context, credit, critic, loss, filter, instances,
overlong, kl, correction, engine and env.

An entry of a table is a frozen dataclass whose fields are its options. Hydra sees a copy of it that
can be written to; what a command gets is the frozen one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

from ragen_lite.agents.contexts import CONTEXTS, BadContext, ContextRule, FullContext
from ragen_lite.agents.engines.table import ENGINES
from ragen_lite.algorithms.advantages import Advantage
from ragen_lite.algorithms.corrections import Correction
from ragen_lite.algorithms.critics import Critic
from ragen_lite.algorithms.curriculum import Curriculum
from ragen_lite.algorithms.filters import Filter
from ragen_lite.algorithms.kl import Penalty
from ragen_lite.algorithms.losses import Loss
from ragen_lite.algorithms.options import BadOption
from ragen_lite.algorithms.overlong import Overlong
from ragen_lite.algorithms.tables import (
    ADVANTAGES,
    CORRECTIONS,
    CRITICS,
    FILTERS,
    INSTANCES,
    KL_PENALTIES,
    LOSSES,
    OVERLONG,
)
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.envs.names import resolve
from ragen_lite.envs.registry import own_tasks

TABLES: dict[str, dict[str, str]] = {
    "context": CONTEXTS,
    "credit": ADVANTAGES,
    "critic": CRITICS,
    "loss": LOSSES,
    "filter": FILTERS,
    "instances": INSTANCES,
    "overlong": OVERLONG,
    "kl": KL_PENALTIES,
    "correction": CORRECTIONS,
}
DEFAULTS = {
    "context": "full",
    "credit": "grpo",
    "critic": "off",
    "loss": "ppo",
    "filter": "outcome",
    "instances": "as_drawn",
    "overlong": "keep",
    "kl": "off",
    "correction": "off",
}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What a step of training does with its trajectories."""

    credit: Advantage
    critic: Critic
    loss: Loss
    filter: Filter
    instances: Curriculum
    overlong: Overlong
    kl: Penalty
    correction: Correction


def entry_of(group: str, name: str) -> type[Any]:
    """The dataclass of a choice."""
    found: type[Any] = resolve(TABLES[group][name])
    return found


def name_of(group: str, entry: Any) -> str:
    """The choice of a group that an entry was made from."""
    return next(name for name in TABLES[group] if isinstance(entry, entry_of(group, name)))


def node(group: str, name: str) -> type[Any]:
    """The dataclass that Hydra composes for ``GROUP=NAME``: the options, and ``name``."""
    entry = entry_of(group, name)
    # The annotations are texts, and Hydra checks types by the classes.
    types = get_type_hints(entry)
    options: list[Any] = [("name", str, field(default=name))]
    # Options that both sides have keep their defaults, so the help shows what will be used.
    options += [(f.name, types[f.name], field(default=f.default)) for f in fields(entry)]
    return make_dataclass(f"{group}_{name}", options)


def store() -> None:
    """Tell Hydra the groups and their choices."""
    from hydra.core.config_store import ConfigStore

    hydra = ConfigStore.instance()
    hydra.store(name="schema", node=Config)
    for group, table in TABLES.items():
        for name in table:
            hydra.store(group=group, name=name, node=node(group, name))
    for name in ("auto", *ENGINES):
        hydra.store(group="engine", name=name, node={"name": name})
    for name, env_id in own_tasks().items():
        hydra.store(group="env", name=name, node={"id": env_id})


def entry_from(config: Config, group: str) -> Any:
    """The entry that a configuration has chosen in a group of TABLES, frozen and checked.

    Raises ConfigError for an option that cannot work.
    """
    options = asdict(getattr(config, group))
    entry = entry_of(group, options.pop("name"))
    try:
        return entry(**options)
    except (BadOption, BadContext) as error:
        raise ConfigError(f"{group}.{error.key}={error.why}") from error


def algorithm_of(config: Config) -> Algorithm:
    """The algorithm that a configuration describes. Raises ConfigError."""
    chosen = [option.name for option in fields(Algorithm)]
    return Algorithm(**{group: entry_from(config, group) for group in chosen})


def context_of(config: Config) -> ContextRule:
    """What of the conversation each prompt holds. Raises ConfigError."""
    # A configuration that was made by hand has chosen nothing.
    rule: ContextRule = entry_from(config, "context") if config.context else FullContext()
    return rule
