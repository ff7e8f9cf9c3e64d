"""Doors to other suites, each an optional package: reasoning-gym, TextArena's single-player games, GEM.

``env=reasoning_gym task=countdown``, ``env=textarena task=GuessTheNumber-v0``, ``env=gem task=game:Sokoban-v0-easy``.
Their instances are divided by content as ours are. TextArena and GEM draw from the random generators of the process;
here each environment has a state of its own, put in place for the time of a call.
"""

from __future__ import annotations

import importlib
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import AnyText, TextTask, wanted_split
from ragen_lite.envs.worker import worker


def package(name: str, install: str) -> Any:
    """An optional package. Raises ImportError that says how to install it."""
    before = random.getstate()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this environment is {name}'s, which is not installed: {install} ({error})") from error
    finally:
        random.setstate(before)  # some seed the process's generator when they are imported


def seed_process(seed: int) -> None:
    """Seed the random generators of the process, which the suites draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


class Door(TextTask[str]):
    """What the doors share: text in and out, over every character, and randomness of their own."""

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    max_actions_per_turn = 1
    form = "{}"  # how a suite's games read a move

    def _open(self, max_turns: int, render_mode: str | None) -> None:
        if max_turns < 1:
            raise ValueError(f"max_turns={max_turns}: it must be above 0")
        self.max_turns = self.max_actions = max_turns
        self.render_mode = render_mode
        self.observation_space, self.action_space = AnyText(200_000), AnyText(100_000)
        self._text = ""
        self._random: tuple[Any, Any] | None = None

    @contextmanager
    def own_randomness(self, seed: int | None = None) -> Iterator[None]:
        """The process's generators in this environment's state, or seeded, for a call; then as they were."""
        before = random.getstate(), np.random.get_state()
        if seed is not None:
            seed_process(seed)
        elif self._random is not None:
            random.setstate(self._random[0])
            np.random.set_state(self._random[1])
        try:
            yield
        finally:
            self._random = random.getstate(), np.random.get_state()
            random.setstate(before[0])
            np.random.set_state(before[1])

    def render(self) -> str:  # type: ignore[override]
        """The last message."""
        return self._text

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random digit in the form that the suite reads: each game has moves of its own, so this hardly plays."""
        return [self.form.format(int(rng.integers(10)))]


class ReasoningGym(Door):
    """A question of one of reasoning-gym's generators; its own verifier scores the answer.

    Args:
        task: the generator's name. options: of the generator, by name.
        solved: the score from which an answer counts as success.
        seconds: how long scoring may take; some verifiers evaluate powers of any size, and an answer that is not
            scored by then is wrong.

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
        self.task, self.options, self.solved, self.seconds = task, dict(options or {}), solved, seconds
        try:
            json.dumps(self.options)
        except TypeError as error:
            raise ValueError(f"options={options}: numbers, texts, lists and such only ({error})") from error
        with self.own_randomness(0):
            suite.create_dataset(task, seed=0, size=1, **self.options)  # whatever is wrong with the options is said now

    @property
    def instructions(self) -> str:
        return "Answer the question in the form it asks for."

    def _instance(self) -> tuple[int, dict[str, Any]]:
        seed = int(self.np_random.integers(2**31))
        with self.own_randomness(seed):
            return seed, question_of(self.task, self.options, seed)[1]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw a question of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self._seed, self.entry = self.draw(wanted_split(options), self._instance, lambda made: str(made[1]["question"]))
        self._text = str(self.entry["question"])
        return self._text, {"success": False, "score": None}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score an answer; every answer ends the episode."""
        try:
            entry = json.loads(json.dumps(self.entry))
        except TypeError:  # some hold more than JSON does; those that do are made of their seed alone
            entry = None
        question = [self.task, self.options, self._seed, self._text, entry, action]
        try:
            score = worker("ragen_lite.envs.doors:score", None).ask(question, self.seconds)
        except TimeoutError:
            score = 0.0
        if score is None:
            raise RuntimeError(f"reasoning-gym's {self.task} asks something else in another process, of the same seed")
        return self._text, score, True, False, {"success": score >= self.solved, "score": score}

    def solve(self) -> list[str] | None:
        """The generator's own answer; None where it has none."""
        answer = self.entry["answer"]
        return None if answer is None else [str(answer)]


def question_of(task: str, options: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """A generator with the only question that it makes of a seed."""
    data = importlib.import_module("reasoning_gym").create_dataset(task, seed=seed, size=1, **options)
    return data, data[0]


def score(question: list[Any] | None) -> float | None:
    """The score of an answer, for the worker: of (task, options, seed, question, its entry as JSON, answer).

    Some generators go through sets of texts, whose order is each process's own, so that the seed makes another question
    here: then the entry is taken as it was sent. None where there is neither.
    """
    if question is None:
        importlib.import_module("reasoning_gym")
        return None
    task, options, seed, text, sent, answer = question
    seed_process(seed)
    data, entry = question_of(task, options, seed)
    if str(entry["question"]) != text:
        if sent is None:
            return None
        entry = sent
    try:
        return min(max(float(data.score_answer(answer, entry)), 0.0), 1.0)
    except Exception:  # some verifiers raise on text they do not expect; such an answer is wrong
        return 0.0


class TextArena(Door):
    """A single-player game of TextArena.

    Args:
        task: the game's name in TextArena's registry, such as ``GuessTheNumber-v0`` or ``FrozenLake-v0-random``; its
            observations are the game's messages, each once.
        max_turns: replies; games have limits of their own too.

    The reward comes at the end and is the game's, mostly 0 to 1; success is 1 or more. An action that breaks the game's
    rules is the game's to punish.
    """

    form = "[{}]"

    def __init__(self, task: str = "GuessTheNumber-v0", max_turns: int = 20, render_mode: str | None = None) -> None:
        self._open(max_turns, render_mode)
        package("textarena", "pip install 'ragen-lite[textarena]'")
        known = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
        raw = task if task.endswith("-raw") else f"{task}-raw"
        if raw not in known:
            names = sorted(name.removesuffix("-raw") for name in known if name.endswith("-raw"))
            raise ValueError(f"unknown task {task!r}: TextArena has {', '.join(names)}")
        self.task, self._raw = task, raw
        self.turn_penalty = 0.1
        try:
            self._begin(0)
        except AssertionError as error:
            raise ValueError(f"task={task}: not a game for one player ({error})") from error
        except LookupError as error:
            raise ValueError(
                f"task={task} needs a word list of nltk: {str(error).strip().splitlines()[1].strip()}"
            ) from error

    @property
    def instructions(self) -> str:
        return "Play the game. Your answer is what the game reads, in the form it asks for."

    def _begin(self, seed: int) -> Any:
        arena = importlib.import_module("textarena")
        with self.own_randomness(seed):
            inner = arena.make(self._raw)
            inner.reset(num_players=1, seed=seed)
        return inner

    def _content(self, inner: Any) -> str:
        content = str(sorted((str(k), str(v)) for k, v in (inner.state.game_state or {}).items()))
        if " at 0x" in content:  # of an object that does not tell what it holds; the first message does
            content = re.sub(r" at 0x[0-9a-f]+", "", f"{content} {inner.state.observations}")
        return content

    def _messages(self) -> str:
        _, messages = self.inner.get_observation()
        return "\n".join(str(text).strip() for sender, text, _ in messages if sender == -1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw a game of ``options["split"]`` (``train`` where it is left out)."""
        super().reset(seed=seed)
        self.inner = self.draw(
            wanted_split(options), lambda: self._begin(int(self.np_random.integers(2**31))), self._content
        )
        self._text = self._messages()
        return self._text, {"success": False}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One move, in the game's own words."""
        with self.own_randomness():
            done, _ = self.inner.step(action)
            if not done:
                self._text = self._messages()
                return self._text, 0.0, False, False, {"success": False}
            rewards, told = self.inner.close()
        reward = float((rewards or {}).get(0, 0.0))
        self._text = str((told or {}).get(0, {}).get("reason", ""))
        return self._text, reward, True, False, {"success": reward >= 1}


class Gem(Door):
    """A game or question of GEM (``gem-llm``).

    Args:
        task: an id of GEM's registry, such as ``game:Sokoban-v0-easy``. GEM reads whole replies, mostly for a box.
        max_turns: replies; games have limits of their own too.

    The reward is GEM's; success is a reward of 1 or more in the last step.
    """

    conversation = True
    form = "\\boxed{{{}}}"

    def __init__(
        self, task: str = "game:GuessTheNumber-v0-easy", max_turns: int = 20, render_mode: str | None = None
    ) -> None:
        self._open(max_turns, render_mode)
        package("gem", "pip install --no-deps gem-llm, beside reasoning-gym, math-verify, msgspec and nltk")
        known = importlib.import_module("gem.envs.registration").ENV_REGISTRY
        if task not in known:
            raise ValueError(f"unknown task {task!r}: GEM has {', '.join(sorted(known))}")
        self.task = task
        self.turn_penalty = 0.1

    @property
    def instructions(self) -> str:
        return "Play the game, or answer the question, in the form it asks for."

    def _begin(self) -> tuple[Any, str]:
        seed = int(self.np_random.integers(2**31))
        suite = importlib.import_module("gem")
        with self.own_randomness(seed):
            inner = suite.make(self.task)
            observation, info = inner.reset(seed=seed)
        return inner, _with_suffix(observation, info)

    def _content(self, made: tuple[Any, str]) -> str:
        plain = (int, str, bool, float, list, tuple, dict, np.ndarray)
        facts = {k: str(v) for k, v in vars(made[0]).items() if isinstance(v, plain) and "seed" not in k}
        return f"{made[1]} {sorted(facts.items())}"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw an instance of ``options["split"]`` (``train`` where it is left out)."""
        gym.Env.reset(self, seed=seed)
        self.inner, self._text = self.draw(wanted_split(options), self._begin, self._content)
        return self._text, {"success": False}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One reply."""
        with self.own_randomness():
            observation, reward, terminated, truncated, info = self.inner.step(action)
        self._text = _with_suffix(observation, info)
        success = bool(terminated and float(reward) >= 1)
        told = {"success": success, "actions": [action], "unreadable": None, "regret": None}
        return self._text, float(reward), bool(terminated), bool(truncated and not terminated), told


def _with_suffix(observation: Any, info: dict[str, Any]) -> str:
    """GEM keeps the board in ``info["suffix"]``; without it the observation is not all there is to see."""
    return "\n".join(part for part in (str(observation).strip(), str(info.get("suffix", "")).strip()) if part)
