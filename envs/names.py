"""Names of things in modules, as the tables have them: ``package.module:name``."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(name: str) -> Any:
    """What ``package.module:name`` names; its module is imported only now.

    >>> resolve("math:sqrt")(4)
    2.0
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
