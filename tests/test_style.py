"""The limits of benchmarks/style.py hold, and its checks can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import style

FILES = [style.measure(path) for path in style.sources()]


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    long = {f.path.name: f.lines for f in FILES if f.lines > style.MOST_LINES}
    assert not long, f"files of more than {style.MOST_LINES} lines: {long}"


@pytest.mark.parametrize(
    ("field", "limits"),
    [
        ("function_lines", style.FUNCTION_LINES),
        ("function_statements", style.FUNCTION_STATEMENTS),
    ],
)
def test_functions_are_short(field: str, limits: tuple[int, int, int | None]) -> None:
    found = style.percentiles([n for f in FILES for n in getattr(f, field)])
    for value, limit in zip(found, limits, strict=True):
        assert limit is None or value <= limit, f"{field}: median, p90, most {found} of {limits}"


def test_lines_have_room_to_breathe() -> None:
    density = sum(f.nodes for f in FILES) / sum(f.code for f in FILES)
    assert density <= style.MOST_NODES, f"{density:.2f} syntax nodes a line of code"


def test_the_longest_import_chain_is_short() -> None:
    chain = [path.name for path in style.longest_chain(style.graph())]
    assert len(chain) <= style.LONGEST_CHAIN, " -> ".join(chain)


def test_three_hops_from_the_command_to_the_loss() -> None:
    assert len(style.hops()) == style.MOST_HOPS


def test_a_cycle_an_upward_arrow_and_a_packed_line_are_seen(tmp_path: Path) -> None:
    for name, text in {
        "envs/low.py": "from ragen_lite.agents.high import x\n",
        "agents/high.py": "def f():\n    from ragen_lite.envs.low import y\n",
        "envs/games/one.py": "from ragen_lite.envs.answers.two import z\na, b = 1, 2\n",
        "envs/answers/two.py": '"""A text."""\n\nz = 1\n',
        "ragen_lite/__init__.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    edges = style.graph(tmp_path)
    assert style.upward(edges, tmp_path) == [
        "envs/games/one.py imports envs/answers/two.py",
        "envs/low.py imports agents/high.py",
    ]
    with pytest.raises(ValueError, match="cycle: .*high.py -> low.py"):
        style.longest_chain(edges)
    packed = style.measure(tmp_path / "envs/games/one.py")
    assert (packed.code, packed.tuple_assignments) == (2, 1)
    assert style.measure(tmp_path / "envs/answers/two.py").code == 1
