"""Every key of the configuration, with its default and its documentation, read from the source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from ragen_lite.config.groups import DEFAULTS, TABLES, entry_of
from ragen_lite.config.schema import Config


@dataclass(frozen=True, slots=True)
class Key:
    """One key: ``name`` is dotted, ``doc`` is the text under its field."""

    name: str
    default: Any
    doc: str


def field_docs(owner: type) -> dict[str, str]:
    """The texts under the fields of a dataclass and of those it is made from."""
    docs: dict[str, str] = {}
    # A loss inherits the options of every loss; its own come last and win.
    for part in reversed(owner.__mro__):
        if is_dataclass(part):
            docs |= _own_docs(part)
    return docs


@cache  # parsing the source for every key anew is a third of what composing takes
def _own_docs(owner: type) -> dict[str, str]:
    tree = ast.parse(inspect.getsource(owner)).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    # Python keeps no text that stands under a field, so it is read from the source.
    for statement, text in zip(tree.body, tree.body[1:], strict=False):
        documented = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and documented:
            words = str(text.value.value).split()  # type: ignore[attr-defined]
            docs[ast.unparse(statement.target)] = " ".join(words)
    return docs


def keys(owner: type = Config, prefix: str = "") -> Iterator[Key]:
    """The keys that are there whatever is chosen."""
    docs = field_docs(owner)
    for item in fields(owner):
        default = getattr(owner(), item.name)
        if is_dataclass(default):
            yield from keys(type(default), f"{prefix}{item.name}.")
        elif prefix or item.name not in TABLES:
            yield Key(f"{prefix}{item.name}", default, docs.get(item.name, ""))


def options(group: str, name: str) -> list[Key]:
    """The options of a choice of TABLES."""
    entry = entry_of(group, name)
    docs = field_docs(entry)
    found = []
    for option in fields(entry):
        text = docs.get(option.name, "")
        found.append(Key(f"{group}.{option.name}", option.default, text))
    return found


def all_options(group: str) -> set[str]:
    """The options of all choices of a group."""
    return {key.name for name in TABLES[group] for key in options(group, name)}


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Values by key, and the defaults of what is missing: an older version had fewer keys."""
    found = dict(values)
    known = list(keys())
    for group, choice in DEFAULTS.items():
        found.setdefault(group, choice)
    for group, table in TABLES.items():
        if found.get(group) in table:
            known += options(group, found[group])
    for key in known:
        found.setdefault(key.name, key.default)
    return found


def flatten(nested: dict[str, Any]) -> dict[str, Any]:
    """A nested configuration, such as a run's config.yaml, as values by key.

    A group's choice stands under the group's own name.
    """
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if not isinstance(value, dict):
            found[name] = value
            continue
        for inner, item in value.items():
            choice = name in TABLES and inner == "name"
            found[name if choice else f"{name}.{inner}"] = item
    return found
