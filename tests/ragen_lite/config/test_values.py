"""Paths of any characters, and dictionaries that a shell leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import ConfigError

NAMES = [
    "a b.jsonl", "é.jsonl", "a=b.jsonl", "a(b.jsonl", "a[b.jsonl", "a{b.jsonl", "a'b.jsonl",
    'a"b.jsonl', "a#b.jsonl", "a~b.jsonl", "a${b}.jsonl", "a\\b.jsonl", "a\\'b.jsonl", "b\\",
    "null", "1e5", "[a]", "{a:1}", "'a'",
]  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, "a,b.jsonl"])
def test_a_path_of_any_characters_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    config = compose(["env=math", f"data={path}", f"model={path}", f"demos={path}"])
    assert (config.env.kwargs["data"], config.model.path, config.demos) == (str(path),) * 3


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=","), min_size=1))
def test_any_text_behind_a_folder_is_a_path(name: str) -> None:
    config = compose([f"demos=/data/{name}"])
    assert config.demos is not None and config.demos.rstrip() == f"/data/{name}".rstrip()


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = compose(["env=math", "data=~/rows.jsonl", "model=~/models/a", "run.dir=~/runs"])
    assert config.env.kwargs["data"] == "/home/somebody/rows.jsonl"
    assert (config.model.path, config.run.dir) == ("/home/somebody/models/a", "/home/somebody/runs")


@pytest.mark.parametrize("value", ["sokoban:2,countdown:1", "{sokoban:2,countdown:1}"])
def test_weights_need_no_quotes(value: str) -> None:
    config = compose(["env=mix", f"tasks={value}"])
    assert config.env.kwargs["tasks"] == {"sokoban": 2, "countdown": 1}


def test_an_error_names_what_was_typed() -> None:
    with pytest.raises(ConfigError, match="^train.steps=many: Value 'many'"):
        compose(["model=tiny", "train.steps=many", "seed=1"])
    with pytest.raises(ConfigError, match=r"^train.steps=\[1: "):
        compose(["train.steps=[1"])
