"""Environments at arm's length: whatever one raises, answers or fails to answer is one failure.

An environment runs in this process, or in one of its own where it asks for a time limit: a task's
``time_limit`` attribute, in seconds, for each reset and step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gymnasium as gym

import ragen_lite  # noqa: F401  (registers the tasks, in a child process too)
from ragen_lite.agents.answer import Answer, EnvFailure, read
from ragen_lite.agents.scripted import POLICIES, ScriptedPolicy
from ragen_lite.envs.attributes import attribute
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.envs.process import START, Process, ProcessEnded
from ragen_lite.envs.splits import policy_stream

WAIT = 0.001  # seconds between two looks at whether an answer is there


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """How to make a task's Dialogue.

    Example: ``EnvSpec("ragen_lite/Sokoban-v0", {"boxes": 2})``.
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    protocol: str | None = None
    prefill: str | None = None

    def make(self) -> Dialogue:
        """The Dialogue itself.

        Raises what Gymnasium and the task raise for an unknown id or a wrong option.
        """
        env: gym.Env[Any, Any] = gym.make(self.id, disable_env_checker=True, **self.kwargs)
        return Dialogue(env, self.protocol, self.prefill)

    def open(self) -> Handle:
        """The Dialogue behind a handle, in a process of its own where the task has a time limit."""
        env = self.make()
        limit = attribute(env.env, "time_limit", None)
        if limit is None:
            return Handle(env)
        if not isinstance(limit, (int, float)) or not limit > 0:
            raise ValueError(f"time_limit is {limit!r}: give seconds, a number above 0, or None")
        return ProcessHandle(env, self, float(limit))


class Handle:
    """A Dialogue in this process.

    ``reset``, ``step`` and ``act`` begin a call, ``ready`` says whether it is done, ``take`` gives
    its answer.
    """

    def __init__(self, env: Dialogue) -> None:
        self._env = env
        self._system = env.system
        self._prefill = ""
        task = env.unwrapped
        self._mixture = isinstance(task, TextTask) and task.mixture
        self._result: Answer | EnvFailure = EnvFailure("nothing was asked of the environment")

    @property
    def prefill(self) -> str:
        """What the replies of the present episode begin with."""
        return self._prefill

    def reset(self, seed: int, options: dict[str, Any]) -> None:
        """Begin an episode; ``options`` hold the split and the member."""
        # The scripted policy draws apart from the environment, so that neither disturbs the other.
        self._rng = policy_stream(seed, options["member"])
        self._prefill = ""
        self._call(lambda: ("", self._env.reset(seed=seed, options=options)))
        task = self._env.unwrapped
        if isinstance(task, TextTask) and isinstance(self._result, Answer):
            self._result = replace(self._result, instance=task.instance)

    def step(self, reply: str) -> None:
        """Begin to carry out a reply."""
        self._call(lambda: (reply, self._env.step(reply)))

    def act(self, policy: ScriptedPolicy) -> None:
        """Begin to carry out the reply that a scripted policy writes."""

        def written() -> tuple[str, Any]:
            reply = policy(self._env, self._rng)
            return reply, self._env.step(reply)

        self._call(written)

    def _call(self, play: Any) -> None:
        try:
            reply, result = play()
            self._result = read(result, self._system, reply, self._mixture, self._prefill)
        except EnvFailure as failure:
            self._result = failure
        # The one place where another's exception becomes data.
        except (Exception, SystemExit) as error:
            self._result = EnvFailure(f"{type(error).__name__}: {error}")

    def ready(self) -> bool:
        """Whether ``take`` will answer at once."""
        return True

    def take(self) -> Answer:
        """The answer. Raises EnvFailure."""
        if isinstance(self._result, EnvFailure):
            raise self._result
        self._system = self._result.system
        self._prefill = self._result.prefill
        return self._result

    def close(self) -> None:
        """Give the environment up."""
        self._env.close()


def serve(calls: Iterator[Any]) -> Iterator[Any]:
    """What the process of an environment does: make it, then answer calls.

    The first question is the EnvSpec's fields, each further one ``[method, *arguments]``. An answer
    is ``[true, fields of an Answer]`` or ``[false, why not]``.
    """
    try:
        handle = Handle(EnvSpec(**next(calls)).make())
    except Exception as error:  # as in Handle: another's exception becomes data
        yield [False, f"{type(error).__name__}: {error}"]
        return
    yield [True, None]
    for method, *arguments in calls:
        if method == "act":
            handle.act(POLICIES[arguments[0]])
        else:
            getattr(handle, method)(*arguments)
        try:
            yield [True, asdict(handle.take())]
        except EnvFailure as failure:
            yield [False, str(failure)]


class ProcessHandle(Handle):
    """A Dialogue in its own process, which is ended where it does not answer in ``limit`` seconds.

    The process imports Gymnasium and the task, never torch. It is started by ``reset`` and lives
    until it fails.
    """

    def __init__(self, env: Dialogue, spec: EnvSpec, limit: float) -> None:
        super().__init__(env)
        if json.loads(json.dumps(spec.kwargs, default=str)) != spec.kwargs:
            raise ValueError(
                f"{spec.kwargs}: the options of an environment with a time limit go to a process "
                "of its own, so they are numbers, texts, lists, and objects with names"
            )
        self._spec = spec
        self._limit = limit
        self._process: Process | None = None
        self._starting = False
        self._failure: str | None = None

    def reset(self, seed: int, options: dict[str, Any]) -> None:
        """See Handle."""
        if self._process is None:
            self._start()
        self._ask("reset", seed, options)

    def step(self, reply: str) -> None:
        """See Handle."""
        self._ask("step", reply)

    def act(self, policy: ScriptedPolicy) -> None:
        """See Handle; the policy must be one of POLICIES, whose name goes over."""
        self._ask("act", next(name for name, known in POLICIES.items() if known is policy))

    def _start(self) -> None:
        try:
            self._process = Process("ragen_lite.agents.environments:serve")
            self._process.send(asdict(self._spec))
            self._starting = True
        except OSError:  # told by the question that follows
            self._end()

    def _ask(self, *call: Any) -> None:
        self._failure = None
        try:
            if self._process is None:
                raise ProcessEnded
            self._process.send(list(call))
        except OSError:
            self._failure = "its process ended without an answer"
        self._deadline = time.monotonic() + (START if self._starting else self._limit)

    def ready(self) -> bool:
        """See Handle; true after the time limit as well, when ``take`` raises."""
        # Past the deadline too: ``take`` then says so, and ends the process.
        if self._failure is not None or time.monotonic() > self._deadline:
            return True
        if not self._answered():
            return False
        # The first answer only says that the environment is made.
        if not self._starting:
            return True
        self._begin_limit()
        return self._failure is not None or self._answered()

    def _answered(self) -> bool:
        assert self._process is not None
        try:
            return self._process.poll()
        except ProcessEnded:
            when = "before its environment was made" if self._starting else "without an answer"
            self._failure = f"its process ended {when}"
            return True

    def _begin_limit(self) -> None:
        """Read the message that says the environment is made; the time limit begins here."""
        self._starting = False
        self._deadline = time.monotonic() + self._limit
        if self._failure is None:
            assert self._process is not None
            try:
                made, why = self._process.receive(self._limit)
            except OSError as error:
                made, why = False, error
            self._failure = None if made else str(why)

    def take(self) -> Answer:
        """See Handle."""
        while not self.ready():
            time.sleep(WAIT)
        if self._failure is None and not self._answered():
            limit = f"{self._limit:g} s"
            self._failure = f"no answer within its time limit of {limit}; its process was ended"
        if self._failure is not None:
            self._end()
            raise EnvFailure(self._failure)
        assert self._process is not None
        try:
            fine, result = self._process.receive(self._limit)
        except OSError as error:
            self._end()
            raise EnvFailure(str(error)) from error
        if not fine:
            raise EnvFailure(result)
        self._prefill = result["prefill"]
        actions = result.pop("actions")
        return Answer(**result, actions=None if actions is None else tuple(actions))

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def close(self) -> None:
        """See Handle."""
        self._end()
        super().close()
