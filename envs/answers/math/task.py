"""Mathematics in one step: ``env=math data=gsm8k|math|aime|HUB-ID|FILE``.

A question, a reply, and rewards by weight. Templates and their readings of an answer are those of
the R1 reproductions. Data come from the hub by ``datasets``, from a file, or, where nothing is
said, from our own generator of word problems, which needs neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ragen_lite.envs.answers.arithmetic import whole_number
from ragen_lite.envs.answers.asking import AnswerTask
from ragen_lite.envs.answers.math import grading
from ragen_lite.envs.answers.math.data import Row, load
from ragen_lite.envs.answers.stories import write_problem
from ragen_lite.envs.splits import requested_split


class Math(AnswerTask):
    """A question and one reply.

    Args:
        data: ``word_problems`` (our generator), ``gsm8k``, ``math``, ``aime`` (for evaluation
            only), a hub id, or a file (.jsonl, .json, .csv, each also as .gz, or .parquet) with a
            question and an answer a row.
        config: the configuration of a hub data set.
        template: ``r1`` (think and answer tags), ``open_r1`` (the same on lines of their own),
            ``gsm8k`` (grpo_demo's reasoning and answer tags), ``qwen_boxed``, ``abel``, ``none``,
            or another of envs/answers/templates.py.
        reward: a preset (zero_one, simplerl, gsm8k, open_r1), the name of one function, or ``{name:
            weight}``, of envs/answers/rewards/table.py.
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
        if bad_rows not in ("skip", "refuse"):
            raise ValueError(f"bad_rows={bad_rows!r}: choose skip or refuse")
        if seconds <= 0:
            raise ValueError(f"seconds={seconds}: it must be above 0")
        self.use_template(template, reward)
        self.seconds = seconds
        self.render_mode = render_mode
        self._source = (
            None if data == "word_problems" else (data, config, bad_rows, question, answer)
        )
        # Read at once, so that what is wrong with the data is said here and not in a reset.
        if self._source:
            load(*self._source)

    @property
    def instructions(self) -> str:
        """The template's system prompt; generated problems say what their answers look like."""
        rules = (self.template and self.template.system) or "Solve the problem."
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
        row = self.pick_row(rows, split, seed, self._source[0])
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
        """Score a reply; every reply ends the episode."""
        return self.judge(action)

    def question(self) -> str:
        """See AnswerTask."""
        return self.row.question

    def golds(self) -> tuple[str, ...]:
        """See AnswerTask."""
        return self.row.golds

    def grade(self, answer: str, gold: str) -> bool | None:
        """Whether an answer equals a gold; None where the gold cannot be read."""
        if self._source is None:  # one whole number, in digits
            return whole_number(answer, grouped=True) == int(gold)
        return grading.grade(answer, gold, self.seconds)

    def solve(self) -> list[str]:
        """A reply with the first gold."""
        return [self.reply_with(self.row.golds[0])]

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A reply with a random number below 100."""
        return [self.reply_with(str(int(rng.integers(100))))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """The first gold, with the solution before it where the data have one."""
        return self.teach(self.row.solution, self.row.golds[0])
