"""Rows of demonstrations, our own and those of public data sets, as conversations.

Forms: a run's records (``turns``), OpenAI's ``messages`` (OpenR1-Math, dolphin-r1), ShareGPT's
``conversations`` (OpenThoughts), and ``instruction``, ``input`` and ``output`` (dolphin, Alpaca).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragen_lite.agents.answer import EnvFailure, whole_text
from ragen_lite.config.schema import ConfigError
from ragen_lite.envs.files import BadRow, file_records

NEEDED = (
    "a demonstration needs turns (observation, reply), messages (role, content), conversations "
    "(from, value), or instruction and output"
)
# What each side is called.
_SYSTEM = ("system",)
_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A demonstration: messages with the replies to them.

    ``system`` is the system prompt, None where the row has none.
    """

    system: str | None
    turns: tuple[tuple[str, str], ...]


def read_conversations(path: Path) -> list[Conversation]:
    """The conversations of a file; those without a reply are left out.

    Raises ConfigError for a file that cannot be read, and names a row that is none.
    """
    found = []
    try:
        for place, record in file_records(path):
            try:
                if isinstance(record, BadRow):
                    raise record
                found.append(conversation_of(record))
            except BadRow as error:
                raise ConfigError(f"demos={path}, {place}: {error}") from error
    except (OSError, ImportError) as error:
        raise ConfigError(f"demos={path}: cannot be read ({error})") from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"demos={error}") from error
    if not any(conversation.turns for conversation in found):
        raise ConfigError(f"demos={path}: no conversation in it has a reply")
    return [conversation for conversation in found if conversation.turns]


def conversation_of(record: Any) -> Conversation:
    """A row as a conversation. Raises BadRow."""
    if not isinstance(record, dict):
        raise BadRow(f"{NEEDED}; it is {type(record).__name__}")
    system = _text(record, "system") if record.get("system") is not None else None
    if record.get("turns") is not None:
        turns = []
        for part in _parts(record, "turns"):
            message = _text(part, "observation")
            reply = _text(part, "reply")
            turns.append((message, reply))
        return Conversation(system, tuple(turns))
    for name, role, content in (
        ("messages", "role", "content"),
        ("conversations", "from", "value"),
    ):
        if record.get(name) is not None:
            said = [(_text(part, role), _text(part, content)) for part in _parts(record, name)]
            if record.get("reasoning") is not None and record.get("answer") is not None:
                # dolphin-r1 has the reply beside the messages.
                thought = _text(record, "reasoning")
                answer = _text(record, "answer")
                said.append(("assistant", f"<think>{thought}</think>{answer}"))
            return _alternating(system, said)
    if record.get("instruction") is not None and record.get("output") is not None:
        # dolphin's instruction is a system prompt where there is an input beside it.
        asked = _text(record, "instruction")
        reply = _text(record, "output")
        if record.get("input"):
            system = asked
            asked = _text(record, "input")
        return Conversation(system, ((asked, reply),))
    raise BadRow(f"{NEEDED}; it has {', '.join(map(str, record)) or 'nothing'}"[:400])


def _alternating(system: str | None, said: Sequence[tuple[str, str]]) -> Conversation:
    """Messages in turn; a last one without a reply is left out. Raises BadRow."""
    if said and said[0][0] in _SYSTEM:
        system = said[0][1]
        said = said[1:]
    for i, (role, _) in enumerate(said):
        expected = _ASSISTANT if i % 2 else _USER
        if role not in expected:
            raise BadRow(f"message {i + 1} is of {role!r}, not of {' or '.join(expected)}")
    contents = [content for _, content in said]
    return Conversation(system, tuple(zip(contents[::2], contents[1::2], strict=False)))


def _parts(record: dict[Any, Any], name: str) -> list[Any]:
    parts = record[name]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadRow(f"{name} is no list of objects")
    return parts


def _text(part: dict[Any, Any], name: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise BadRow(f"{name!r} is {'missing' if value is None else 'no text'}; {NEEDED}")
    try:
        return whole_text(value, name)
    except EnvFailure as error:
        raise BadRow(str(error)) from error
