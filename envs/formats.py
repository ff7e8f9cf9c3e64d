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
    """Split at ``<tag>…</tag>``, which must stand there exactly once: (before, inside, after).

    Raises:
        Unreadable: the tag is missing, stands there twice, or ends before it starts.
    """
    start = f"<{tag}>"
    end = f"</{tag}>"
    if reply.count(start) != 1 or reply.count(end) != 1 or reply.index(start) > reply.index(end):
        raise Unreadable(f"exactly one {start} ... {end} is needed")
    before, rest = reply.split(start)
    inside, after = rest.split(end)
    return before, inside, after


def read_think_answer(reply: str) -> str:
    """The answer of ``<think>…</think><answer>…</answer>``.

    Nothing but white space may stand around the two.

    Raises:
        Unreadable: a tag is missing or doubled, or there is other text.
    """
    before, _, rest = _between(reply, "think")
    # The whole reply is checked first: ``rest`` would not show an ``<answer>`` in the thought.
    _between(reply, "answer")
    between, answer, after = _between(rest, "answer")
    if before.strip() or between.strip() or after.strip():
        raise Unreadable("no text is allowed outside the tags")
    return answer


def read_answer(reply: str) -> str:
    """The inside of the only ``<answer>…</answer>``, whatever stands around it.

    Raises:
        Unreadable: there is none, or more than one.
    """
    return _between(reply, "answer")[1]


def read_boxed(reply: str) -> str:
    r"""The inside of the last ``\boxed{…}``, braces balanced.

    Raises:
        Unreadable: there is no box, or the last one is not closed.
    """
    # Braces are counted, since an answer such as \boxed{\frac{1}{2}} has braces of its own.
    start = reply.rfind("\\boxed{")
    depth = 0
    # Place 6 of a box is its opening brace; the text begins at 7. Without a box the range is empty.
    for end in range(start + 6, len(reply) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(reply[end], 0)
        if depth == 0:
            return reply[start + 7 : end]
    raise Unreadable("the answer must stand in \\boxed{...}")


def last_boxed(reply: str) -> str | None:
    r"""The text of the last ``\boxed{}``, stripped; None where there is none that is closed."""
    try:
        return read_boxed(reply).strip()
    except Unreadable:
        return None


def read_free(reply: str) -> str:
    """The whole reply."""
    return reply


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a reply is asked for, read and written.

    Attributes:
        reminder: the sentence at the end of every user message.
        read: from a reply to the text of its answer; raises Unreadable.
        write: from a thought and an answer to a reply that ``read`` reads back.
    """

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
    # The whole reply is the answer, so a thought has no place.
    return answer


# The reminders in Chinese, by the names of PROTOCOLS. The tags are the same in both languages: the
# readers look for them.
REMINDERS_ZH = {
    "think_answer": "请始终按此格式回答：<think> [你的思考] </think> <answer> [你的答案] </answer>",
    "answer": "请把答案写在 <answer> [你的答案] </answer> 中",
    "boxed": "请把最终答案写在 \\boxed{} 中",
    "free": "",
}

# By the names that ``env.protocol`` takes. The reminder is part of every prompt, so its wording
# matters to a model that was trained on it.
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


def protocol_name(asked: str | None, own: str, whole: bool) -> str:
    """The name of the format of a task's replies.

    Args:
        asked: by the user; None: the task's own.
        own: the task's.
        whole: whether the task reads whole replies itself.

    Raises:
        ValueError: an unknown name, or one that does nothing.
    """
    if asked is not None and whole:
        raise ValueError(
            f"protocol={asked} does nothing here: this task reads whole replies itself, as one with"
            " a template does; the tasks of a mixture have each a protocol of their own"
        )
    name = asked or own
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    return name
