"""How the published systems put a question, and where they look for the answer of a reply.

The wording is ours; the parts, their order, the tags, the language and what a reply begins with are
theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ragen_lite.envs.answers.math.numbers import number
from ragen_lite.envs.formats import PROTOCOLS, last_boxed

THINK_END = "</think>"
_ONE_LINE = re.compile(r"<answer>(.*?)</answer>")


@dataclass(frozen=True)
class Template:
    """How a question is put and where the answer of a reply stands.

    Attributes:
        system: the system prompt.
        user: the message, with ``{question}`` for the question and ``{example}`` for what an answer
            looks like.
        read: from a reply to its answer; None where there is none.
        write: from a thought and an answer to a reply that ``read`` reads back; it begins with
            ``prefill``.
        prefill: what every reply begins with, unsampled.
        language: of the words, en or zh.
    """

    system: str
    user: str
    read: Callable[[str], str | None]
    write: Callable[[str, str], str]
    prefill: str = ""
    language: str = "en"

    def put(self, question: str, example: str) -> str:
        """The message for a question."""
        # Not ``format``: the braces of a question's LaTeX are no fields.
        return self.user.replace("{example}", example).replace("{question}", question)


# ---- where the answer stands ----


def last_answer(reply: str) -> str | None:
    """The text of the last ``<answer>`` that is closed, stripped; None where there is none.

    What the published regular expressions find, in time that grows with the reply's length alone.
    """
    found = None
    end = 0
    while (start := reply.find("<answer>", end)) >= 0:
        closed = reply.find("</answer>", start)
        if closed < 0:
            break
        found = reply[start + len("<answer>") : closed]
        end = closed + len("</answer>")
    return None if found is None else found.strip()


def last_said(reply: str) -> str | None:
    """The answer of a reply that keeps to no format; None where it has none.

    It is the last box; else what follows the last "the answer is", up to the end of its sentence;
    else the last number. These are SimpleRL-Zoo's fallbacks.
    """
    if (boxed := last_boxed(reply)) is not None:
        return boxed
    # Without the first letter, which may be a capital.
    _, said, rest = reply.rpartition("he answer is")
    if said:
        # A full stop inside a number has no space behind it.
        line = rest.strip().partition("\n")[0].partition(". ")[0]
        return line.strip().removesuffix(".").strip(" :$") or None
    numbers = [
        word.strip("$.,;:!?()")
        for word in reply.split()
        if any(char in "0123456789" for char in word)
    ]
    return next((n for n in reversed(numbers) if number(n) is not None), None)


def last_line_answer(reply: str) -> str | None:
    """The last ``<answer>`` of the last line (TinyZero)."""
    return last_answer(reply.rpartition("\n")[2])


def first_answer(reply: str) -> str | None:
    """The first ``<answer>`` that stands on one line (mini-deepseek-r1)."""
    found = _ONE_LINE.search(reply)
    return found[1].strip() if found else None


def boxed_after_thought(reply: str) -> str | None:
    """The last box behind the first ``</think>``; None where no thought ends (DeepScaleR)."""
    _, end, rest = reply.partition(THINK_END)
    return last_boxed(rest) if end else None


# ---- the templates ----

_STEPS = "I work this out step by step.\n<think>"
_STEPS_ZH = "我来一步一步地解决这个问题。\n<think>"


def _thought_then_answer(prefill: str) -> Callable[[str, str], str]:
    return lambda thought, answer: f"{prefill}{thought}</think>\n<answer>{answer}</answer>"


# By the names of the option ``template``: how the question is put, how the answer is read, and how
# a teacher's reply is written.
TEMPLATES = {
    "r1": Template(
        "Solve the problem.",
        "{question} " + PROTOCOLS["think_answer"].reminder,
        last_answer,
        PROTOCOLS["think_answer"].write,
    ),
    "open_r1": Template(
        "You first think about the problem and then answer it. Respond in the following format:\n"
        "<think>\n...\n</think>\n<answer>\n...\n</answer>",
        "{question}",
        last_answer,
        lambda thought, answer: f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>",
    ),
    "gsm8k": Template(  # grpo_demo's
        "Respond in the following"
        " format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>",
        "{question}",
        last_answer,
        lambda thought, answer: (
            f"<reasoning>\n{thought}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"
        ),
    ),
    "qwen_boxed": Template(
        "Please reason step by step, and put your final answer within \\boxed{}.",
        "{question}",
        last_boxed,
        PROTOCOLS["boxed"].write,
    ),
    "abel": Template(
        "",
        "Question:\n{question}\nAnswer:\nLet's think step by step.",
        last_said,
        lambda thought, answer: f"{thought}\nThe answer is {answer}",
    ),
    "none": Template(
        "", "{question}", last_said, lambda thought, answer: f"{thought}\nThe answer is {answer}"
    ),
    "tinyzero": Template(
        "You reason about a task in your mind first, and then tell the user the answer.",
        "{question} Show your thoughts in <think> </think> tags, and give the final answer in"
        " <answer> </answer> tags, for example <answer> {example} </answer>.",
        last_line_answer,
        _thought_then_answer(_STEPS),
        prefill=_STEPS,
    ),
    "mini_r1": Template(
        "You reason about a task in your mind first, and then tell the user the answer.",
        "{question} Show your thoughts in <think> </think> tags, and give the final equation in"
        " <answer> </answer> tags, for example <answer> {example} </answer>.",
        first_answer,
        _thought_then_answer(_STEPS),
        prefill=_STEPS,
    ),
    "unlock_deepseek": Template(
        "你是一个助手：先在心里推理，再把答案告诉用户。",
        "{question} 请在 <think> </think> 标签中一步一步地思考，并在 <answer> </answer>"
        " 标签中给出最终算式，例如 <answer> {example} </answer>。",
        first_answer,
        _thought_then_answer(_STEPS_ZH),
        prefill=_STEPS_ZH,
        language="zh",
    ),
    "logic_rl": Template(
        "You reason about a puzzle in your mind first, and then tell the user the answer. The"
        " thoughts stand in <think> </think> tags and the answer behind them in <answer> </answer>"
        " tags. You are asked a puzzle of logic. When your thoughts have come to an end, say in the"
        " <answer> tags of every person, one a numbered line, who they are, for example <answer>"
        " {example} </answer>.",
        "{question}",
        last_answer,
        _thought_then_answer("<think>"),
        prefill="<think>",
    ),
    "deepscaler": Template(
        "",
        "{question} Think step by step, and write the final answer within \\boxed{}.",
        boxed_after_thought,
        lambda thought, answer: f"<think>\n{thought}\n</think>\n\\boxed{{{answer}}}",
    ),
}
