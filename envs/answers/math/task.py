"""Mathematics in one step: ``env=math data=gsm8k|math|aime|HUB-ID|FILE``.

A question, a reply, and rewards by weight. Templates and their readings of an answer are those of
the R1 reproductions. Data come from the hub by ``datasets``, from a file, or, where nothing is
said, from our own generator of word problems, which needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragen_lite.envs.answers.arithmetic import whole_number
from ragen_lite.envs.answers.math import grading
from ragen_lite.envs.answers.math.data import Row, load
from ragen_lite.envs.answers.math.numbers import number
from ragen_lite.envs.answers.rewards import TEMPLATE_OF, Attempt, scores, total, weights_of
from ragen_lite.envs.answers.stories import write_problem
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.formats import PROTOCOLS, last_boxed
from ragen_lite.envs.spaces import AnyText
from ragen_lite.envs.splits import one_of, pick, requested_split

# ---- templates ----


@dataclass(frozen=True)
class Template:
    """How a question is put and where the answer of a reply stands.

    Attributes:
        system: the system prompt.
        user: the message, with ``{question}`` for the question.
        read: from a reply to its answer; None where there is none.
        write: from a thought and an answer to a reply that ``read`` reads back.
    """

    system: str
    user: str
    read: Callable[[str], str | None]
    write: Callable[[str, str], str]


def last_answer(reply: str) -> str | None:
    """The text of the last ``<answer>``, stripped; None where it is not closed or not there."""
    before, tag, rest = reply.rpartition("<answer>")
    answer, end, _ = rest.partition("</answer>")
    return answer.strip() if tag and end else None


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
}


# ---- the task ----


class Math(TextTask[str]):
    """A question and one reply.

    Args:
        data: ``word_problems`` (our generator), ``gsm8k``, ``math``, ``aime`` (for evaluation
            only), a hub id, or a file (.jsonl, .json, .csv, each also as .gz, or .parquet) with a
            question and an answer a row.
        config: the configuration of a hub data set.
        template: ``r1`` (think and answer tags), ``open_r1`` (the same on lines of their own),
            ``gsm8k`` (grpo_demo's reasoning and answer tags), ``qwen_boxed``, ``abel`` or ``none``.
        reward: a preset (zero_one, simplerl, gsm8k, open_r1), the name of one function, or ``{name:
            weight}``, of envs/answers/rewards.py.
        bad_rows: ``skip`` malformed rows with a warning that names them, or ``refuse`` them.
        question, answer: the columns, where they have unusual names.
        seconds: how long the grading of one answer may take.

    Raises:
        ValueError: an option out of its range, a reward that needs another template, or data that
            cannot be read.
        ImportError: the data need ``datasets``, which is not installed.

    ``info``: success (the answer equals a gold); answer (as read, or None); rewards (each
    function's own).
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    # The template puts the question and reads the reply, so Dialogue passes both on as they are.
    conversation = True
    protocol = "free"
    max_turns = max_actions_per_turn = max_actions = 1

    def __init__(
        self,
        data: str = "word_problems",
        config: str | None = None,
        template: str = "r1",
        reward: str | dict[str, float] = "zero_one",
        bad_rows: str = "skip",
        question: str | None = None,
        answer: str | None = None,
        seconds: float = grading.SECONDS,
        render_mode: str | None = None,
    ) -> None:
        one_of("template", template, TEMPLATES)
        if bad_rows not in ("skip", "refuse"):
            raise ValueError(f"bad_rows={bad_rows!r}: choose skip or refuse")
        if seconds <= 0:
            raise ValueError(f"seconds={seconds}: it must be above 0")
        self.weights = weights_of(reward)
        # A format reward looks for one template's tags, so with another it would always be 0.
        for name in self.weights:
            if template != (needed := TEMPLATE_OF.get(name, template)):
                raise ValueError(
                    f"reward {name} rewards what template={needed} asks for, not {template}: take"
                    " that one"
                )
        self.template = TEMPLATES[template]
        self.seconds = seconds
        self.render_mode = render_mode
        self._source = (
            None if data == "word_problems" else (data, config, bad_rows, question, answer)
        )
        # Read at once, so that what is wrong with the data is said here and not in a reset.
        if self._source:
            load(*self._source)
        # Longest texts, in characters.
        self.observation_space = AnyText(200_000)
        self.action_space = AnyText(100_000)

    @property
    def instructions(self) -> str:
        """The template's system prompt; generated problems say what their answers look like."""
        rules = self.template.system or "Solve the problem."
        return (
            f"{rules} The answer is one whole number, in digits." if self._source is None else rules
        )

    def instance_count(self, split: str) -> int | None:
        """The questions of a split; None where they are generated."""
        return None if self._source is None else len(load(*self._source)[split])

    def _draw_row(self, split: str, seed: int | None) -> Row:
        """A question of a split, and ``self.instance`` with it.

        Raises:
            ValueError: the data have no row in the split.
        """
        # Generated problems are drawn until one belongs to the split; rows are divided beforehand.
        if self._source is None:
            problem = self.draw(
                split, lambda: write_problem(self.np_random), lambda made: made.content
            )
            return Row(problem.question, (str(problem.answer),), ", ".join(problem.steps))
        rows = load(*self._source)[split]
        if not rows:
            raise ValueError(
                f"data={self._source[0]} has no row in the {split} split (evaluate eval.split=all"
                " measures on every row)"
            )
        row = pick(rows, split, seed, self.np_random)
        self.instance = row.question
        return row

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a question of ``options["split"]`` (``train`` where it is left out).

        Consecutive seeds go through a held-out split, each question once.
        """
        super().reset(seed=seed)
        self.row = self._draw_row(requested_split(options), seed)
        return self.render(), {"success": False, "answer": None}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score a reply; every reply ends the episode.

        The reward is the weighted sum of the reward functions.
        """
        answer = self.template.read(action)
        attempt = Attempt(action, self.row.golds, answer, self._grade)
        found = scores(attempt, self.weights)
        # Of a conversation Dialogue adds nothing to ``info``, so all of its entries are made here.
        info = {
            "success": attempt.correct is True,
            "answer": answer,
            "rewards": found,
            "actions": [] if answer is None else [answer],
            "unreadable": (
                "no answer in the form that the template asks for" if answer is None else None
            ),
            "regret": None,
        }
        return self.render(), total(found, self.weights), True, False, info

    def _grade(self, answer: str, gold: str) -> bool | None:
        """Whether an answer equals a gold; None where the gold cannot be read."""
        if self._source is None:  # one whole number, in digits
            return whole_number(answer, grouped=True) == int(gold)
        return grading.grade(answer, gold, self.seconds)

    def render(self) -> str:  # type: ignore[override]
        """The question as the policy sees it."""
        # Not ``format``: the braces of a question's LaTeX are no fields.
        return self.template.user.replace("{question}", self.row.question)

    def reply_with(self, answer: str) -> str:
        """A reply in the template's form."""
        return self.template.write("", answer)

    def solve(self) -> list[str]:
        """A reply with the first gold."""
        return [self.reply_with(self.row.golds[0])]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A reply with a random number below 100."""
        return [self.template.write("", str(int(rng.integers(100))))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The first gold, with the solution before it where the data have one."""
        return "", [self.template.write(self.row.solution, self.row.golds[0])]
