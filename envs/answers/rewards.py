"""Reward functions for answers in text, in a table: the field's own, to be composed by weight.

A function takes an Attempt (the whole reply, the gold answers, and a grader) and returns a number.
It returns None where it cannot tell (a gold answer that cannot be read), which counts nothing.
Lengths are in characters, since a reply is text here; the papers count tokens. Sources:
grpo_demo (W. Brown's GSM8K script), open-r1 (src/open_r1/rewards.py), SimpleRL, DAPO
(arXiv:2503.14476), Kimi k1.5 (arXiv:2501.12599, section 2.3.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ragen_lite.envs.formats import last_boxed


@dataclass(frozen=True)
class Attempt:
    """A reply to a question, and what decides its rewards.

    Args:
        reply: the whole reply.
        golds: the gold answers, any of which is right.
        answer: what the template takes for the reply's answer; None where there is none.
        grade: whether an answer equals a gold; None where the gold cannot be read.
    """

    reply: str
    golds: tuple[str, ...]
    answer: str | None
    grade: Callable[[str, str], bool | None]

    @cached_property
    def correct(self) -> bool | None:
        """Whether the answer equals any of the golds; None where none of them can be read."""
        # Where there is no answer, any text serves to see whether the golds can be read.
        answer = "0" if self.answer is None else self.answer
        found = [self.grade(answer, gold) for gold in self.golds]
        if all(verdict is None for verdict in found):
            return None
        return self.answer is not None and True in found


def between(text: str, start: str, end: str) -> str:
    """What stands behind the last ``start`` and before the ``end`` after it, stripped.

    So grpo_demo cuts answers out: where a mark is missing, the text goes on to that side.
    """
    return text.rpartition(start)[2].partition(end)[0].strip()


# ---- right or wrong ----


def accuracy(attempt: Attempt) -> float | None:
    """1 right, 0 wrong; None where the gold cannot be read.

    (open-r1's accuracy_reward, SimpleRL-Zoo, DeepScaleR.)
    """
    return None if attempt.correct is None else float(attempt.correct)


def simplerl(attempt: Attempt) -> float | None:
    """1 right, -0.5 wrong, -1 without a boxed answer (SimpleRL v0)."""
    if last_boxed(attempt.reply) is None:
        return -1.0
    return None if attempt.correct is None else 1.0 if attempt.correct else -0.5


# ---- format ----

# How a reply begins, the seam between its halves, and how the second one ends. As one expression
# with .*? between them they would take quadratic time over tags repeated on purpose.
_R1 = "<think>\n", re.compile(r"\n</think>\n<answer>\n"), re.compile(r"\n</answer>$", re.MULTILINE)
_STRICT = "<reasoning>\n", re.compile(r"\n</reasoning>\n<answer>\n"), re.compile(r"\n</answer>\n$")
_SOFT = "<reasoning>", re.compile(r"</reasoning>\s*<answer>"), re.compile(r"</answer>")
_STEP = re.compile(r"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)")


def _follows(form: tuple[str, re.Pattern[str], re.Pattern[str]], reply: str) -> bool:
    """Whether a reply has a form's beginning, then its seam, then its end."""
    start, seam, end = form
    # The first seam decides: an end behind a later one stands behind the first one too.
    found = seam.search(reply, len(start)) if reply.startswith(start) else None
    return found is not None and end.search(reply, found.end()) is not None


def think_format(attempt: Attempt) -> float:
    """1 for ``<think>`` and ``<answer>`` with every tag on a line of its own, else 0."""
    return float(_follows(_R1, attempt.reply))


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


# ---- length, in characters ----

LONGEST = 16_384  # a reply at which ``length`` and ``overlong`` are at their lowest
CACHE = 4_096  # the last part of it, over which ``overlong`` falls from 0 to -1


def kimi_lengths(
    lengths: Sequence[int], correct: Sequence[bool], low: int, high: int
) -> list[float]:
    """Kimi k1.5's length reward, one number a reply: from 0.5 (shortest) to -0.5 (longest).

    It is 0.5 - (length - low) / (high - low), no more than 0 where the answer is wrong, and 0 where
    ``low`` equals ``high``.

    Args:
        lengths: of the replies.
        correct: whether each is right.
        low: the shortest; in the paper, of the group.
        high: the longest; in the paper, of the group.

    >>> kimi_lengths([10, 20, 30], [True, True, False], 10, 30)
    [0.5, 0.0, -0.5]
    """
    if low == high:
        return [0.0] * len(lengths)
    shares = [0.5 - (length - low) / (high - low) for length in lengths]
    return [
        share if right else min(0.0, share) for share, right in zip(shares, correct, strict=True)
    ]


def length(attempt: Attempt) -> float | None:
    """Kimi's length reward against fixed bounds: 0 and 16,384 characters."""
    if attempt.correct is None:
        return None
    # A function sees one reply, and so no group to take the bounds from.
    (share,) = kimi_lengths([min(len(attempt.reply), LONGEST)], [attempt.correct], 0, LONGEST)
    return share


def cosine(
    attempt: Attempt,
    wrong: tuple[float, float] = (-0.5, 0.0),
    right: tuple[float, float] = (0.5, 1.0),
    longest: int = 1000,
) -> float | None:
    """open-r1's cosine schedule over the length: right falls from 1 to 0.5, wrong from 0 to -0.5.

    (arXiv:2502.03373; bounds are open-r1's configuration defaults, lengths beyond ``longest`` count
    as it.)
    """
    if attempt.correct is None:
        return None
    # From 1 for an empty reply to -1 for the longest: the result falls from ``high`` to ``low``.
    wave = math.cos(math.pi * min(len(attempt.reply), longest) / longest)
    low, high = right if attempt.correct else wrong
    return low + 0.5 * (high - low) * (1.0 + wave)


def repetition(attempt: Attempt, n: int = 3, most: float = -1.0) -> float:
    """``most`` times the share of repeated n-grams of words (open-r1, arXiv:2502.03373).

    0 where nothing is repeated, and where the reply has fewer than ``n`` words.
    """
    words = attempt.reply.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return (1 - len(set(grams)) / len(grams)) * most if grams else 0.0


def overlong(attempt: Attempt, longest: int = LONGEST, cache: int = CACHE) -> float:
    """DAPO's soft punishment, from 0 down to -1.

    It is 0 up to ``longest - cache`` characters, and falls linearly to -1 at ``longest``.
    """
    beyond = len(attempt.reply) - (longest - cache)
    return 0.0 if beyond <= 0 else max(-1.0, -beyond / cache)


# ---- grpo_demo's five, for GSM8K ----


def gsm8k_correctness(attempt: Attempt) -> float:
    """2 where the text of the last ``<answer>`` is exactly a gold."""
    return 2.0 * (between(attempt.reply, "<answer>", "</answer>") in attempt.golds)


def gsm8k_integer(attempt: Attempt) -> float:
    """0.5 where the text of the last ``<answer>`` is digits."""
    text = between(attempt.reply, "<answer>", "</answer>")
    return 0.5 * (text.isascii() and text.isdigit())


def gsm8k_strict_format(attempt: Attempt) -> float:
    """0.5 for ``<reasoning>`` and ``<answer>``, every tag on its own line, and nothing else."""
    return 0.5 * _follows(_STRICT, attempt.reply)


def gsm8k_soft_format(attempt: Attempt) -> float:
    """0.5 for ``<reasoning>`` and then ``<answer>`` at the beginning, lines as they may be."""
    return 0.5 * _follows(_SOFT, attempt.reply)


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


Reward = Callable[[Attempt], float | None]

REWARDS: dict[str, Reward] = {
    "accuracy": accuracy,
    "simplerl": simplerl,
    "format": think_format,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "length": length,
    "cosine": cosine,
    "repetition": repetition,
    "overlong": overlong,
    "gsm8k_correctness": gsm8k_correctness,
    "gsm8k_integer": gsm8k_integer,
    "gsm8k_strict_format": gsm8k_strict_format,
    "gsm8k_soft_format": gsm8k_soft_format,
    "gsm8k_xml_count": gsm8k_xml_count,
}
# By the names of the option ``reward``, beside the names of the functions themselves.
PRESETS: dict[str, dict[str, float]] = {
    "zero_one": {"accuracy": 1.0},
    "simplerl": {"simplerl": 1.0},
    "gsm8k": {name: 1.0 for name in REWARDS if name.startswith("gsm8k_")},
    "open_r1": {"accuracy": 1.0, "format": 1.0, "tag_count": 1.0},
}


# What these functions look for, only one template asks for.
TEMPLATE_OF = {
    "simplerl": "qwen_boxed",
    "format": "open_r1",
    "tag_count": "open_r1",
} | dict.fromkeys(PRESETS["gsm8k"], "gsm8k")


def weights_of(reward: str | Mapping[str, float]) -> dict[str, float]:
    """The weights by function: a preset's, one function's, or those given.

    Raises:
        ValueError: no function, an unknown one, or a weight that is not finite.
    """
    if isinstance(reward, str):
        reward = PRESETS.get(reward, {reward: 1.0})
    for name in reward:
        if name not in REWARDS:
            known = f"the presets {', '.join(PRESETS)} or weights of {', '.join(REWARDS)}"
            raise ValueError(f"unknown reward {name!r}: choose {known}")
    if not reward or not all(math.isfinite(float(weight)) for weight in reward.values()):
        raise ValueError(f"reward={dict(reward)}: give at least one function a finite weight")
    return {name: float(weight) for name, weight in reward.items()}


def scores(attempt: Attempt, weights: Mapping[str, float]) -> dict[str, float | None]:
    """What each weighted function says of an attempt, unweighted; None where it cannot tell."""
    return {name: REWARDS[name](attempt) for name in weights}


def total(found: Mapping[str, float | None], weights: Mapping[str, float]) -> float:
    """The weighted sum; what could not be told counts nothing.

    >>> total({"accuracy": 1.0, "format": None}, {"accuracy": 2.0, "format": 1.0})
    2.0
    """
    return sum(weights[name] * value for name, value in found.items() if value is not None)
