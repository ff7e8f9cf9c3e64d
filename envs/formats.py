"""How replies are asked for, read and written.

The formats are RAGEN's (``think_answer``), TinyZero's (``answer``), the math reproductions'
(``boxed``) and ``free``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Unreadable(ValueError):
    """A reply that does not follow the format; its text says what is missing."""


def _between(reply: str, tag: str) -> tuple[str, str, str]:
    """Split at ``<tag>…</tag>``, which must stand there exactly once: (before, inside, after)."""
    start = f"<{tag}>"
    end = f"</{tag}>"
    if reply.count(start) != 1 or reply.count(end) != 1 or reply.index(start) > reply.index(end):
        raise Unreadable(f"exactly one {start} ... {end} is needed")
    before, rest = reply.split(start)
    inside, after = rest.split(end)
    return before, inside, after


def read_think_answer(reply: str) -> str:
    """The answer of ``<think>…</think><answer>…</answer>`` with nothing but white space around the
    two."""
    before, _, rest = _between(reply, "think")
    _between(reply, "answer")  # none in the thought either
    between, answer, after = _between(rest, "answer")
    if before.strip() or between.strip() or after.strip():
        raise Unreadable("no text is allowed outside the tags")
    return answer


def read_answer(reply: str) -> str:
    """The inside of the only ``<answer>…</answer>``, whatever stands around it."""
    return _between(reply, "answer")[1]


def read_boxed(reply: str) -> str:
    r"""The inside of the last ``\boxed{…}``, braces balanced."""
    start = reply.rfind("\\boxed{")
    depth = 0
    for end in range(start + 6, len(reply) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(reply[end], 0)
        if depth == 0:
            return reply[start + 7 : end]
    raise Unreadable("the answer must stand in \\boxed{...}")


def last_boxed(reply: str) -> str | None:
    r"""The text of the last ``\boxed{}``."""
    try:
        return read_boxed(reply).strip()
    except Unreadable:
        return None


def read_free(reply: str) -> str:
    """The whole reply."""
    return reply


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a reply is asked for, read and written."""

    reminder: str
    read: Callable[[str], str]
    write: Callable[[str, str], str]  # (thought, answer) -> reply


def _write_think_answer(thought: str, answer: str) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


def _write_answer(thought: str, answer: str) -> str:
    return f"{thought}<answer>{answer}</answer>"


def _write_boxed(thought: str, answer: str) -> str:
    return f"{thought}\\boxed{{{answer}}}"


def _write_free(thought: str, answer: str) -> str:
    return answer


REMINDERS_ZH = {
    "think_answer": "请始终按此格式回答：<think> [你的思考] </think> <answer> [你的答案] </answer>",
    "answer": "请把答案写在 <answer> [你的答案] </answer> 中",
    "boxed": "请把最终答案写在 \\boxed{} 中",
    "free": "",
}

PROTOCOLS = {
    "think_answer": Protocol(
        "Always output: <think> [your thoughts] </think> <answer> [your answer] </answer>",
        read_think_answer,
        _write_think_answer,
    ),
    "answer": Protocol(
        "Put your answer in <answer> [your answer] </answer>",
        read_answer,
        _write_answer,
    ),
    "boxed": Protocol(
        "Put your final answer in \\boxed{}",
        read_boxed,
        _write_boxed,
    ),
    "free": Protocol("", read_free, _write_free),
}
