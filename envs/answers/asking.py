"""A question and one reply: read by Dialogue's format, or as a published system has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ragen_lite.envs.answers.rewards.attempt import Attempt
from ragen_lite.envs.answers.rewards.outcomes import Earned
from ragen_lite.envs.answers.rewards.table import check_template, scores, total, weights_of
from ragen_lite.envs.answers.templates import TEMPLATES, Template
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.spaces import AnyText
from ragen_lite.envs.splits import one_of, pick

RowT = TypeVar("RowT")


class AnswerTask(TextTask[str]):
    """A task of one question and one answer.

    With a template the observation is the template's message, the action a whole reply, and the
    rewards are functions of it, by weight. Without one, the action is the answer that Dialogue has
    read, and what it earns follows from whether it is right.
    """

    max_turns = max_actions_per_turn = max_actions = 1
    turn_penalty = 0.0
    template: Template | None = None
    weights: Mapping[str, float] = {}
    example = "42"
    """What an answer looks like, for a template's message."""

    def use_template(self, template: str, reward: str | dict[str, float]) -> None:
        """Put questions by a template, and reward whole replies.

        Args:
            template: a name of TEMPLATES.
            reward: what ``weights_of`` takes.

        Raises:
            ValueError: an unknown template or reward, or a reward that needs another template.
        """
        one_of("template", template, TEMPLATES)
        self.weights = weights_of(reward)
        check_template(template, self.weights)
        self.template = TEMPLATES[template]
        if self.template.read(self.reply_with(self.example)) != self.example:
            raise ValueError(
                f"template={template} reads no answer such as {self.example!r}: choose another"
            )
        self.prefill = self.template.prefill
        # The template puts the question and reads the reply, so Dialogue passes both on.
        self.conversation = True
        self.protocol = "free"
        # Longest texts, in characters.
        self.observation_space = AnyText(200_000)
        self.action_space = AnyText(100_000)

    def use(
        self,
        template: str | None,
        reward: str | dict[str, float],
        earned: Mapping[str, Earned],
    ) -> Earned:
        """Take the options ``template`` and ``reward``.

        Args:
            template: as for ``use_template``; None: Dialogue reads the replies.
            reward: without a template, a name of ``earned``.
            earned: what an answer may earn that Dialogue has read.

        Returns:
            The entry of ``earned``; the first where a template has its own rewards.

        Raises:
            ValueError: an option out of its range.
        """
        if template is not None:
            self.use_template(template, reward)
            return next(iter(earned.values()))
        if not isinstance(reward, str):
            raise ValueError(
                f"unknown reward {reward}: choose one of {', '.join(earned)}; weights are of whole"
                " replies, so they need a template"
            )
        one_of("reward", reward, earned)
        self.turn_penalty = earned[reward].penalty
        return earned[reward]

    def question(self) -> str:
        """The present question, with its rules where the system prompt does not tell them."""
        raise NotImplementedError

    def golds(self) -> tuple[str, ...]:
        """Answers that are right."""
        raise NotImplementedError

    def grade(self, answer: str, gold: str) -> bool | None:
        """Whether an answer is right as ``gold`` is; None where it cannot be told."""
        raise NotImplementedError

    def parses(self, answer: str) -> bool:
        """Whether an answer says something that could be right."""
        return True

    def pick_row(self, rows: Sequence[RowT], split: str, seed: int | None, data: str) -> RowT:
        """A row of a split of a data set. Raises ValueError where there is none."""
        if not rows:
            raise ValueError(
                f"data={data} has no row in the {split} split (evaluate eval.split=all measures on"
                " every row)"
            )
        return pick(rows, split, seed, self.np_random)

    def message(self) -> str:
        """The template's message for the present question."""
        assert self.template is not None
        return self.template.put(self.question(), self.example)

    def render(self) -> str:  # type: ignore[override]
        """The template's message."""
        return self.message()

    def judge(self, reply: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score a whole reply; the reward is the weighted sum of the reward functions."""
        assert self.template is not None
        answer = self.template.read(reply)
        begun = self.prefill
        attempt = Attempt(reply, self.golds(), answer, self.grade, self.parses, begun)
        found = scores(attempt, self.weights)
        none = "no answer in the form that the template asks for"
        # Of a conversation Dialogue adds nothing to ``info``, so all of its entries are made here.
        info = {
            "success": attempt.correct is True,
            "answer": answer,
            "rewards": found,
            "actions": [] if answer is None else [answer],
            "unreadable": none if answer is None else None,
            "regret": None,
        }
        return self.render(), total(found, self.weights), True, False, info

    def reply_with(self, answer: str) -> str:
        """A reply in the template's form; without one, the answer itself."""
        return self.template.write("", answer) if self.template else answer

    def teach(self, thought: str, answer: str) -> tuple[str, list[str]]:
        """A teacher's turn: the thought is within the reply where a template has a place for it."""
        if self.template:
            return "", [self.template.write(thought, answer)]
        return thought, [answer]
