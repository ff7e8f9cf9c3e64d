"""Demonstrations in the forms that people have them in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.config.schema import ConfigError
from ragen_lite.envs.files import BadRow
from ragen_lite.runs.conversations import Conversation, conversation_of, read_conversations

TWO = (("1+1?", "2"), ("2+2?", "4"))


def spoken(role: str, content: str, user: str, assistant: str) -> list[dict[str, str]]:
    return [
        {role: who, content: text}
        for message, reply in TWO
        for who, text in ((user, message), (assistant, reply))
    ]


@pytest.mark.parametrize(
    ("row", "system", "turns"),
    [
        ({"turns": [{"observation": m, "reply": r} for m, r in TWO]}, None, TWO),
        ({"messages": spoken("role", "content", "user", "assistant")}, None, TWO),
        (
            {"messages": [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1?"}],
             "reasoning": "one more", "answer": "2"},
            "Add.",
            (("1+1?", "<think>one more</think>2"),),
        ),
        ({"conversations": spoken("from", "value", "human", "gpt")}, None, TWO),
        (
            {"system": "Add.", "conversations": spoken("from", "value", "user", "assistant")},
            "Add.",
            TWO,
        ),
        (
            {"problem": "1+1?", "solution": "...", "generations": ["2"],
             "messages": spoken("role", "content", "user", "assistant")},
            None,
            TWO,
        ),
        ({"instruction": "Add.", "input": "1+1?", "output": "2"}, "Add.", TWO[:1]),
        ({"instruction": "1+1?", "input": "", "output": "2"}, None, TWO[:1]),
        ({"messages": spoken("role", "content", "user", "assistant")[:3]}, None, TWO[:1]),
    ],
)  # fmt: skip
def test_rows_of_public_data_sets_are_conversations(
    row: dict[str, Any], system: str | None, turns: tuple[tuple[str, str], ...]
) -> None:
    assert conversation_of(row) == Conversation(system, turns)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "1+1?"}, "a demonstration needs turns .*; it has question"),
        ([1], "a demonstration needs .*; it is list"),
        ({"turns": [{"observation": "a"}]}, "'reply' is missing"),
        ({"turns": [{"observation": None, "reply": "b"}]}, "'observation' is missing"),
        ({"turns": "none"}, "turns is no list of objects"),
        ({"messages": [{"role": "assistant", "content": "2"}]}, "message 1 is of 'assistant'"),
        ({"messages": [{"role": "user", "content": [1]}]}, "'content' is no text"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a character"),
    ],
)
def test_a_row_that_is_none_says_what_is_needed(row: Any, message: str) -> None:
    with pytest.raises(BadRow, match=message):
        conversation_of(row)


ROW = json.dumps({"messages": spoken("role", "content", "user", "assistant")})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", f"\ufeff{ROW}\n\n".encode()),
        ("a.JSONL.gz", gzip.compress(ROW.encode(), mtime=0)),
        ("a.json", f"[{ROW}]".encode()),
    ],
)
def test_a_file_with_a_mark_blank_lines_or_gzip(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_conversations(tmp_path / name) == [Conversation(None, TWO)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"turns": "caf\xe9"}', "line 1: no JSON"),
        ("a.jsonl.gz", gzip.compress(ROW.encode(), mtime=0)[:-9], "no .jsonl file"),
        ("a.jsonl.gz", ROW.encode(), "no .jsonl file"),
        ("a.txt", ROW.encode(), "give a file of the form .jsonl"),
        ("a.jsonl", b"", "no conversation in it has a reply"),
    ],
)
def test_a_file_that_is_none_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"demos=.*{name}.*{message}"):
        read_conversations(tmp_path / name)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = ("turns", "messages", "conversations", "instruction", "input", "output", "system", "answer")


@settings(max_examples=300, deadline=None)
@given(json_values | st.dictionaries(st.sampled_from(KEYS), json_values))
def test_a_row_of_any_shape_is_a_conversation_or_bad(row: Any) -> None:
    try:
        conversation = conversation_of(row)
    except BadRow:
        return
    for message, reply in conversation.turns:
        assert message.encode() is not None and reply.encode() is not None
