"""python -m ragen_lite.evaluate: a policy on held-out instances, beside the random policy and the solver."""

from __future__ import annotations

import contextlib
import copy
import difflib
import math
from collections.abc import Callable, Iterator
from typing import Any

from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.agents.openai_engine import SERVER, OpenAIRollout
from ragen_lite.agents.rollout import Rollout, Start, error_summary, play_out
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Sampling, Trajectory
from ragen_lite.cli import command
from ragen_lite.config import Config, ConfigError
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.registry import check_options
from ragen_lite.summary import by_task, paired, summarise, table, task_table

FIRST_SEED = 1_000_000  # of the held-out instances


def starts(split: str, instances: int) -> list[Start]:
    """The held-out instances of a split: the same for every run and every policy."""
    return [Start(seed=FIRST_SEED + i, split=split, group=i) for i in range(instances)]


def baselines(spec: EnvSpec) -> tuple[str, ...]:
    """The scripted policies a task can be measured with: ``random``, and ``solver`` where it has one."""
    return ("random", "solver") if has_solver(spec.make().unwrapped) else ("random",)


def has_solver(task: Any) -> bool:
    """Whether a task solves itself; of a mixture, whether every one of its tasks does."""
    if isinstance(parts := getattr(task, "dialogues", None), dict):
        return all(has_solver(part.unwrapped) for part in parts.values())
    return getattr(type(task), "solve", TextTask.solve) is not TextTask.solve


def check_splits(spec: EnvSpec, *splits: str) -> None:
    """See that a task of ours has an instance in each of the splits. Raises ConfigError."""
    env = spec.make()
    if isinstance(env.unwrapped, TextTask):
        for split in splits:
            try:
                env.reset(seed=FIRST_SEED, options={"split": split})
            except (ValueError, RuntimeError) as error:
                raise ConfigError(f"env.id={spec.id}: {error}") from error


def scripted(spec: EnvSpec, name: str, split: str, instances: int) -> list[Trajectory]:
    """A scripted policy on the held-out instances."""
    env = spec.open()
    played = [play_out(env, spec.id, POLICIES[name], start) for start in starts(split, instances)]
    env.close()
    return played


def make_spec(config: Config) -> EnvSpec:
    """The task of a configuration, made once to see that it can be. Raises ConfigError."""
    import gymnasium.error

    spec = EnvSpec(config.env.id, dict(config.env.kwargs), config.env.protocol)
    try:
        check_options(spec.id, spec.kwargs)
        spec.make().close()
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"env.id={spec.id}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"env.id={spec.id}: {error}") from error
    except Exception as error:  # whatever another's constructor raises is about its options
        raise ConfigError(f"env.id={spec.id} with {spec.kwargs}: {error}") from error
    return spec


class Evaluator:
    """Measures a policy on held-out instances of a task, sampled and greedy."""

    def __init__(self, rollout: Rollout | OpenAIRollout, config: Config) -> None:
        self.rollout, self.config = rollout, config
        self.on_progress: Callable[[int, int], None] = lambda finished, tokens: None

    def play(self, split: str, instances: int, temperature: float) -> list[Trajectory]:
        """Trajectories of the held-out instances at a temperature."""
        sampling = Sampling(temperature, self.config.sample.max_tokens)
        return self.rollout.play(starts(split, instances), sampling, self.on_progress)

    def both(self, split: str, instances: int) -> dict[str, list[Trajectory]]:
        """Sampled at the configuration's temperature, and greedy."""
        sampled = self.play(split, instances, self.config.sample.temperature)
        return {"sampled": sampled, "greedy": self.play(split, instances, 0.0)}


def server(config: Config, spec: EnvSpec, path: str) -> OpenAIRollout:
    """The policy behind ``openai:NAME@URL``. Raises ConfigError for what it cannot be told."""
    for name, value in config.engine.options.items():
        if name not in (known := ("concurrency", "budget", "retries", "timeout")):
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"engine.options.{name}: model=openai takes {', '.join(known)}{hint}")
        whole = type(value) is int and value >= (name != "retries")
        if not (whole or (name == "budget" and value is None)) and not (
            name == "timeout" and isinstance(value, float) and 0 < value < math.inf
        ):
            raise ConfigError(
                f"engine.options.{name}={value}: concurrency (requests at once), budget (tokens) and retries are whole "
                "numbers from 1 (retries: 0), timeout is in seconds"
            )
    if config.engine.name != "auto":
        raise ConfigError(f"engine={config.engine.name} does nothing with model={path}: the server is the engine")
    return OpenAIRollout(spec, path, **config.engine.options)


def was_answered(trajectory: Trajectory) -> bool:
    """Whether no request of it failed: what a server did not play is no lost game."""
    return not (trajectory.error or "").startswith(SERVER)


def _measure(config: Config, spec: EnvSpec, path: str, note: Callable[[str], None]) -> dict[str, list[Trajectory]]:
    if path.startswith("openai:"):
        player = server(config, spec, path)
        whole = player.budget
        player.budget = whole and whole // 2  # a half for the sampled pass, what is left for the greedy one
        with watched(config) as on_progress:
            evaluator = Evaluator(player, config)
            evaluator.on_progress = on_progress
            try:
                sampled = evaluator.play(config.eval.split, config.eval.instances, config.sample.temperature)
                player.budget = whole
                greedy = evaluator.play(config.eval.split, config.eval.instances, 0.0)
            finally:
                note(f"{player.name} at {player.url}: {player.account}")
        player.close()
        played = {"sampled": sampled, "greedy": greedy}
    else:
        played = _measure_model(config, spec, path, note)
    return {f"{label(path, config)} {kind}": trajectories for kind, trajectories in played.items()}


def label(path: str, config: Config) -> str:
    """A model's name in a table: its end, or the whole where two would look the same."""

    def short(name: str) -> str:
        name = name.removeprefix("openai:").partition("@http")[0]
        return name if len(name) < 20 else f"...{name[-16:]}"

    other = config.eval.compare if path == config.model.path else config.model.path
    return path if other is not None and short(other) == short(path) else short(path)


def run(config: Config) -> None:
    """Print the table of one policy (two with eval.compare), the random policy and the solver."""
    from rich.console import Console

    from ragen_lite.display import safe

    console = Console()
    spec = make_spec(config)
    check_splits(spec, config.eval.split)
    split, n = config.eval.split, config.eval.instances
    played: dict[str, list[Trajectory]] = {}
    pairs = []
    if config.eval.compare in (config.model.path, "random", "solver"):
        raise ConfigError(
            f"eval.compare={config.eval.compare}: give a second model; random and solver are there anyway"
        )
    for path in [config.model.path, *([config.eval.compare] if config.eval.compare else [])]:
        if path not in ("random", "solver"):
            played |= _measure(config, spec, path, lambda text: console.print(safe(text)))
    names = list(played)
    if len(names) == 4:
        pairs = [(names[0], names[2]), (names[1], names[3])]
    for name in baselines(spec):
        played[name] = scripted(spec, name, split, n)
    failures = error_summary([t for ts in played.values() for t in ts])
    answered = {name: [t for t in ts if was_answered(t)] for name, ts in played.items()}
    if not any(answered[name] for name in names or answered):
        raise ConfigError(f"{config.model.path}: no instance was answered to its end: {failures}")
    console.print(
        table(
            {name: summarise(ts) for name, ts in answered.items() if ts},
            f"{spec.id}, {n} instances of the {split} split; 95%: Wilson for success, bootstrap for return",
        )
    )
    if by_task(next(iter(answered.values()))):
        console.print(task_table(answered, "success on each task; 95%: Wilson"))
    for a, b in pairs or [(name, "random") for name in names]:
        both = [(x, y) for x, y in zip(played[a], played[b], strict=True) if was_answered(x) and was_answered(y)]
        if both:
            console.print(paired(a, [x for x, _ in both], b, [y for _, y in both]), markup=False)
    if failures:
        console.print(safe(f"failed: {failures}"))


def _measure_model(
    config: Config, spec: EnvSpec, path: str, note: Callable[[str], None]
) -> dict[str, list[Trajectory]]:
    from ragen_lite import engines
    from ragen_lite.models import load_policy

    own = copy.deepcopy(config)
    engines.resolve(own, note)
    policy = load_policy(own, path)
    engine, _ = engines.ready(own, policy, note=note)
    rollout = Rollout(engine, policy.chat, spec, own.seed)
    evaluator = Evaluator(rollout, own)
    with watched(own) as on_progress:
        evaluator.on_progress = on_progress
        played = evaluator.both(own.eval.split, own.eval.instances)
    rollout.close()
    engine.close()
    return played


@contextlib.contextmanager
def watched(config: Config) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over an evaluation's two passes, sampled and greedy, on a terminal."""
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        total = 2 * config.eval.instances
        task = progress.add_task("playing", total=total)
        passed = [0, 0]  # trajectories of the first pass; of the present one

        def on_progress(finished: int, tokens: int) -> None:
            if finished < passed[1]:
                passed[0] += config.eval.instances
            passed[1] = finished
            progress.update(task, completed=passed[0] + finished)

        yield on_progress


if __name__ == "__main__":
    command("evaluate", "Measure a policy on held-out instances, beside the random policy and the solver.", run)
