"""grpo_demo's five rewards for GSM8K (W. Brown's script), which unsloth's notebooks took over."""

from __future__ import annotations

import re

from ragen_lite.envs.answers.rewards.attempt import Attempt
from ragen_lite.envs.answers.rewards.forms import follows

# See ``forms``.
_STRICT = "<reasoning>\n", re.compile(r"\n</reasoning>\n<answer>\n"), re.compile(r"\n</answer>\n$")
_SOFT = "<reasoning>", re.compile(r"</reasoning>\s*<answer>"), re.compile(r"</answer>")


def between(text: str, start: str, end: str) -> str:
    """What stands behind the last ``start`` and before the ``end`` after it, stripped.

    So grpo_demo cuts answers out: where a mark is missing, the text goes on to that side.
    """
    return text.rpartition(start)[2].partition(end)[0].strip()


def gsm8k_correctness(attempt: Attempt) -> float:
    """2 where the text of the last ``<answer>`` is exactly a gold."""
    return 2.0 * (between(attempt.reply, "<answer>", "</answer>") in attempt.golds)


def gsm8k_integer(attempt: Attempt) -> float:
    """0.5 where the text of the last ``<answer>`` is digits."""
    text = between(attempt.reply, "<answer>", "</answer>")
    return 0.5 * (text.isascii() and text.isdigit())


def gsm8k_strict_format(attempt: Attempt) -> float:
    """0.5 for ``<reasoning>`` and ``<answer>``, every tag on its own line, and nothing else."""
    return 0.5 * follows(_STRICT, attempt.reply)


def gsm8k_soft_format(attempt: Attempt) -> float:
    """0.5 for ``<reasoning>`` and then ``<answer>`` at the beginning, lines as they may be."""
    return 0.5 * follows(_SOFT, attempt.reply)


def gsm8k_xml_count(attempt: Attempt) -> float:
    """An eighth for each of four tags that stands there once.

    0.001 goes off for each character behind the last tag, twice where both answer tags are there.
    """
    reply = attempt.reply
    count = 0.0
    count += 0.125 * (reply.count("<reasoning>\n") == 1) + 0.125 * (
        reply.count("\n</reasoning>\n") == 1
    )
    if reply.count("\n<answer>\n") == 1:
        count += 0.125 - 0.001 * len(reply.split("\n</answer>\n")[-1])
    # Less 1 for a line break at the end. Without it 0.001 is gained, as in grpo_demo.
    if reply.count("\n</answer>") == 1:
        count += 0.125 - 0.001 * (len(reply.split("\n</answer>")[-1]) - 1)
    return count
