"""Environments at arm's length: what they raise, answer or fail to answer becomes one kind of failure.

An environment runs in this process, or in one of its own where it asks for a time limit: a task's ``time_limit``
attribute, in seconds, for each reset and step.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np

import ragen_lite  # noqa: F401  (registers the tasks, in a child process too)
from ragen_lite.agents.scripted import Policy
from ragen_lite.envs.dialogue import Dialogue


class EnvFailure(RuntimeError):
    """An environment raised, hung or returned nonsense; the text says which."""


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """How to make a task's Dialogue. Example: ``EnvSpec("ragen_lite/Sokoban-v0", {"boxes": 2})``."""

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    protocol: str | None = None

    def make(self) -> Dialogue:
        """The Dialogue itself. Raises what Gymnasium and the task raise for an unknown id or a wrong option."""
        return Dialogue(gym.make(self.id, disable_env_checker=True, **self.kwargs), self.protocol)

    def open(self) -> Handle:
        """The Dialogue behind a handle, in a process of its own where the task has a time limit."""
        env = self.make()
        limit = getattr(env.unwrapped, "time_limit", None)
        return Handle(env) if limit is None else ProcessHandle(env, self, float(limit))


def checked(result: tuple[Any, ...]) -> tuple[str, float, bool, bool, dict[str, Any]]:
    """A step's result, or EnvFailure where it is not text, a finite reward, two truth values and a dict."""
    if not isinstance(result, tuple) or len(result) != 5:
        raise EnvFailure(f"step returned {str(result)[:80]!r}, not (observation, reward, terminated, truncated, info)")
    observation, reward, terminated, truncated, info = result
    if not isinstance(observation, str):
        raise EnvFailure(f"the observation is {type(observation).__name__}, not text")
    if not math.isfinite(reward):
        raise EnvFailure(f"the reward is {reward}, not a finite number")
    if not isinstance(info, dict):
        raise EnvFailure(f"info is {type(info).__name__}, not a dict")
    return observation, float(reward), bool(terminated), bool(truncated), info


class Handle:
    """A Dialogue in this process. ``send`` starts a call, ``ready`` says if it is done, ``take`` gives its result."""

    def __init__(self, env: Dialogue) -> None:
        self.system = env.system
        self._env = env
        self._result: Any = None

    def send(self, method: str, **kwargs: Any) -> None:
        """Begin ``reset(seed=, options=)``, ``step(action=)`` or ``act(policy=)``, a step whose reply a scripted policy
        writes; that reply stands in ``info["reply"]``."""
        try:
            self._result = self._call(method, kwargs)
        except Exception as error:  # the one place where another's exception becomes data
            self._result = EnvFailure(f"{type(error).__name__}: {error}")

    def _call(self, method: str, kwargs: dict[str, Any]) -> Any:
        if method == "reset":
            # numpy gives [seed, 0] the stream of seed itself, which the instance was drawn from: hence the 2.
            self._rng = np.random.default_rng([kwargs["seed"], kwargs["options"]["member"], 2])
            return self._env.reset(**kwargs)
        if method == "step":
            return self._env.step(**kwargs)
        policy: Policy = kwargs["policy"]
        reply = policy(self._env, self._rng)
        observation, reward, terminated, truncated, info = self._env.step(reply)
        return observation, reward, terminated, truncated, {**info, "reply": reply}

    def ready(self) -> bool:
        """Whether ``take`` will answer at once."""
        return True

    def take(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The result; a reset's as a step's with no reward. Raises EnvFailure."""
        result = self._result
        if isinstance(result, EnvFailure):
            raise result
        if isinstance(result, tuple) and len(result) == 2:
            result = (result[0], 0.0, False, False, result[1])
        return self._told(checked(result))

    def _told(
        self, result: tuple[str, float, bool, bool, dict[str, Any]]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.system = result[4].pop("system", self.system)  # of a reset: each task of a mixture has its own
        return result

    def close(self) -> None:
        self._env.close()


def serve(descriptor: int) -> None:
    """What the process of an environment does: make it, then answer calls until the pipe is closed."""
    connection = Connection(descriptor)
    try:
        spec: EnvSpec = connection.recv()
        try:
            handle = Handle(spec.make())
        except Exception as error:  # as in Handle.send: another's exception becomes data
            connection.send((False, f"{type(error).__name__}: {error}"))
            return
        connection.send((True, None))
        while True:
            method, kwargs = connection.recv()
            handle.send(method, **kwargs)
            try:
                result = handle.take()
                if method == "reset":
                    result[4]["system"] = handle.system
                connection.send((True, result))
            except EnvFailure as failure:
                connection.send((False, str(failure)))
    except (EOFError, OSError):
        return  # the other side is gone


class ProcessHandle(Handle):
    """A Dialogue in its own process, which is ended where it does not answer within ``limit`` seconds.

    The process imports Gymnasium and the task, never torch. It is started by ``reset`` and lives until it fails.
    """

    START = 60.0  # seconds for the process itself to start

    def __init__(self, env: Dialogue, spec: EnvSpec, limit: float) -> None:
        super().__init__(env)
        self._spec, self._limit = spec, limit
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._failure: str | None = None

    def _start(self) -> None:
        self._pipe, child = Pipe()
        code = f"from ragen_lite.agents.isolation import serve; serve({child.fileno()})"
        self._process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[child.fileno()], env=_child_env())
        child.close()
        self._pipe.send(self._spec)
        self._starting = True

    def send(self, method: str, **kwargs: Any) -> None:
        """See Handle."""
        self._failure = None
        try:
            if self._process is None and method == "reset":
                self._start()
            if self._process is None:
                raise EOFError
            self._pipe.send((method, kwargs))
        except (EOFError, OSError):
            self._failure = "its process ended without an answer"
        self._deadline = time.monotonic() + (self.START if self._starting else self._limit)

    def ready(self) -> bool:
        """See Handle; true after the time limit as well, when ``take`` raises."""
        if self._failure is not None or time.monotonic() > self._deadline:
            return True
        if not self._pipe.poll():
            return False
        if self._starting:
            self._started()
            return self._failure is not None or self._pipe.poll()
        return True

    def _started(self) -> None:
        """Read the message that says the environment is made; the time limit begins here."""
        self._starting = False
        self._deadline = time.monotonic() + self._limit
        try:
            fine, why = self._pipe.recv()
        except (EOFError, OSError):
            fine, why = False, "its process ended before its environment was made"
        if not fine:
            self._failure = str(why)

    def take(self) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See Handle."""
        while not self.ready():
            time.sleep(0.001)
        try:
            if self._failure is not None:
                raise EnvFailure(self._failure)
            if not self._pipe.poll():
                raise EnvFailure(f"no answer within its time limit of {self._limit:g} s; its process was ended")
            fine, result = self._pipe.recv()
        except (EnvFailure, EOFError, OSError) as error:
            self._end()
            raise (
                error if isinstance(error, EnvFailure) else EnvFailure("its process ended without an answer")
            ) from None
        if not fine:
            raise EnvFailure(result)
        return self._told(checked(result))

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._pipe.close()
            self._process = None

    def close(self) -> None:
        self._end()
        super().close()


def _child_env() -> dict[str, str]:
    # The child finds what this process finds, wherever it was started from.
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
