"""Rewards for the form of a reply: the tags that a template asks for, and the marks of steps.

Sources: open-r1 (src/open_r1/rewards.py), grpo_demo (W. Brown's GSM8K script), Logic-RL
(verl/utils/reward_score/kk.py), mini-deepseek-r1.
"""

from __future__ import annotations

import re

from ragen_lite.envs.answers.rewards.attempt import Attempt

# How a reply begins, the seam between its halves, and how the second one ends. As one expression
# with .*? between them they would take quadratic time over tags repeated on purpose.
_R1 = "<think>\n", re.compile(r"\n</think>\n<answer>\n"), re.compile(r"\n</answer>$", re.MULTILINE)
_STEP = re.compile(r"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)")


def follows(form: tuple[str, re.Pattern[str], re.Pattern[str]], reply: str) -> bool:
    """Whether a reply has a form's beginning, then its seam, then its end."""
    start, seam, end = form
    # The first seam decides: an end behind a later one stands behind the first one too.
    found = seam.search(reply, len(start)) if reply.startswith(start) else None
    return found is not None and end.search(reply, found.end()) is not None


def think_format(attempt: Attempt) -> float:
    """1 for ``<think>`` and ``<answer>`` with every tag on a line of its own, else 0."""
    return float(follows(_R1, attempt.reply))


def tag_count(attempt: Attempt) -> float:
    """A quarter for each of open-r1's four tags that stands there exactly once, 0 to 1."""
    # Line breaks belong to the tags.
    tags = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")
    return sum(0.25 for tag in tags if attempt.reply.count(tag) == 1)


def reasoning_steps(attempt: Attempt) -> float:
    """A third for each mark of a step, 1 at most.

    Marks are ``Step 1:``, a number or bullet before a line, First, Second, Next and Finally.
    """
    return min(1.0, len(_STEP.findall(attempt.reply)) / 3)


# ---- mini-deepseek-r1's and Logic-RL's ----


def mini_r1_format(attempt: Attempt) -> float:
    """1 for a thought, a line break and an answer, else 0; no tag of thoughts in the thought.

    What a prefill says before its own ``<think>`` is left out.
    """
    before = attempt.prefill.partition("<think>")[0]
    reply = attempt.reply.removeprefix(before)
    if not reply.startswith("<think>"):
        return 0.0
    thought, seam, rest = reply.removeprefix("<think>").partition("</think>\n<answer>")
    inner = "<think>" in thought or "</think>" in thought
    # The end of a text is before a last line break too.
    return float(bool(seam) and not inner and rest.removesuffix("\n").endswith("</answer>"))


def _in_order(reply: str) -> bool:
    """Whether each of Logic-RL's four tags stands there once, one behind the other."""
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    places = [reply.find(tag) for tag in tags]
    return all(reply.count(tag) == 1 for tag in tags) and places == sorted(places)


def logic_rl_format(attempt: Attempt) -> float:
    """1 where each of ``<think>``, ``</think>``, ``<answer>``, ``</answer>`` stands once, in this
    order; else -1."""
    return 1.0 if _in_order(attempt.reply) else -1.0


def logic_rl_answer(attempt: Attempt) -> float:
    """2 right, -1.5 wrong, -2 where the answer or the form of the reply cannot be read."""
    if not attempt.parsed or not _in_order(attempt.reply):
        return -2.0
    return 2.0 if attempt.correct else -1.5
