"""Workers as Ray's actors; the only place that imports Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Read by Ray when it is imported: a worker without a GPU of its own keeps the devices it sees, and
# nothing is reported to anybody.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A call after the end must fail, and not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ragen_lite.cluster.hosts import Shell, WorkerLost
from ragen_lite.config.schema import ConfigError

PATIENCE = 60  # seconds for a cluster to make room


class Actor(Shell):
    """A shell that knows its machine."""

    def ip(self) -> str:
        """The machine's address, as Ray knows it."""
        return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


class RayHost:
    """Workers in a Ray cluster: that of RAY_ADDRESS, else one of this machine's own.

    Args:
        engines: how many engines play.
        gpus: of each engine, where the cluster has any.
        learners: how many ranks learn, with one GPU each.
        note: is told which cluster it is.

    Raises ConfigError where the cluster is too small, or cannot be reached.
    """

    def __init__(self, engines: int, gpus: int, learners: int, note: Callable[[str], None]) -> None:
        count = engines + learners
        self._owner = not ray.is_initialized()
        if self._owner:
            _connect(count)
        address = ray.get_runtime_context().gcs_address
        size = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, devices = int(size.get("CPU", 0)), int(size.get("GPU", 0))
        origin = "joined" if os.environ.get("RAY_ADDRESS") or not self._owner else "started"
        note(f"Ray: {origin} the cluster at {address}, with {cpus} CPUs and {devices} GPUs")
        wanted = [gpus] * engines + [1] * learners
        if not devices:
            wanted = [0] * count
        self._check(engines, gpus if devices else 0, learners, cpus, devices)
        self._gpus = wanted
        self._group = placement_group([_bundle(number) for number in wanted], strategy="PACK")
        if not self._group.wait(PATIENCE):
            self.close()
            raise ConfigError(
                f"the Ray cluster at {address} has no room for {count} workers within {PATIENCE} "
                "seconds: others use it; wait for them, or ask for fewer"
            )

    def _check(self, engines: int, gpus: int, learners: int, cpus: int, devices: int) -> None:
        """Raise ConfigError where the whole cluster could not hold the workers."""
        asked = f"asked for {engines} engines with {gpus} GPU each"
        if learners:
            asked += f" and {learners} learners with {min(1, devices)} GPU each"
        needed = engines * gpus + learners * min(1, devices)
        for kind, need, have in (("GPUs", needed, devices), ("CPUs", engines + learners, cpus)):
            if need > have:
                self.close()
                raise ConfigError(
                    f"{asked}: that is {need} {kind}, and the cluster has {have}; lower "
                    "engine.workers or train.workers, or add machines"
                )

    def start(self, make: Callable[[Any], Any], setup: Any, place: int) -> Any:
        """See Host."""
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)
        actor: Any = ray.remote(Actor)
        worker = actor.options(
            num_cpus=1, num_gpus=self._gpus[place], scheduling_strategy=strategy
        ).remote()
        worker.begin.remote(make, setup, str(Path.cwd()))
        return worker

    def call(self, worker: Any, method: str, *arguments: Any) -> Any:
        """See Host."""
        return worker.call.remote(method, *arguments)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See Host."""
        done, _ = ray.wait(list(calls), timeout=seconds)
        return list(done)

    def result(self, call: Any) -> Any:
        """See Host."""
        try:
            return ray.get(call)
        except RayTaskError as error:
            raise (error.cause or error) from None
        # An actor, its machine or its memory is gone.
        except RayError as error:
            raise WorkerLost(str(error).partition("\n")[0].rstrip(".")) from error

    def share(self, value: Any) -> Any:
        """See Host; each machine gets it once."""
        return ray.put(value)

    def ip(self, worker: Any) -> str:
        """See Host. Raises WorkerLost."""
        return str(self.result(worker.ip.remote()))

    def stop(self, worker: Any) -> None:
        """See Host."""
        ray.kill(worker)

    def close(self) -> None:
        """See Host."""
        group = getattr(self, "_group", None)
        if group is not None and ray.is_initialized():
            remove_placement_group(group)  # its workers end with it
        if self._owner:
            ray.shutdown()


def _bundle(gpus: int) -> dict[str, float]:
    return {"CPU": 1.0, "GPU": float(gpus)} if gpus else {"CPU": 1.0}


def _connect(workers: int) -> None:
    """Join the cluster of RAY_ADDRESS, else start one. Raises ConfigError."""
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # On one machine processors may be shared: how many workers fit is the user's to say.
        quiet["num_cpus"] = max(workers, os.cpu_count() or 1)
    try:
        ray.init(logging_level=logging.ERROR, **({"log_to_driver": False} if address else quiet))
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"RAY_ADDRESS={address}" if address else "a Ray of this machine's own"
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{where} cannot be had: {reason}") from error
