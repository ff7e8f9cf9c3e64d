"""Policies on held-out instances: the same ones for every run and every policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium.error

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Episode, Progress, Sampling, Start, no_progress
from ragen_lite.config.schema import ConfigError, EnvConfig
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.dialogue import has_solver
from ragen_lite.envs.registry import check_options
from ragen_lite.runs.summaries import as_measurement, success, success_by_part

# Far above any seed that a test uses. Train instances are drawn from hashes, and from the train
# split only.
FIRST_SEED = 1_000_000  # of the held-out instances
WATCHED = 128  # instances at most that a run is watched on; the test split is measured on all


def how_many(spec: EnvSpec, split: str, wanted: int) -> int:
    """The instances of a split that are played: those wanted, or all of a smaller finite set."""
    task = spec.make().unwrapped
    # The train split is drawn from, as in training.
    if not isinstance(task, TextTask) or split == "train":
        return wanted
    size = task.instance_count(split)
    return wanted if size is None else min(wanted, size)


def held_out_starts(spec: EnvSpec, split: str, instances: int, samples: int = 1) -> list[Start]:
    """The held-out instances of a split, ``samples`` times each, as members of a group."""
    starts = []
    for i in range(how_many(spec, split, instances)):
        seed = FIRST_SEED + i
        for member in range(samples):
            starts.append(Start(seed=seed, split=split, group=i, member=member))
    return starts


def make_spec(config: EnvConfig) -> EnvSpec:
    """The task of a configuration, made once to see that it can be. Raises ConfigError."""
    spec = EnvSpec(config.id, dict(config.kwargs), config.protocol, config.prefill)
    try:
        check_options(spec.id, spec.kwargs)
        spec.open().close()
    except (gymnasium.error.Error, ImportError, ValueError) as error:
        raise ConfigError(f"env.id={spec.id}: {error}") from error
    except Exception as error:  # whatever another's constructor raises is about its options
        raise ConfigError(f"env.id={spec.id} with {spec.kwargs}: {error}") from error
    return spec


def check_splits(spec: EnvSpec, *splits: str) -> None:
    """See that a task of ours has an instance in each of the splits. Raises ConfigError."""
    # Another's environment may not know splits; ours all do.
    env = spec.make()
    if not isinstance(env.unwrapped, TextTask):
        return
    for split in splits:
        try:
            env.reset(seed=FIRST_SEED, options={"split": split})
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"env.id={spec.id}: {error}") from error


# ---- scripted policies ----


def baselines(spec: EnvSpec) -> tuple[str, ...]:
    """The scripted policies of a task: ``random``, and ``solver`` where it has one."""
    return ("random", "solver") if has_solver(spec.make().unwrapped) else ("random",)


def play_scripted(spec: EnvSpec, name: str, split: str, instances: int) -> list[Episode]:
    """A scripted policy on the held-out instances."""
    env = spec.open()
    starts = held_out_starts(spec, split, instances)
    played = [play_episode(env, spec.id, POLICIES[name], start) for start in starts]
    env.close()
    return played


def val_baselines(spec: EnvSpec, instances: int) -> dict[str, float]:
    """The eval/ metrics of the scripted policies, on the instances a run is watched on."""
    n = min(WATCHED, instances)
    return {
        f"eval/{name}_success": success(play_scripted(spec, name, "val", n))
        for name in baselines(spec)
    }


# ---- a model's policy ----


class Player(Protocol):
    """What plays starts of a task to their end: a rollout, or a server's policy."""

    spec: EnvSpec

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> Sequence[Episode]:
        """The episodes, in the order of ``starts``."""


class Evaluator:
    """Measures a policy on held-out instances of a task, sampled and greedy.

    Args:
        player: plays with the policy.
        sampling: of the sampled pass; the greedy one differs in its temperature, 0.
        on_progress: is called while playing.
    """

    def __init__(
        self, player: Player, sampling: Sampling, on_progress: Progress = no_progress
    ) -> None:
        self.player = player
        self.sampling = sampling
        self.on_progress = on_progress

    def play(
        self, split: str, instances: int, temperature: float, samples: int = 1
    ) -> list[Episode]:
        """Episodes of the held-out instances at a temperature, ``samples`` of each."""
        sampling = Sampling(temperature, self.sampling.max_tokens)
        starts = held_out_starts(self.player.spec, split, instances, samples)
        return list(self.player.play(starts, sampling, self.on_progress))

    def both(self, split: str, instances: int, samples: int = 1) -> dict[str, list[Episode]]:
        """Sampled at the configuration's temperature, ``samples`` of each, and greedy."""
        sampled = self.play(split, instances, self.sampling.temperature, samples)
        return {"sampled": sampled, "greedy": self.play(split, instances, 0.0)}


def val_metrics(
    played: dict[str, list[Episode]], demonstrated: Mapping[str, float]
) -> dict[str, float]:
    """The eval/ metrics of a policy's sampled and greedy episodes."""
    found: dict[str, Any] = as_measurement(played, demonstrated)
    sampled = found["rows"]["sampled"]
    parts = success_by_part("eval", played["sampled"], demonstrated)
    return {
        "eval/success": sampled["success"],
        "eval/success_low": sampled["success_low"],
        "eval/success_high": sampled["success_high"],
        "eval/greedy_success": found["rows"]["greedy"]["success"],
        **parts,
    }
