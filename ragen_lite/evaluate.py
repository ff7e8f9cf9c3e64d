"""python -m ragen_lite.evaluate: a policy on held-out instances, beside the random policy and the solver."""

from __future__ import annotations

import contextlib
import copy
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ragen_lite.agents.isolation import EnvSpec
from ragen_lite.agents.openai_engine import SERVER, OpenAIRollout
from ragen_lite.agents.rollout import Rollout, Start, error_summary, play_out
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Outcome, Sampling, Trajectory
from ragen_lite.cli import command
from ragen_lite.config import Config, ConfigError
from ragen_lite.envs.base import TextTask

Z95 = 1.959963984540054
FIRST_SEED = 1_000_000  # of the held-out instances


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of a proportion (Wilson 1927).

    >>> [round(x, 4) for x in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, Z95 * Z95
    centre, half = (p + z2 / (2 * n)) / (1 + z2 / n), Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean (Efron 1979)."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(array), size=(draws, len(array)))
    low, high = np.quantile(array[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a policy did on n instances; regret, in the task's cost, is None where the task does not tell it."""

    n: int
    success: float
    success_low: float
    success_high: float
    reward: float
    reward_low: float
    reward_high: float
    regret: float | None
    deadlocked: float | None
    turns: float
    reply_tokens: float | None
    format_errors: float
    errors: int
    out_of_tokens: float


def total_regret(trajectory: Trajectory) -> float | None:
    """What a trajectory's actions cost beyond the best; None where the task does not tell it. A turn without actions
    wastes none."""
    told = [turn.info.get("regret") for turn in trajectory.turns if turn.info.get("actions") != []]
    return math.fsum(r for r in told if r is not None) if told and None not in told else None


def summarise(trajectories: Sequence[Trajectory]) -> Summary:
    """Success, return, regret, turns, reply length and format errors, with intervals.

    ``regret`` is the mean over the trajectories that did not dead-lock themselves of what their actions cost beyond
    the best; ``deadlocked`` is the share of the others. A failed environment counts as no success.
    """
    wins = sum(t.success for t in trajectories)
    returns = [t.reward for t in trajectories]
    turns = [turn for t in trajectories for turn in t.turns]
    known = [total for t in trajectories if (total := total_regret(t)) is not None]
    finite = [r for r in known if math.isfinite(r)]
    lengths = [n for turn in turns if (n := turn.stop - turn.start or turn.info.get("reply_tokens", 0))]
    return Summary(
        len(trajectories),
        wins / max(1, len(trajectories)),
        *wilson(wins, len(trajectories)),
        float(np.mean(returns)),
        *bootstrap(returns),
        float(np.mean(finite)) if finite else None,
        1 - len(finite) / len(known) if known else None,
        len(turns) / max(1, len(trajectories)),
        float(np.mean(lengths)) if lengths else None,
        float(np.mean([turn.info.get("unreadable") is not None for turn in turns])) if turns else 0.0,
        sum(t.outcome is Outcome.ERROR for t in trajectories),
        sum(t.outcome is Outcome.OUT_OF_TOKENS for t in trajectories) / max(1, len(trajectories)),
    )


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """Pairs won by the first only, by the second only, and the exact two-sided p-value (McNemar 1947).

    >>> mcnemar([True, True, True, False], [False, False, False, False])
    (3, 0, 0.25)
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return only_first, only_second, min(1.0, 2 * tail)


def starts(split: str, instances: int) -> list[Start]:
    """The held-out instances of a split: the same for every run and every policy."""
    return [Start(seed=FIRST_SEED + i, split=split, group=i) for i in range(instances)]


def baselines(spec: EnvSpec) -> tuple[str, ...]:
    """The scripted policies a task can be measured with: ``random``, and ``solver`` where it has one."""
    task = type(spec.make().unwrapped)
    return ("random", "solver") if getattr(task, "solve", TextTask.solve) is not TextTask.solve else ("random",)


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
        spec.make().close()
    except (gymnasium.error.Error, ImportError) as error:
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


LINES: dict[str, Callable[[Summary], str]] = {
    "instances": lambda s: f"{s.n}",
    "success": lambda s: f"{s.success:.1%}",
    "  95%": lambda s: f"{s.success_low:.1%}-{s.success_high:.1%}",
    "return": lambda s: f"{s.reward:.2f}",
    " 95%": lambda s: f"{s.reward_low:.2f}..{s.reward_high:.2f}",
    "regret": lambda s: "-" if s.regret is None else f"{s.regret:.2f}",
    "dead-locked": lambda s: "-" if s.deadlocked is None else f"{s.deadlocked:.1%}",
    "turns": lambda s: f"{s.turns:.2f}",
    "reply tokens": lambda s: "-" if s.reply_tokens is None else f"{s.reply_tokens:.1f}",
    "format errors": lambda s: f"{s.format_errors:.1%}",
    "out of tokens": lambda s: f"{s.out_of_tokens:.1%}",
}


def table(rows: dict[str, Summary], title: str) -> Any:
    """A rich table of summaries, a column a policy."""
    from rich.markup import escape
    from rich.table import Table

    view = Table(title=escape(title), title_justify="left")
    view.add_column("")
    for name in rows:
        view.add_column(escape(name), justify="right")
    for label, show in LINES.items():
        view.add_row(label, *(show(summary) for summary in rows.values()))
    return view


def paired(name: str, first: Sequence[Trajectory], other: str, second: Sequence[Trajectory]) -> str:
    """A sentence that compares two policies instance by instance: difference, interval, McNemar's test."""
    a, b = [t.success for t in first], [t.success for t in second]
    low, high = bootstrap([float(x) - float(y) for x, y in zip(a, b, strict=True)])
    only_a, only_b, p = mcnemar(a, b)
    return (
        f"{name} against {other}, the same {len(a)} instances: {np.mean(a) - np.mean(b):+.1%} "
        f"(95% {low:+.1%} to {high:+.1%}); {only_a} solved only by the first, {only_b} only by the second, "
        f"McNemar p = {p:.2g}"
    )


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


def as_json(summary: Summary) -> dict[str, Any]:
    """A summary as a JSON object."""
    return asdict(summary)


if __name__ == "__main__":
    command("evaluate", "Measure a policy on held-out instances, beside the random policy and the solver.", run)
