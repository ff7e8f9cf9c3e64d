"""The parts of the documents that are made from the source: python docs/make.py [--check]

They stand between ``<!-- NAME -->`` and ``<!-- end -->``: the tree of the files, the environments,
the algorithms with their options, old keys and new ones, the metrics, the families of
models, and what a GPU was measured to do. The pages of the recipes are made as a whole.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ragen_lite  # noqa: E402
from benchmarks.gpu import table as card_table  # noqa: E402
from benchmarks.style import FOLDERS, sources, tree_of  # noqa: E402
from docs.recipe_pages import pages  # noqa: E402
from ragen_lite.config.groups import DEFAULTS, TABLES, entry_of  # noqa: E402
from ragen_lite.config.keys import flatten, options  # noqa: E402
from ragen_lite.config.old_keys import NEW_KEYS, NEW_NAMES  # noqa: E402
from ragen_lite.envs.names import resolve  # noqa: E402
from ragen_lite.envs.registry import short_name  # noqa: E402
from ragen_lite.runs.metrics import METRICS  # noqa: E402
from tests.fixtures.families import EXACT, REFUSED  # noqa: E402

DOCUMENTS = (
    "README.md",
    "docs/algorithms.md",
    "docs/metrics.md",
    "docs/models.md",
    "benchmarks/RESULTS.md",
)
WIDTH = 30  # columns of the tree's names
# Options that most tasks have, which the table of tasks leaves out.
COMMON = {"max_turns", "max_actions_per_turn", "max_actions", "render_mode", "self"}


def sentence(text: str | None) -> str:
    """The first sentence of a docstring, in one line."""
    words = " ".join((text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", words)[0]


def row(*cells: str) -> str:
    """A row of a table."""
    # An upright stroke would begin another cell.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def tree() -> list[str]:
    """Every file with the first sentence of its docstring, folder by folder."""
    lines = []
    for folder in reversed(FOLDERS):
        files = [path for path in sources() if path.relative_to(ROOT).parts[0] == folder]
        for room in sorted({path.parent for path in files}):
            lines.append(_line(f"{room.relative_to(ROOT).as_posix()}/", room / "__init__.py"))
            own = [path for path in files if path.parent == room and path.name != "__init__.py"]
            lines += [_line(f"  {path.name}", path) for path in own]
    return ["```", *lines, "```"]


def _line(name: str, path: Path) -> str:
    doc = sentence(ast.get_docstring(tree_of(path))) if path.is_file() else ""
    return f"{name.ljust(WIDTH)}{doc}".rstrip()


def environments() -> list[str]:
    """A row a task: its name, what it is, its own options."""
    lines = ["| env | what it is | options |", "|---|---|---|"]
    for env_id, where in sorted(ragen_lite.TASKS.items(), key=lambda item: short_name(item[0])):
        task = resolve(where)
        parameters = [p for p in inspect.signature(task).parameters if p not in COMMON]
        names = " ".join(f"`{name}`" for name in parameters)
        lines.append(row(f"`{short_name(env_id)}`", sentence(task.__doc__), names))
    return lines


def algorithms() -> list[str]:
    """A table a group: the choices, what each is, its options with their defaults."""
    lines = []
    for group, table in TABLES.items():
        lines += [f"### `{group}=`", "", "| choice | what it is | options |", "|---|---|---|"]
        for name in table:
            doc = sentence(inspect.getdoc(entry_of(group, name)))
            own = "<br>".join(
                f"`{key.name}={key.default}` {key.doc}" for key in options(group, name)
            )
            chosen = " (default)" if DEFAULTS[group] == name else ""
            lines.append(row(f"`{name}`{chosen}", doc, own))
        lines.append("")
    return lines[:-1]


def presets() -> list[str]:
    """A row a preset of ``algo``: what it stands for."""
    lines = ["| preset | what it is | stands for |", "|---|---|---|"]
    for path in sorted((ROOT / "configs" / "algo").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        doc = " ".join(line[2:] for line in text.splitlines()[1:] if line.startswith("# "))
        config: Any = OmegaConf.to_container(OmegaConf.load(path))
        pairs = [pair for entry in config.pop("defaults") for pair in entry.items()]
        words = [f"{group.removeprefix('override /')}={name}" for group, name in pairs]
        words += [f"{key}={str(value).lower()}" for key, value in flatten(config).items()]
        lines.append(row(f"`algo={path.stem}`", doc, f"`{' '.join(words)}`"))
    return lines


def old_keys() -> list[str]:
    """A row an old key, and an old name."""
    lines = ["| before | now |", "|---|---|"]
    lines += [f"| `{old}` | `{new}` |" for old, new in NEW_KEYS.items()]
    lines += [f"| `{group}={old}` | `{group}={new}` |" for (group, old), new in NEW_NAMES.items()]
    return lines


def metrics() -> list[str]:
    """A row a metric."""
    lines = ["| name | what it is |", "|---|---|"]
    return lines + [row(f"`{name}`", metric.doc) for name, metric in METRICS.items()]


def families() -> list[str]:
    """A row a family of models that the tests hold against its own forward pass."""
    lines = ["| family | | of its own |", "|---|---|---|"]
    lines += [row(name, "exact", words) for name, (words, _) in EXACT.items()]
    return lines + [row(name, "refused", words) for name, (words, _) in REFUSED.items()]


def gpu() -> list[str]:
    """What ``make bench-gpu`` measured, if it did."""
    path = ROOT / "benchmarks" / "gpu.json"
    return card_table(json.loads(path.read_text()) if path.is_file() else None)


PARTS = {
    "gpu": gpu,
    "families": families,
    "tree": tree,
    "environments": environments,
    "algorithms": algorithms,
    "presets": presets,
    "old keys": old_keys,
    "metrics": metrics,
}


def render(text: str) -> str:
    """A document with its parts made anew."""

    def part(match: re.Match[str]) -> str:
        lines = "\n".join(PARTS[match[1]]())
        return f"<!-- {match[1]} -->\n{lines}\n<!-- end -->"

    names = "|".join(PARTS)
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- end -->", part, text, flags=re.DOTALL)


def main() -> None:
    """Write the documents, or say which are out of date and exit with 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    made = pages()
    for name in (*DOCUMENTS, *made):
        path = ROOT / name
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        after = made[name] if name in made else render(before)
        if before != after:
            stale.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date: {', '.join(stale)}; make docs makes them anew")


if __name__ == "__main__":
    main()
