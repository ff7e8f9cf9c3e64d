"""How the code reads, in numbers: python -m benchmarks.style [--files]

Lines, functions by lines and by statements, syntax nodes per line of code, import cycles, arrows
that run upward, the longest import chain, and the hops from the command to the loss. The limits
stand beside the figures; tests/test_style.py holds them.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("envs", "agents", "ragen_lite")

MOST_LINES = 300  # of a file
MOST_NODES = 9.45  # syntax nodes a line of code; 11.34 before the rooms were made
LONGEST_CHAIN = 8  # files
MOST_HOPS = 3
# Functions, by lines and by statements: (median, 90th percentile, largest).
FUNCTION_LINES = (8, 25, 60)
FUNCTION_STATEMENTS = (6, 18, None)

# From below to above: a room imports what stands before it, and nothing that stands behind it.
ROOMS = (
    "envs",
    "agents",
    "ragen_lite/algorithms",
    "ragen_lite/config",
    "ragen_lite/models",
    "ragen_lite/learning",
    "ragen_lite/runs",
    "ragen_lite/cluster",
    "ragen_lite",
)
# Rooms that stand side by side: none of them imports another.
BESIDE = ("envs/games", "envs/answers", "envs/adapters")

# The way from the command to the loss: file, function, and the call that is the next hop.
HOPS = (
    ("ragen_lite/train.py", "train", "train_step"),
    ("ragen_lite/train.py", "train_step", "session.learner.step"),
    ("ragen_lite/learning/learner.py", "step", "loss"),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(root: Path = ROOT) -> list[Path]:
    """Every source file of the three folders, in all their rooms; links are followed by none."""
    found = [path for folder in FOLDERS for path in (root / folder).rglob("*.py")]
    return sorted(p for p in found if not any(q.is_symlink() for q in (p, *p.parents)))


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


# ---- a file ----


def docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """The texts that stand as statements: docstrings, and the documentation under fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function of a file."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


@dataclass(frozen=True, slots=True)
class File:
    """The figures of one file; ``code`` are its lines without blanks, comments and docstrings."""

    path: Path
    lines: int
    comments: int
    code: int
    nodes: int
    function_lines: tuple[int, ...]
    function_statements: tuple[int, ...]
    tuple_assignments: int

    @property
    def nodes_per_line(self) -> float:
        """Syntax nodes a line of code."""
        return self.nodes / max(1, self.code)


def measure(path: Path) -> File:
    """Count one file."""
    tree = tree_of(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    texts = list(docstrings(tree))
    silent = {n for text in texts for n in range(text.lineno, (text.end_lineno or 0) + 1)}
    comments = [line for line in lines if line.strip().startswith("#")]
    code = [
        line
        for number, line in enumerate(lines, 1)
        if line.strip() and number not in silent and not line.strip().startswith("#")
    ]
    nodes = sum(1 for _ in ast.walk(tree)) - 2 * len(texts)
    return File(
        path,
        len(lines),
        len(comments),
        len(code),
        nodes,
        tuple((f.end_lineno or 0) - f.lineno + 1 for f in functions(tree)),
        tuple(sum(isinstance(n, ast.stmt) for n in ast.walk(f)) - 1 for f in functions(tree)),
        sum(_is_tuple_assignment(node) for node in ast.walk(tree)),
    )


def _is_tuple_assignment(node: ast.AST) -> bool:
    """Whether several values are given to several names in one line."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def quantile(values: Sequence[int], share: float) -> int:
    """The value that ``share`` of the sorted values do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# ---- imports ----


def module_file(name: str, root: Path = ROOT) -> Path | None:
    """The source of a module of ours: ``ragen_lite.envs.base`` is ``envs/base.py``."""
    parts = name.split(".")
    if parts[0] != "ragen_lite":
        return None
    inside = parts[1:]
    folder = root if inside and inside[0] in ("envs", "agents") else root / "ragen_lite"
    path = folder.joinpath(*inside)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if inside and candidate.is_file():
            return candidate
    return root / "ragen_lite" / "__init__.py" if not inside else None


def imported(path: Path, root: Path = ROOT) -> set[Path]:
    """The files of ours that a file imports, at its top or within its functions."""
    found = set()
    for node in ast.walk(tree_of(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if module_file(name, root) else node.module for name in whole]
        found |= {file for name in names if (file := module_file(name, root))}
    return found - {path}


def graph(root: Path = ROOT) -> dict[Path, set[Path]]:
    """Who imports whom."""
    return {path: imported(path, root) for path in sources(root)}


def room(path: Path, root: Path = ROOT) -> int:
    """The place of a file's room in ROOMS; the registry of ids is below all."""
    name = path.relative_to(root).as_posix()
    if name == "ragen_lite/__init__.py":
        return -1
    flat = name.count("/") == 1
    inside = [i for i, folder in enumerate(ROOMS[:-1]) if name.startswith(f"{folder}/")]
    return len(ROOMS) - 1 if flat and name.startswith("ragen_lite/") else max(inside)


def upward(edges: dict[Path, set[Path]], root: Path = ROOT) -> list[str]:
    """Imports that run from a room to one above it, or to one beside it."""
    found = []
    for path, targets in edges.items():
        here = path.relative_to(root).as_posix()
        for target in targets:
            there = target.relative_to(root).as_posix()
            own = next((side for side in BESIDE if here.startswith(f"{side}/")), None)
            other = next((side for side in BESIDE if there.startswith(f"{side}/")), None)
            across = own is not None and other is not None and own != other
            if room(target, root) > room(path, root) or across:
                found.append(f"{here} imports {there}")
    return sorted(found)


def longest_chain(edges: dict[Path, set[Path]]) -> list[Path]:
    """The longest way along the imports. Raises ValueError for a cycle, which it names."""
    known: dict[Path, list[Path]] = {}
    under_way: list[Path] = []

    def chain(path: Path) -> list[Path]:
        if path in under_way:
            names = [p.name for p in (*under_way[under_way.index(path) :], path)]
            raise ValueError(f"an import cycle: {' -> '.join(names)}")
        if path not in known:
            under_way.append(path)
            tails = [chain(target) for target in sorted(edges.get(path, ()))]
            under_way.pop()
            known[path] = [path, *max(tails, key=len, default=[])]
        return known[path]

    return max((chain(path) for path in edges), key=len)


# ---- hops ----


def hops(root: Path = ROOT) -> list[str]:
    """The hops from the command to the loss. Raises ValueError where one is not in the source."""
    found = []
    for file, function, call in HOPS:
        bodies = [f for f in functions(tree_of(root / file)) if f.name == function]
        calls = {
            ast.unparse(node.func)
            for body in bodies
            for node in ast.walk(body)
            if isinstance(node, ast.Call)
        }
        if call not in calls:
            raise ValueError(f"{file}: {function} does not call {call}")
        found.append(f"{file}: {function} -> {call}(...)")
    return found


# ---- printing ----


def percentiles(values: Sequence[int]) -> tuple[int, int, int]:
    """Median, 90th percentile and largest."""
    return quantile(values, 0.5), quantile(values, 0.9), max(values)


def main() -> None:
    """Print the figures beside their limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", action="store_true", help="a line for each file too")
    options = parser.parse_args()
    files = [measure(path) for path in sources()]
    if options.files:
        print("| file | lines | nodes a line | functions | longest |\n|---|---|---|---|---|")
        for file in files:
            longest = max(file.function_lines, default=0)
            name = file.path.relative_to(ROOT)
            counts = f"{file.nodes_per_line:.1f} | {len(file.function_lines)} | {longest}"
            print(f"| {name} | {file.lines} | {counts} |")
        print()
    lines = [n for file in files for n in file.function_lines]
    statements = [n for file in files for n in file.function_statements]
    code = sum(file.code for file in files)
    density = sum(file.nodes for file in files) / code
    tuples = 1000 * sum(file.tuple_assignments for file in files) / code
    comments = sum(f.comments for f in files) / sum(f.lines for f in files)
    edges = graph()
    chain = longest_chain(edges)
    longest_file = max(files, key=lambda file: file.lines)
    rows = {
        "files": (len(files), ""),
        "lines": (sum(file.lines for file in files), ""),
        "lines of code": (code, ""),
        "longest file": (f"{longest_file.lines} ({longest_file.path.name})", MOST_LINES),
        "functions": (len(lines), ""),
        "lines of a function: median, p90, most": (percentiles(lines), FUNCTION_LINES),
        "statements of a function": (percentiles(statements), FUNCTION_STATEMENTS),
        "syntax nodes a line of code": (f"{density:.2f}", MOST_NODES),
        "tuple assignments in 1,000 lines": (f"{tuples:.1f}", ""),
        "comment lines": (f"{comments:.1%}", ""),
        "import cycles": (0, 0),
        "arrows upward": (len(upward(edges)), 0),
        "longest import chain, files": (len(chain), LONGEST_CHAIN),
        "hops from the command to the loss": (len(hops()), MOST_HOPS),
    }
    print("| figure | now | at most |\n|---|---|---|")
    for name, (value, limit) in rows.items():
        print(f"| {name} | {value} | {limit} |")
    print("\nlongest chain:", " -> ".join(str(path.relative_to(ROOT)) for path in chain))
    print("hops:", "; ".join(hops()))
    for arrow in upward(edges):
        print(arrow)


if __name__ == "__main__":
    main()
