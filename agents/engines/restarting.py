"""An engine that is built again when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from ragen_lite.agents.engines.protocol import Engine, EngineFailure, Request
from ragen_lite.agents.trajectory import Completion


class Restarting:
    """An engine that is built again when it fails, once: replies under way are sampled again,
    nothing else is lost.

    Args:
        build: makes an engine that has the learner's present weights.
        note: is told of a failure.
    """

    def __init__(self, build: Callable[[], Engine], note: Callable[[str], None]) -> None:
        self._build = build
        self._note = note
        self._engine = build()
        self._under_way: dict[int, Request] = {}
        self._first: str | None = None
        self._restarts = 0  # since reset_metrics

    @property
    def max_model_len(self) -> int:
        return self._engine.max_model_len

    @property
    def version(self) -> int:
        return self._engine.version

    def submit(self, request: Request) -> None:
        self._engine.submit(request)
        self._under_way[request.id] = request

    def step(self) -> list[tuple[int, Completion]]:
        """See Engine. Raises EngineFailure at the second failure, or where the engine cannot be
        built again."""
        try:
            finished = self._engine.step()
        except EngineFailure as error:
            if self._first is not None:
                raise EngineFailure(
                    f"the engine failed a second time: {error} (the first time: {self._first})"
                ) from error
            self._first = str(
                error
            )  # no more than its text: a traceback would hold the failed engine in memory
        else:
            # A finished reply is its trajectory's for good; a failure later cannot lose it.
            for id, _ in finished:
                del self._under_way[id]
            return finished
        self._restarts += 1
        self._restart(self._first)
        return []

    def _restart(self, failure: str) -> None:
        self._note(
            f"the engine failed: {failure}; it is built again from the learner's weights, and the "
            f"{len(self._under_way)} replies under way are sampled again"
        )
        try:
            self._engine.close()
            self._engine = self._build()
        except Exception as error:  # whatever a broken device makes of it
            raise EngineFailure(
                f"the engine failed: {failure}; it cannot be built again: {error}"
            ) from error
        # The new engine has no cache; a request holds all tokens so far, so nothing is missing.
        for request in self._under_way.values():
            self._engine.submit(request)

    def release(self, id: int) -> None:
        self._under_way.pop(id, None)
        self._engine.release(id)

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        self._engine.load_weights(tensors, version)

    def sleep(self) -> None:
        self._engine.sleep()

    def wake(self) -> None:
        self._engine.wake()

    def metrics(self) -> dict[str, float]:
        restarts = {"rollout/engine_restarts": float(self._restarts)} if self._restarts else {}
        return self._engine.metrics() | restarts

    def reset_metrics(self) -> None:
        self._restarts = 0
        self._engine.reset_metrics()

    def close(self) -> None:
        self._engine.close()
