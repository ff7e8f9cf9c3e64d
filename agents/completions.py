"""What chat completions say, in the words of the servers there are, and the account of them.

The words are those of vLLM, SGLang, llama.cpp, Text Generation Inference and OpenAI.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# A reply is drawn from the model's own distribution, and from nothing that a server prefers.
NEUTRAL = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
# No part of OpenAI's own interface: 0 or less is "all tokens" for top_k.
NEUTRAL_EXTRA = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_FULL = re.compile(
    # OpenAI, vLLM and SGLang say length, llama.cpp size; TGI adds up what may not be more.
    r"context[ _](length|size|window)|maximum model length|max_model_len"
    r"|`?inputs`? tokens \+ `?max_new_tokens`?|exceed_context_size",
    re.IGNORECASE,
)


OWN_SAMPLING = (
    f"; it does not take {', '.join((*NEUTRAL, *NEUTRAL_EXTRA))}, so what it has set of them holds"
)


@dataclass(slots=True)
class Account:
    """What was asked of a server and what came of it.

    ``plain`` says that it refuses NEUTRAL and NEUTRAL_EXTRA.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    plain: bool = False
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.reply_tokens

    def __str__(self) -> str:
        failed = (
            ", ".join(f"{n} x {why}" for why, n in self.failures.most_common()) or "none failed"
        )
        return (
            f"{self.requests} requests answered after {self.retries} retries,"
            f" {self.prompt_tokens:,} prompt and {self.reply_tokens:,} reply tokens; {failed}"
            f"{OWN_SAMPLING if self.plain else ''}"
        )


class NoReply(ValueError):
    """A server's answer holds no reply of the model; the text says what it holds."""


def is_full_context(code: Any, text: str) -> bool:
    """Whether an error says that the conversation no longer fits the model's context."""
    return code == "context_length_exceeded" or bool(_FULL.search(text))


def reply_of(choice: Any) -> str:
    """The reply of a chat completion's choice.

    A server that takes the thought out of the reply gives it beside the rest; it is put back where
    it was. Raises NoReply for an answer that is not what the model wrote.
    """
    if choice.finish_reason not in ("stop", "length"):
        raise NoReply(f"the server ended a reply for the reason {choice.finish_reason!r}")
    message = choice.message
    # Servers differ in the name; OpenAI's has neither.
    names = ("reasoning_content", "reasoning")
    thoughts = [value for name in names if (value := getattr(message, name, None))]
    content = message.content
    if thoughts:
        # Without a content the reply was cut within the thought.
        closing = "" if content is None else f"</think>{content}"
        return f"<think>{thoughts[0]}{closing}"
    # Cut before anything was written: some servers then send null.
    if content is None and choice.finish_reason != "length":
        raise NoReply("the server sent no content")
    return str(content or "")


def token_count(usage: Any, name: str) -> int:
    """A number of tokens as a server tells it; 0 for whatever is none."""
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def one_line(error: Exception) -> str:
    """An error's text for a terminal: one line, no control character, 200 characters at most."""
    text = " ".join(str(error).split())[:200]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
