"""Dialogue: a task as a conversation. It renders turns as text, reads replies, and is itself a Gymnasium env.

The formats are RAGEN's (``think_answer``), TinyZero's (``answer``), the math reproductions' (``boxed``) and ``free``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import text_space

SEPARATOR = " || "


class Unreadable(ValueError):
    """A reply that does not follow the format; its text says what is missing."""


def _between(reply: str, tag: str) -> tuple[str, str, str]:
    """Split at ``<tag>…</tag>``, which must stand there exactly once: (before, inside, after)."""
    start, end = f"<{tag}>", f"</{tag}>"
    if reply.count(start) != 1 or reply.count(end) != 1 or reply.index(start) > reply.index(end):
        raise Unreadable(f"exactly one {start} ... {end} is needed")
    before, rest = reply.split(start)
    inside, after = rest.split(end)
    return before, inside, after


def read_think_answer(reply: str) -> str:
    """The answer of ``<think>…</think><answer>…</answer>`` with nothing but white space around the two."""
    before, _, rest = _between(reply, "think")
    _between(reply, "answer")  # none in the thought either
    between, answer, after = _between(rest, "answer")
    if before.strip() or between.strip() or after.strip():
        raise Unreadable("no text is allowed outside the tags")
    return answer


def read_answer(reply: str) -> str:
    """The inside of the only ``<answer>…</answer>``, whatever stands around it."""
    return _between(reply, "answer")[1]


def read_boxed(reply: str) -> str:
    r"""The inside of the last ``\boxed{…}``, braces balanced."""
    start = reply.rfind("\\boxed{")
    depth = 0
    for end in range(start + 6, len(reply) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(reply[end], 0)
        if depth == 0:
            return reply[start + 7 : end]
    raise Unreadable("the answer must stand in \\boxed{...}")


def last_boxed(reply: str) -> str | None:
    r"""The text of the last ``\boxed{}``."""
    try:
        return read_boxed(reply).strip()
    except Unreadable:
        return None


def read_free(reply: str) -> str:
    """The whole reply."""
    return reply


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a reply is asked for, read and written."""

    reminder: str
    read: Callable[[str], str]
    write: Callable[[str, str], str]  # (thought, answer) -> reply


def _write_think_answer(thought: str, answer: str) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


def _write_answer(thought: str, answer: str) -> str:
    return f"{thought}<answer>{answer}</answer>"


def _write_boxed(thought: str, answer: str) -> str:
    return f"{thought}\\boxed{{{answer}}}"


def _write_free(thought: str, answer: str) -> str:
    return answer


REMINDERS_ZH = {
    "think_answer": "请始终按此格式回答：<think> [你的思考] </think> <answer> [你的答案] </answer>",
    "answer": "请把答案写在 <answer> [你的答案] </answer> 中",
    "boxed": "请把最终答案写在 \\boxed{} 中",
    "free": "",
}

PROTOCOLS = {
    "think_answer": Protocol(
        "Always output: <think> [your thoughts] </think> <answer> [your answer] </answer>",
        read_think_answer,
        _write_think_answer,
    ),
    "answer": Protocol(
        "Put your answer in <answer> [your answer] </answer>",
        read_answer,
        _write_answer,
    ),
    "boxed": Protocol(
        "Put your final answer in \\boxed{}",
        read_boxed,
        _write_boxed,
    ),
    "free": Protocol("", read_free, _write_free),
}


class Dialogue(gym.Wrapper[str, str, Any, Any], gym.utils.RecordConstructorArgs):
    """A conversation with a task: observations are user messages, actions are whole replies.

    One step reads one reply, steps the task once per action in it, and sums the rewards. It ends with the task or at
    the task's own budgets (``max_turns``, ``max_actions_per_turn``, ``max_actions``; 10, 1 and their product where
    the task names none). An unreadable reply changes nothing, uses up its turn, and costs the task's
    ``turn_penalty`` (0.1 where it names none). Actions beyond a budget are left out.

    Example, Sokoban's second turn as the policy sees it (rows of the room left out)::

        Turn 2:
        State:
        # # # # # #
        P (4,1), X (3,2), O (1,2)
        You have 9 actions left. Always output: <think> [your thoughts] </think> <answer> [your answer] </answer>

    ``info`` of a reset is the task's, plus ``system``, the system prompt; of a step, plus: ``actions`` (what was
    carried out, in words), ``unreadable`` (why, or None), and ``regret`` as the sum over the turn's actions where the
    task tells it.

    Args:
        env: any environment with text observations and Discrete or Text actions.
        protocol: one of PROTOCOLS; the task's own where it is left out.

    Raises:
        ValueError: unknown protocol. TypeError: spaces that are no text.
    """

    def __init__(self, env: gym.Env[Any, Any], protocol: str | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, protocol=protocol)
        gym.Wrapper.__init__(self, env)
        task = env.unwrapped
        if not isinstance(env.observation_space, gym.spaces.Text):
            raise TypeError(f"{task} observes {env.observation_space}, but Dialogue needs a Text observation space")
        self._names: tuple[str, ...] = ()
        self._first = 0  # the number of the first action
        if isinstance(env.action_space, gym.spaces.Discrete):
            n, self._first = int(env.action_space.n), int(env.action_space.start)
            self._names = tuple(getattr(task, "action_names", ())) or tuple(str(self._first + i) for i in range(n))
        elif not isinstance(env.action_space, gym.spaces.Text):
            raise TypeError(f"{task} acts in {env.action_space}, but Dialogue needs Discrete or Text actions")
        name = protocol or getattr(task, "protocol", "think_answer")
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
        self.protocol = PROTOCOLS[name]
        self.max_turns = int(getattr(task, "max_turns", 10))
        self.max_actions_per_turn = int(getattr(task, "max_actions_per_turn", 1))
        self.max_actions = int(getattr(task, "max_actions", self.max_turns * self.max_actions_per_turn))
        self.turn_penalty = float(getattr(task, "turn_penalty", 0.1))
        chinese = getattr(task, "language", "en") == "zh"
        self._reminder = REMINDERS_ZH[name] if chinese else self.protocol.reminder
        self._whole = bool(getattr(task, "conversation", False))
        letters = env.observation_space.character_set | frozenset(self._reminder)
        self.observation_space = text_space(env.observation_space.max_length + 400, letters)
        if self._whole:
            self.observation_space = env.observation_space
        self.action_space = text_space(100_000)
        few = len(self._names) <= 30
        self._allowed = f"actions out of {', '.join(self._names)}" if few else f"actions such as {self._names[0]}"
        self._ids = {word.lower(): number for number, word in enumerate(self._names, self._first)}

    @property
    def system(self) -> str:
        """The system prompt: the task's rules, its actions and its budgets."""
        rules = str(getattr(self.unwrapped, "instructions", "") or "Reach the goal of the task.")
        if not self._names:
            turns = "" if self.max_turns == 1 or self._whole else f"\nYou have {self.max_turns} turns."
            return f"{rules}{turns}"
        actions = getattr(self.unwrapped, "action_help", "") or f"The actions are {', '.join(self._names)}."
        return (
            f"{rules}\n{actions} You have {self.max_turns} turns, up to "
            f"{self.max_actions_per_turn} actions a turn (separated by{SEPARATOR.rstrip()}) and "
            f"{self.max_actions} actions in all."
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an instance; returns the first user message and the task's info."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._check(observation, info)
        if seed is not None and options and "member" in options:
            # The instance is the seed's; what chance does to it from here on is the member's own.
            # (numpy gives [seed, 0] the stream of seed itself, which the instance was drawn from: hence the 1.)
            self.unwrapped.np_random = np.random.default_rng([seed, options["member"], 1])
        self.turn, self.actions_taken, self._state = 1, 0, observation
        return self._message(""), {"actions": [], "unreadable": None, **info, "system": self.system}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Read one reply and carry out its actions; Gymnasium's 5-tuple, the observation being the next message."""
        info: dict[str, Any] = {}
        reward, terminated, truncated, regrets, done, why = 0.0, False, False, [], [], None
        try:
            actions = self.read(action)
        except Unreadable as error:
            actions, why, reward = [], str(error), -self.turn_penalty
        for act in actions[: min(self.max_actions_per_turn, self.max_actions - self.actions_taken)]:
            observation, gained, terminated, truncated, info = self.env.step(act)
            self._check(observation, info)
            self._state = observation
            reward += float(gained)
            self.actions_taken += 1
            done.append(self._word(act))
            regrets.append(info.get("regret"))
            if terminated or truncated:
                break
        self.turn += 1
        spent = self.turn > self.max_turns or self.actions_taken >= self.max_actions
        if not self._whole:
            known = [float(r) for r in regrets if r is not None]
            regret = sum(known) if known and len(known) == len(regrets) else None
            info = {**info, "actions": done, "unreadable": why, "regret": regret}
        note = f"Your reply could not be read: {why}.\n" if why else ""
        terminated = terminated or self.max_turns == 1  # a task of one turn is answered, rightly or not
        return self._message(note), reward, terminated, (truncated or spent) and not terminated, info

    def _check(self, observation: object, info: object) -> None:
        if not isinstance(observation, str) or not isinstance(info, dict):
            wrong = "the observation" if isinstance(info, dict) else "info"
            raise TypeError(f"{wrong} of {self.unwrapped} is {observation!r}, {info!r}: text and a dict are needed")

    def read(self, reply: str) -> list[Any]:
        """The actions of a reply: numbers of a game, or the one text of an answer. Raises Unreadable."""
        if self._whole:
            return [reply]
        answer = self.protocol.read(reply).strip()
        if not self._names:
            if not answer:
                raise Unreadable("the answer is empty")
            return [answer]
        words = [word.strip() for word in answer.split(SEPARATOR.strip())]
        unknown = [word for word in words if word.lower() not in self._ids]
        if unknown:
            raise Unreadable(f"the answer must be {self._allowed}")
        return [self._ids[word.lower()] for word in words]

    def write(self, thought: str, actions: list[Any]) -> str:
        """The reply that carries out ``actions``: what ``read`` reads back."""
        if self._whole:
            return str(actions[0])
        return self.protocol.write(thought, SEPARATOR.join(self._word(action) for action in actions))

    def guess(self, rng: np.random.Generator) -> list[Any]:
        """One turn of the uniform random policy: the task's own, else samples of its action space."""
        task: Any = self.unwrapped
        if hasattr(task, "guess"):
            return list(task.guess(rng))
        space = self.env.action_space
        space.seed(int(rng.integers(2**31)))
        return [space.sample() for _ in range(self.max_actions_per_turn)]

    def plan(self) -> list[Any] | None:
        """The solver's next turn; None where there is no solver, or nothing that it can do."""
        task: Any = self.unwrapped
        solution = task.solve() if hasattr(task, "solve") else None
        return solution[: self.max_actions_per_turn] if solution else None

    def _word(self, action: Any) -> str:
        return self._names[int(action) - self._first] if self._names else str(action)

    def _message(self, note: str) -> str:
        lines = self._state
        if self._whole:
            return lines
        if self._names:
            left = self.max_actions - self.actions_taken
            lines = f"Turn {self.turn}:\nState:\n{lines}\nYou have {left} actions left."
        elif self.max_turns > 1:
            lines = f"Turn {self.turn}:\n{lines}"
        return f"{note}{lines} {self._reminder}".rstrip()
