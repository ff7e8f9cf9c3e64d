"""Dialogue: a task as a conversation, which is itself a Gymnasium environment.

It renders a task's turns as text, reads replies, and keeps the task's budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.attributes import attribute, difficulty_of
from ragen_lite.envs.formats import PROTOCOLS, REMINDERS_ZH, Unreadable, protocol_name
from ragen_lite.envs.spaces import text_space
from ragen_lite.envs.splits import chance_stream

SEPARATOR = " || "  # between the actions of one reply
# A note on an unreadable reply lists all of a game's actions up to this many, else one example.
FEW_ACTIONS = 30
FRAME = 400  # characters that a message may have around the task's observation


@dataclass(slots=True)
class _TurnSoFar:
    """What the actions of one reply have come to; ``reward`` is their sum."""

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False


class Dialogue(gym.Wrapper[str, str, Any, Any], gym.utils.RecordConstructorArgs):
    """A conversation with a task: observations are user messages, actions are whole replies.

    One step reads one reply, steps the task once per action in it, and sums the rewards. The
    episode ends with the task or at the task's own budgets: ``max_turns`` replies,
    ``max_actions_per_turn`` actions in a reply, and ``max_actions`` in all (10, 1 and their product
    where the task names none). Actions beyond a budget are left out. An unreadable reply changes
    nothing, uses up its turn, and costs the task's ``turn_penalty`` (0.1 where it names none).

    Example, Sokoban's second turn as the policy sees it (rows of the room left out)::

        Turn 2:
        State:
        # # # # # #
        P (4,1), X (3,2), O (1,2)
        You have 9 actions left. Always output: <think> [your thoughts] ...

    ``info`` is the task's, plus ``difficulty`` where it tells one; of a reset, plus ``system``, the
    system prompt, and ``prefill``, with which every reply must begin; of a step, plus: ``actions``
    (what was carried out, in words), ``unreadable`` (why, or None), and ``regret`` as the sum over
    the turn's actions where the task tells it.

    Args:
        env: any environment with text observations and Discrete or Text actions.
        protocol: one of PROTOCOLS; the task's own where it is left out.
        prefill: what every reply begins with, unsampled; the task's own where it is left out.

    Raises:
        ValueError: unknown protocol, or one for a task that reads whole replies.
        TypeError: observations that are no Text, or actions that are neither Discrete nor Text.
    """

    def __init__(
        self, env: gym.Env[Any, Any], protocol: str | None = None, prefill: str | None = None
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, protocol=protocol, prefill=prefill)
        gym.Wrapper.__init__(self, env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Text):
            raise TypeError(
                f"{env.unwrapped} observes {space}, but Dialogue needs a Text observation space"
            )
        # Every attribute has a default here, so an environment that is no TextTask works.
        self._name_actions()
        self._read_budgets()
        self._whole = bool(attribute(env, "conversation", False))
        name = protocol_name(protocol, attribute(env, "protocol", "think_answer"), self._whole)
        self.protocol = PROTOCOLS[name]
        chinese = attribute(env, "language", "en") == "zh"
        self._reminder = REMINDERS_ZH[name] if chinese else self.protocol.reminder
        self._own_prefill = prefill is None
        self.prefill = prefill if prefill is not None else str(attribute(env, "prefill", ""))
        # The message's space holds the task's characters and those of the reminder, which may be
        # Chinese. A conversation is not framed, so its space is the task's own.
        letters = space.character_set | frozenset(self._reminder)
        framed = text_space(space.max_length + FRAME, letters)
        self.observation_space = space if self._whole else framed
        self.action_space = text_space(100_000)

    def _name_actions(self) -> None:
        """Take the words for a game's actions; an answer's actions are texts and have none."""
        self.names: tuple[str, ...] = ()
        self._first = 0  # the number of the first action
        space = self.env.action_space
        if isinstance(space, gym.spaces.Discrete):
            self._first = int(space.start)
            numbers = range(self._first, self._first + int(space.n))
            self.names = tuple(attribute(self.env, "action_names", ())) or tuple(map(str, numbers))
        elif not isinstance(space, gym.spaces.Text):
            raise TypeError(
                f"{self.unwrapped} acts in {space}, but Dialogue needs Discrete or Text actions"
            )
        # Words are read in any case: "up" is "Up".
        self.numbers = {word.lower(): number for number, word in enumerate(self.names, self._first)}

    def _read_budgets(self) -> None:
        self.max_turns = int(attribute(self.env, "max_turns", 10))
        self.max_actions_per_turn = int(attribute(self.env, "max_actions_per_turn", 1))
        whole = self.max_turns * self.max_actions_per_turn
        self.max_actions = int(attribute(self.env, "max_actions", whole))
        self.turn_penalty = float(attribute(self.env, "turn_penalty", 0.1))

    @property
    def system(self) -> str:
        """The system prompt: the task's rules, its actions and its budgets."""
        rules = attribute(self.env, "instructions", "")
        rules = str(rules() if callable(rules) else rules) or "Reach the goal of the task."
        if not self.names:
            turns = (
                "" if self.max_turns == 1 or self._whole else f"\nYou have {self.max_turns} turns."
            )
            return f"{rules}{turns}"
        actions = attribute(self.env, "action_help", "")
        actions = actions or f"The actions are {', '.join(self.names)}."
        return (
            f"{rules}\n{actions} You have {self.max_turns} turns, up to "
            f"{self.max_actions_per_turn} actions a turn (separated by{SEPARATOR.rstrip()}) and "
            f"{self.max_actions} actions in all."
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an instance; returns the first user message and the task's info.

        Args:
            seed: of the instance.
            options: ``split`` for the task. ``member``, with a seed, gives what chance does after
                the reset a stream of its own.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._check(observation, info)
        # The task has drawn its instance from the seed alone, so it is the same for all members of
        # a group. What chance does from here on (a card, a slippery step) differs between them.
        if seed is not None and options and "member" in options:
            self.unwrapped.np_random = chance_stream(seed, options["member"])
        self.turn = 1
        self.actions_taken = 0
        self._state = observation
        start = {"actions": [], "unreadable": None, **info, **difficulty_of(self.env)}
        # Each task of a mixture has its own, unless one was given.
        mixed = self._own_prefill and attribute(self.env, "mixture", False)
        start["prefill"] = info["prefill"] if mixed else self.prefill
        return self._message(""), {**start, "system": self.system}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Read one reply and carry out its actions; the observation is the next message.

        The reward is the sum over the reply's actions, or minus ``turn_penalty`` where the reply
        is unreadable. An episode at the end of a budget is truncated, not terminated.
        """
        why = None
        actions: list[Any] = []
        try:
            actions = self.read(action)
        except Unreadable as error:
            why = str(error)
        turn, info = self._carry_out(actions)
        if why is not None:
            turn.reward = -self.turn_penalty
        self.turn += 1
        # A conversation reads its replies itself and says in its own info what it could not read.
        if not self._whole:
            info["unreadable"] = why
        info |= difficulty_of(self.env)
        note = f"Your reply could not be read: {why}.\n" if why else ""
        terminated = turn.terminated or self.max_turns == 1  # one turn is answered, right or wrong
        spent = self.turn > self.max_turns or self.actions_taken >= self.max_actions
        truncated = (turn.truncated or spent) and not terminated
        return self._message(note), turn.reward, terminated, truncated, info

    def _carry_out(self, actions: list[Any]) -> tuple[_TurnSoFar, dict[str, Any]]:
        """Step the task once per action, within the budgets; the last step's info, and the sums."""
        turn = _TurnSoFar()
        info: dict[str, Any] = {}
        words = []
        regrets = []
        for action in actions[: min(self.max_actions_per_turn, self._actions_left())]:
            observation, reward, turn.terminated, turn.truncated, info = self.env.step(action)
            self._check(observation, info)
            self._state = observation
            self.actions_taken += 1
            turn.reward += float(reward)
            words.append(self._word(action))
            regrets.append(info.get("regret"))
            if turn.terminated or turn.truncated:
                break
        if self._whole:
            return turn, dict(info)
        # A sum with one unknown part is unknown.
        known = [float(regret) for regret in regrets if regret is not None]
        regret = sum(known) if known and len(known) == len(regrets) else None
        return turn, {**info, "actions": words, "unreadable": None, "regret": regret}

    def _actions_left(self) -> int:
        return self.max_actions - self.actions_taken

    def _check(self, observation: object, info: object) -> None:
        if not isinstance(observation, str) or not isinstance(info, dict):
            wrong = "the observation" if isinstance(info, dict) else "info"
            raise TypeError(
                f"{wrong} of {self.unwrapped} is {observation!r}, {info!r}: text and a dict are"
                " needed"
            )

    def read(self, reply: str) -> list[Any]:
        """The actions of a reply: numbers of a game, or the one text of an answer.

        Raises:
            Unreadable: the reply breaks the format, its answer is empty, or it names an action that
                the game does not have.
        """
        if self._whole:
            return [reply]
        answer = self.protocol.read(reply).strip()
        if not self.names:
            if not answer:
                raise Unreadable("the answer is empty")
            return [answer]
        words = [word.strip() for word in answer.split(SEPARATOR.strip())]
        # One unknown action makes the whole reply unreadable: no half of a plan is carried out.
        unknown = [word for word in words if word.lower() not in self.numbers]
        if unknown:
            raise Unreadable(f"the answer must be {self._allowed()}")
        return [self.numbers[word.lower()] for word in words]

    def write(self, thought: str, actions: list[Any]) -> str:
        """The reply that carries out ``actions``, which ``read`` reads back.

        Args:
            thought: what stands before the answer, where the protocol has a place for it.
            actions: numbers of a game, or one text.
        """
        if self._whole:
            return str(actions[0])
        return self.protocol.write(
            thought, SEPARATOR.join(self._word(action) for action in actions)
        )

    def guess(self, rng: np.random.Generator) -> list[Any]:
        """One turn of the uniform random policy: the task's own, else samples of its actions."""
        task: Any = self.unwrapped
        # A TextTask declares both. Anybody else's ``guess`` alone may be a move of their game.
        if hasattr(task, "has_solver") and hasattr(task, "guess"):
            return list(task.guess(rng))
        # A space samples from a generator of its own, so it is seeded from ``rng``.
        space = self.env.action_space
        space.seed(int(rng.integers(2**31)))
        return [space.sample() for _ in range(self.max_actions_per_turn)]

    def plan(self) -> list[Any] | None:
        """The solver's next turn, as many actions as it may have.

        None where there is no solver, or nothing that it can do.
        """
        task: Any = self.unwrapped
        solution = task.solve() if has_solver(task) else None
        return solution[: self.max_actions_per_turn] if solution else None

    def _allowed(self) -> str:
        if len(self.names) <= FEW_ACTIONS:
            return f"actions out of {', '.join(self.names)}"
        return f"actions such as {self.names[0]}"

    def _word(self, action: Any) -> str:
        return self.names[int(action) - self._first] if self.names else str(action)

    def _message(self, note: str) -> str:
        lines = self._state
        if self._whole:
            return lines
        if self.names:
            left = self._actions_left()
            lines = f"Turn {self.turn}:\nState:\n{lines}\nYou have {left} actions left."
        elif self.max_turns > 1:
            lines = f"Turn {self.turn}:\n{lines}"
        return f"{note}{lines} {self._reminder}".rstrip()


def has_solver(task: Any) -> bool:
    """Whether a task says its best actions.

    An environment that does not declare it has a solver where it has a ``solve``.
    """
    return bool(getattr(task, "has_solver", hasattr(task, "solve")))
