"""Where workers live: objects in processes of their own, which are called and may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

PAUSE = 0.2  # seconds between two looks at whether a stop was asked for


class WorkerLost(RuntimeError):
    """The process of a worker ended, and what it was doing is lost."""


class Host(Protocol):
    """Starts workers and calls them; a worker, a call and a share are whatever the host makes."""

    def start(self, make: Callable[[Any], Any], setup: Any, place: int) -> Any:
        """A worker: what ``make(setup)`` is, in a process of its own that has just begun.

        ``place`` is the number of the processors that are kept for it.
        """

    def call(self, worker: Any, method: str, *arguments: Any) -> Any:
        """Begin a call of one of its methods; its calls are done one after the other.

        What ``share`` returned may be an argument.
        """

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Those of the calls that are done, as soon as one is, or after so many seconds."""

    def result(self, call: Any) -> Any:
        """What a call came to; what it raised is raised. Raises WorkerLost."""

    def share(self, value: Any) -> Any:
        """A large value that several calls are given."""

    def ip(self, worker: Any) -> str:
        """The address at which the other workers reach one's machine."""

    def stop(self, worker: Any) -> None:
        """End a worker's process at once."""

    def close(self) -> None:
        """End all of them."""


class Shell:
    """What a worker's process holds: an object, made by its first call."""

    def __init__(self) -> None:
        self._failure: BaseException | None = None
        self._inner: Any = None

    def begin(self, make: Callable[[Any], Any], setup: Any, cwd: str) -> None:
        """Make the object; where that fails, every call will say why.

        ``cwd`` is the run's folder, where its relative paths and its own modules are found.
        """
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(cwd)
            sys.path.append(cwd)
        try:
            self._inner = make(setup)
        except BaseException as error:
            self._failure = error

    def call(self, method: str, *arguments: Any) -> Any:
        """Call one of its methods."""
        if self._failure is not None:
            raise self._failure
        return getattr(self._inner, method)(*arguments)


_shell = Shell()


def _begin(make: Callable[[Any], Any], setup: Any, cwd: str) -> None:
    # A Ctrl-C or a stop is for the run, which says when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # (A handler, since what is ignored would be ignored by whatever is started here, too.)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    # Forked, it has the streams of the run's live view, and locks that nobody here will open. Its
    # own show a line at once: it is killed in the end, with whatever waits in a buffer.
    with contextlib.suppress(OSError):  # closed, in a run without a terminal
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _shell.begin(make, setup, cwd)


def _end_with_parent() -> None:
    """Killed, the run could not end this process, which would wait for calls for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(method: str, *arguments: Any) -> Any:
    return _shell.call(method, *arguments)


class ProcessHost:
    """Workers in processes of this machine.

    ``method``: how one begins. ``spawn`` loads everything anew; ``fork`` has what this process has
    loaded, at once and in the same memory, but only where torch works with one thread there.
    """

    def __init__(self, method: str = "spawn") -> None:
        self.method = method
        self._workers: list[ProcessPoolExecutor] = []

    def start(self, make: Callable[[Any], Any], setup: Any, place: int = 0) -> ProcessPoolExecutor:
        """See Host."""
        worker = ProcessPoolExecutor(1, multiprocessing.get_context(self.method))
        self._workers.append(worker)
        worker.submit(_begin, make, setup, str(Path.cwd()))
        return worker

    def call(self, worker: ProcessPoolExecutor, method: str, *arguments: Any) -> Future[Any]:
        """See Host."""
        try:
            return worker.submit(_call, method, *arguments)
        # It is dead or stopped; told, as in every other case, by the result.
        except RuntimeError as error:
            lost: Future[Any] = Future()
            lost.set_exception(BrokenProcessPool(str(error)))
            return lost

    def wait(self, calls: Sequence[Future[Any]], seconds: float) -> list[Future[Any]]:
        """See Host."""
        done, _ = wait(calls, seconds, FIRST_COMPLETED)
        return [call for call in calls if call in done]

    def result(self, call: Future[Any]) -> Any:
        """See Host."""
        try:
            return call.result()
        except BrokenProcessPool as error:
            raise WorkerLost("its process ended") from error

    def share(self, value: Any) -> Any:
        """See Host; each call carries it."""
        return value

    def ip(self, worker: ProcessPoolExecutor) -> str:
        """See Host."""
        return "127.0.0.1"

    def stop(self, worker: ProcessPoolExecutor) -> None:
        """See Host."""
        # The executor has no public way to end a process that is busy.
        for process in list((worker._processes or {}).values()):
            process.kill()
        worker.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """See Host."""
        for worker in self._workers:
            self.stop(worker)
        self._workers = []
