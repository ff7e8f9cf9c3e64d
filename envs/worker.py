"""A judge in a process of its own, which is ended and made anew where an answer takes longer than its time limit.

For other people's code that works on text that a model wrote: a text can keep it busy for ever. The process gets and
gives lines of JSON.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import selectors
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any


class Worker:
    """A function of JSON values, named as ``module:function``, in a process of its own.

    Args:
        function: its name. question: one that it answers at once, asked when the process starts.
    """

    START = 60.0  # seconds for the process itself to start

    def __init__(self, function: str, question: Any) -> None:
        self.function, self.question = function, question
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, question: Any, seconds: float) -> Any:
        """What the function returns.

        Raises TimeoutError where that takes longer than ``seconds`` or ends the process, OSError where there is no
        process to be had.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                try:
                    self._start()
                except OSError as error:  # TimeoutError is one
                    self.close()
                    raise OSError(f"the process of {self.function} cannot be started: {error!r}") from error
            try:
                return self._answer(question, seconds)
            except OSError as error:  # it took too long, or took the process with it
                self.close()
                raise TimeoutError(f"{self.function} gave no answer within {seconds:g} s") from error

    def _start(self) -> None:
        code = f"from ragen_lite.envs.worker import serve; serve({self.function!r})"
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._answer(self.question, self.START)

    def _answer(self, question: Any, seconds: float) -> Any:
        process = self._process
        assert process and process.stdin and process.stdout
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError
        line = process.stdout.readline()
        if not line:
            raise OSError("the process ended")
        return json.loads(line)

    def close(self) -> None:
        """End the process; the next question makes a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@lru_cache
def _worker_of(process: int, function: str, question: str) -> Worker:
    return Worker(function, json.loads(question))


def worker(function: str, question: Any) -> Worker:
    """This process's worker for a function: a forked process must not share its parent's pipes."""
    return _worker_of(os.getpid(), function, json.dumps(question))


def serve(function: str) -> None:
    """What the process does: a line of JSON in, a line out, until there are no more."""
    module, _, name = function.partition(":")
    judge = getattr(importlib.import_module(module), name)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    for line in sys.stdin:
        out.write(json.dumps(judge(json.loads(line))) + "\n")
        out.flush()
