"""reasoning-gym's generated questions: ``env=reasoning_gym task=countdown``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

from ragen_lite.envs.adapters.suite import Suite, package, seed_process
from ragen_lite.envs.process import worker
from ragen_lite.envs.splits import requested_split


class ReasoningGym(Suite):
    """A question of one of reasoning-gym's generators; its own verifier scores the answer.

    Args:
        task: the generator's name.
        options: of the generator, by name; values are those that JSON has.
        solved: the score from which an answer counts as success.
        seconds: how long scoring may take; some verifiers evaluate powers of any size, and an
            answer that is not scored by then is wrong.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: there is no such generator, or an option is out of its range.

    Reward is the score, 0 to 1. ``info``: success; score.
    """

    def __init__(
        self,
        task: str = "chain_sum",
        options: dict[str, Any] | None = None,
        solved: float = 1.0,
        seconds: float = 10.0,
        render_mode: str | None = None,
    ) -> None:
        self._open(1, render_mode)
        suite = package("reasoning_gym", "pip install 'ragen-lite[reasoning-gym]'")
        known = importlib.import_module("reasoning_gym.factory").DATASETS
        if task not in known:
            raise ValueError(f"unknown task {task!r}: reasoning-gym has {', '.join(sorted(known))}")
        if not 0 < solved <= 1:
            raise ValueError(f"solved={solved}: a score above 0 and up to 1")
        if seconds <= 0:
            raise ValueError(f"seconds={seconds}: it must be above 0")
        self.task = task
        self.options = dict(options or {})
        self.solved = solved
        self.seconds = seconds
        # The options go to the process that scores, as JSON.
        try:
            json.dumps(self.options)
        except TypeError as error:
            raise ValueError(
                f"options={options}: numbers, texts, lists and such only ({error})"
            ) from error
        with self.own_randomness(0):
            # Made once, so that what is wrong with the options is said here and not in a reset.
            suite.create_dataset(task, seed=0, size=1, **self.options)

    @property
    def instructions(self) -> str:
        """The system prompt; the question itself says what its answer looks like."""
        return "Answer the question in the form it asks for."

    def _instance(self) -> tuple[int, dict[str, Any]]:
        """A seed, and reasoning-gym's record (question, answer, metadata) of it."""
        seed = int(self.np_random.integers(2**31))
        with self.own_randomness(seed):
            return seed, question_of(self.task, self.options, seed)[1]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a question of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self._seed, self.entry = self.draw(
            requested_split(options), self._instance, lambda made: str(made[1]["question"])
        )
        self._text = str(self.entry["question"])
        return self._text, {"success": False, "score": None}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an answer, in another process; every answer ends the episode.

        Raises:
            RuntimeError: the other process makes another question of the same seed.
        """
        # Records that hold more than JSON does are not sent. The other process makes them again of
        # their seed.
        try:
            entry = json.loads(json.dumps(self.entry))
        except TypeError:
            entry = None
        question = [self.task, self.options, self._seed, self._text, entry, action]
        try:
            score = worker("ragen_lite.envs.adapters.reasoning_gym:scores", None).ask(
                question, self.seconds
            )
        except TimeoutError:  # the answer keeps the verifier busy
            score = 0.0
        # Neither the seed nor the record gave the question that was asked.
        if score is None:
            raise RuntimeError(
                f"reasoning-gym's {self.task} asks something else in another process, of the same"
                " seed"
            )
        return self._text, score, True, False, {"success": score >= self.solved, "score": score}

    def solve(self) -> list[str] | None:
        """The generator's own answer; None where it has none."""
        answer = self.entry["answer"]
        return None if answer is None else [str(answer)]


def question_of(task: str, options: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """A generator, and the only question that it makes of a seed.

    Args:
        task: the generator's name.
        options: of the generator, by name.
        seed: of the question.
    """
    data = importlib.import_module("reasoning_gym").create_dataset(
        task, seed=seed, size=1, **options
    )
    return data, data[0]


def score(question: list[Any] | None) -> float | None:
    """The score of an answer, from 0 to 1, for the worker.

    Some generators go through sets of texts, whose order is each process's own, so that the seed
    makes another question here: then the entry is taken as it was sent. None where there is
    neither.

    Args:
        question: (task, options, seed, question, its entry as JSON or None, answer).
    """
    # The worker's first question, None, imports the package outside of any answer's time limit.
    if question is None:
        importlib.import_module("reasoning_gym")
        return None
    task, options, seed, text, sent, answer = question
    # Some generators draw from the process's generators, which ``_instance`` seeded in this way.
    seed_process(seed)
    data, entry = question_of(task, options, seed)
    if str(entry["question"]) != text:
        if sent is None:
            return None
        entry = sent
    try:
        return min(max(float(data.score_answer(answer, entry)), 0.0), 1.0)
    except Exception:  # some verifiers raise at text that they do not expect: a wrong answer
        return 0.0


def scores(questions: Iterator[list[Any] | None]) -> Iterator[float | None]:
    """``score`` of one answer after the other, for the worker."""
    for question in questions:
        yield score(question)
