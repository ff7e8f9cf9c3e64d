"""The one place that runs something in a process of its own, ended where it takes too long.

It is for other people's code: a judge that a model's text can keep busy for ever, an environment
that hangs. The process gets and gives lines of JSON, so nothing that comes back can run here.

It lives in this folder, and not among the agents, since the judges of answers need it too.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from functools import lru_cache
from typing import Any

from ragen_lite.envs.names import resolve

START = 60.0  # seconds that a process may take to start
CHUNK = 65_536  # bytes read at once


class ProcessEnded(OSError):
    """A process ended, or never started, and left a question without an answer."""


class Process:
    """A function in a process of its own: ``module:name``, called with an iterator of questions.

    The function yields one answer for each question it takes. Questions and answers are values of
    JSON; a number that is not finite passes too. What the process prints goes to this one's
    standard error, or nowhere where it is ``quiet``.
    """

    def __init__(self, function: str, quiet: bool = False) -> None:
        self.function = function
        code = f"from ragen_lite.envs.process import serve; serve({function!r})"
        # The child finds what this process finds, wherever it was started from.
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._read = b""

    def send(self, question: Any) -> None:
        """Ask. Raises ProcessEnded."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ProcessEnded(f"the process of {self.function} has ended") from error

    def poll(self, seconds: float = 0.0) -> bool:
        """Whether an answer is there within ``seconds``. Raises ProcessEnded."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return False
                chunk = os.read(self._process.stdout.fileno(), CHUNK)
                if not chunk:
                    raise ProcessEnded(f"the process of {self.function} has ended")
                self._read += chunk
        return True

    def receive(self, seconds: float) -> Any:
        """The next answer. Raises TimeoutError after ``seconds``; ProcessEnded where it is none."""
        if not self.poll(seconds):
            raise TimeoutError(f"{self.function} gave no answer within {seconds:g} s")
        line, _, self._read = self._read.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError as error:
            raise ProcessEnded(f"the process of {self.function} wrote {line[:80]!r}") from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        # Closed, not read to their ends: a child of the process may hold the other side for ever.
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None


def serve(function: str) -> None:
    """What the process does: call the function with what is asked, and write what it yields."""
    # The pipes go to descriptors of their own before anything else is imported: what a library
    # prints must not be taken for an answer, and what it starts must not read a question.
    questions = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    answer = resolve(function)
    for value in answer(json.loads(line) for line in questions):
        answers.write(json.dumps(value) + "\n")
        answers.flush()


class Worker:
    """A process that answers one question after the other, made anew where one takes too long.

    Args:
        function: its name, as Process takes it.
        first: a question that it answers at once, asked when the process starts.
    """

    def __init__(self, function: str, first: Any) -> None:
        self.function = function
        self.first = first
        self._process: Process | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, question: Any, seconds: float) -> Any:
        """What the function answers.

        Raises:
            TimeoutError: that takes longer than ``seconds``, or ends the process.
            OSError: there is no process to be had.
        """
        with self._lock:
            process = self._running()
            try:
                process.send(question)
                return process.receive(seconds)
            except OSError as error:  # TimeoutError and ProcessEnded are
                self.close()
                message = f"{self.function} gave no answer within {seconds:g} s"
                raise TimeoutError(message) from error

    def _running(self) -> Process:
        if self._process is not None and self._process.alive:
            return self._process
        try:
            self._process = Process(self.function, quiet=True)
            self._process.send(self.first)
            self._process.receive(START)
        except OSError as error:
            self.close()
            raise OSError(f"the process of {self.function} cannot be started: {error!r}") from error
        return self._process

    def close(self) -> None:
        """End the process; the next question makes a new one."""
        if self._process is not None:
            self._process.close()
            self._process = None


@lru_cache
def _worker_of(process: int, function: str, first: str) -> Worker:
    return Worker(function, json.loads(first))


def worker(function: str, first: Any) -> Worker:
    """This process's worker for a function: a forked process must not share its parent's pipes."""
    return _worker_of(os.getpid(), function, json.dumps(first))
