"""The house: links, one-way imports, light imports, and what a wheel installs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from benchmarks import style

ROOT = Path(__file__).resolve().parents[1]
# Who may import what is heavy or optional; by file, or by folder.
DOORS = {
    "vllm": ("agents/engines/vllm",),
    "openai": ("agents/served.py",),
    "ray": ("ragen_lite/cluster/",),
    "wandb": ("ragen_lite/runs/writers.py",),
}


def names_imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(style.tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_checks_see_every_file() -> None:
    """Git's list of files is the measure: none in a new folder escapes the checks below."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    tracked = {f for f in listed.stdout.split() if f.split("/")[0] in style.FOLDERS}
    seen = {path.relative_to(ROOT).as_posix() for path in style.sources()}
    missing = {name for name in tracked if (ROOT / name).exists()} - seen
    assert not missing, f"files that no check looks at: {missing}"
    assert len(seen) > 100


def test_links_resolve_and_the_folders_are_no_packages() -> None:
    for name in ("envs", "agents", "configs"):
        link = ROOT / "ragen_lite" / name
        assert link.is_symlink() and link.resolve() == ROOT / name
        assert not list((ROOT / name).rglob("__init__.py")), f"{name} must have no __init__.py"
    assert (ROOT / "ragen_lite" / "py.typed").exists()
    named_types = [path for path in style.sources() if path.name == "types.py"]
    assert not named_types, "a types.py shadows the standard library's"


def test_every_folder_with_sources_is_packaged() -> None:
    packages = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    for path in style.sources():
        folder = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        name = folder if folder.startswith("ragen_lite") else f"ragen_lite.{folder}"
        assert name in packages, f"{name} is missing among setuptools' packages in pyproject.toml"


def test_imports_run_one_way() -> None:
    assert style.upward(style.graph()) == []


DRAWING = ("display.py", "report.py", "curves.py", "tables.py", "terminal.py")


def test_what_draws_is_a_leaf() -> None:
    """Nothing that measures or learns imports what draws; only commands do."""
    for path, targets in style.graph().items():
        here = path.relative_to(ROOT).as_posix()
        drawn = {t.name for t in targets if t.parent.name == "runs" and t.name in DRAWING}
        leaf = here.count("/") == 1 or path.name in DRAWING
        assert not drawn or leaf, f"{here} imports {drawn}, which only draw"


def test_tasks_know_gymnasium_and_numpy_only() -> None:
    heavy = {"torch", "transformers", "hydra", "rich"}
    for path in style.sources():
        if path.relative_to(ROOT).parts[0] == "envs":
            found = {name.split(".")[0] for name in names_imported(path)} & heavy
            assert not found, f"{path.name} imports {found}"


def test_heavy_imports_have_one_door_each() -> None:
    for path in style.sources():
        here = path.relative_to(ROOT).as_posix()
        for name in names_imported(path):
            doors = DOORS.get(name.split(".")[0])
            fits = doors is None or here.startswith(doors)
            assert fits, f"{here} imports {name}, which is for {doors}"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")


def test_import_is_light() -> None:
    code = (
        "import time; t = time.process_time(); import ragen_lite; s = time.process_time() - t\n"
        "import sys\n"
        "heavy = {'torch', 'gym_sokoban', 'gym', 'transformers'} & set(sys.modules)\n"
        "tasks = [m for m in sys.modules if m.startswith('ragen_lite.envs.')]\n"
        "print(s); sys.exit(len(heavy) + len(tasks))"
    )
    results = [run(code) for _ in range(3)]
    assert all(r.returncode == 0 for r in results), results[0].stderr
    # The best of three, in CPU time: the machine may be busy.
    assert min(float(r.stdout) for r in results) < 0.5


def test_openai_agents_stays_importable_beside_us() -> None:
    pytest.importorskip("agents", reason="openai-agents is not installed")
    code = "import ragen_lite.agents.trajectory, agents; print(agents.Agent.__module__, agents.__file__)"
    line = [sys.executable, "-c", code]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("agents.") and "site-packages" in result.stdout


@pytest.mark.slow
@pytest.mark.gate
def test_a_wheel_installs_only_ragen_lite(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    result = subprocess.run(build, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"ragen_lite"}
    sources = {path.relative_to(ROOT).as_posix() for path in style.sources()}
    inside = {n if n.startswith("ragen_lite/") else f"ragen_lite/{n}" for n in sources}
    for needed in (
        *inside,
        "ragen_lite/py.typed",
        "ragen_lite/configs/config.yaml",
        "ragen_lite/configs/task_credit/bandit.yaml",
        "ragen_lite/models/tiny/model.safetensors",
        "ragen_lite/models/tiny/tokenizer.json",
        "ragen_lite/models/tiny/tasks.json",
        "ragen_lite/models/tiny/chat_template.jinja",
    ):
        assert needed in names, f"{needed} is not in the wheel"
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert not any("__pycache__" in n for n in names)
