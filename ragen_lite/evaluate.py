"""python -m ragen_lite.evaluate: a policy on held-out instances, beside random and solver."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import Progress

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import error_summary
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.served import SERVER
from ragen_lite.agents.trajectory import Episode, Sampling
from ragen_lite.config.command_line import command
from ragen_lite.config.groups import context_of
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.envs.splits import ALL
from ragen_lite.learning import generation
from ragen_lite.learning.players import LocalPlayer
from ragen_lite.models.loading import load_policy
from ragen_lite.runs.evaluation import (
    Evaluator,
    baselines,
    check_splits,
    how_many,
    make_spec,
    play_scripted,
)
from ragen_lite.runs.servers import served_policy
from ragen_lite.runs.summaries import by_difficulty, by_task, summarise
from ragen_lite.runs.tables import compare_pairs, part_table, table
from ragen_lite.runs.terminal import safe

SCRIPTED = ("random", "solver")
SHORT = 20  # characters of a model's name that is shown whole
Note = Callable[[str], None]
Played = dict[str, list[Episode]]  # by the name of a column
Measured = tuple[Played, dict[str, float]]  # and the hardest that the model was shown, by task


def evaluate(config: Config) -> None:
    """Print the table of one policy (two with eval.compare), the random policy and the solver."""
    console = Console()
    spec = make_spec(config.env)
    check_splits(spec, config.eval.split)
    wanted = config.eval.instances
    config.eval.instances = how_many(spec, config.eval.split, wanted)
    if config.eval.instances < wanted:
        console.print(
            f"eval.instances={wanted}: there are {config.eval.instances} in the "
            f"{part_of(config)}, so each is taken once"
        )
    models = models_of(config)
    if config.eval.samples > 1 and not models:
        raise ConfigError(f"eval.samples={config.eval.samples} does nothing without a model")
    played: Played = {}
    demonstrated: dict[str, float] = {}
    for path in models:
        measure = measure_server if path.startswith("openai:") else measure_model
        found, told = measure(config, spec, path, lambda text: console.print(safe(text)))
        demonstrated = told | demonstrated  # of two models the first decides what is hard
        name = label(path, models)
        played |= {f"{name} {kind}": episodes for kind, episodes in found.items()}
    names = list(played)
    for name in baselines(spec):
        played[name] = play_scripted(spec, name, config.eval.split, config.eval.instances)
    show(console, config, spec, names, played, demonstrated)


def part_of(config: Config) -> str:
    """What is measured on, in words."""
    return "whole set" if config.eval.split == ALL else f"{config.eval.split} split"


def models_of(config: Config) -> list[str]:
    """The models to be measured. Raises ConfigError for a comparison that is there anyway."""
    first = config.model.path
    other = config.eval.compare
    if other is not None and other in (first, *SCRIPTED):
        raise ConfigError(
            f"eval.compare={other}: give a second model; random and solver are there anyway"
        )
    return [path for path in (first, other) if path is not None and path not in SCRIPTED]


def label(path: str, models: list[str]) -> str:
    """A model's name in a table: its end, or the whole where two would look the same."""

    def short(name: str) -> str:
        name = name.removeprefix("openai:").partition("@http")[0]
        return name if len(name) < SHORT else f"...{name[-16:]}"

    alike = [name for name in models if short(name) == short(path)]
    return path if len(alike) > 1 else short(path)


# ---- playing ----


def measure_server(config: Config, spec: EnvSpec, path: str, note: Note) -> Measured:
    """A served model's episodes; half of its budget is for the sampled pass."""
    engine = config.engine
    policy = served_policy(spec, path, engine.name, engine.options, context_of(config))
    whole = policy.budget
    # What the sampled pass leaves over goes to the greedy one.
    policy.budget = whole and whole // 2
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    split = config.eval.split
    with watch_progress(config) as on_progress:
        evaluator = Evaluator(policy, sampling, on_progress)
        try:
            sampled = evaluator.play(
                split, config.eval.instances, sampling.temperature, config.eval.samples
            )
            policy.budget = whole
            greedy = evaluator.play(split, config.eval.instances, 0.0)
        finally:
            note(f"{policy.name} at {policy.url}: {policy.account}")
    policy.close()
    return {"sampled": sampled, "greedy": greedy}, {}


def measure_model(config: Config, spec: EnvSpec, path: str, note: Note) -> Measured:
    """A model's episodes, generated in this process."""
    choice = generation.resolve(config.engine, config.model.dtype)
    if choice.note:
        note(choice.note)
    model = replace(config.model, path=path)
    policy = load_policy(model, config.seed, config.engine.max_model_len)
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    engine, sync = generation.start_engine(choice.config, policy, sampling.temperature, note=note)
    rollout = Rollout(engine, policy.chat, spec, config.seed, context_of(config))
    player = LocalPlayer(rollout, sync, choice.config.shard)
    with watch_progress(config) as on_progress:
        evaluator = Evaluator(player, sampling, on_progress)
        played = evaluator.both(config.eval.split, config.eval.instances, config.eval.samples)
    player.close()
    return played, policy.demonstrated


@dataclass(slots=True)
class _TwoPasses:
    """How far the sampled and the greedy pass have come."""

    before: int = 0  # episodes of the passes before this one
    finished: int = 0  # of this one

    def add(self, finished: int) -> int:
        """Episodes of both passes, where ``finished`` are of the present one."""
        # The count starts again from 0: the second pass has begun.
        if finished < self.finished:
            self.before += self.finished
        self.finished = finished
        return self.before + finished


@contextlib.contextmanager
def watch_progress(config: Config) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over an evaluation's two passes, sampled and greedy, on a terminal."""
    passes = _TwoPasses()
    with Progress(transient=True) as progress:
        episodes = config.eval.instances * (config.eval.samples + 1)
        task = progress.add_task("playing", total=episodes)

        def on_progress(finished: int, tokens: int) -> None:
            progress.update(task, completed=passes.add(finished))

        yield on_progress


# ---- showing ----


def was_answered(episode: Episode) -> bool:
    """Whether the server answered every request of the episode.

    An episode that the server broke off says nothing about the policy, so it is left out of the
    figures, and counted as failed.
    """
    return not (episode.error or "").startswith(SERVER)


def show(
    console: Console,
    config: Config,
    spec: EnvSpec,
    names: list[str],
    played: Played,
    demonstrated: dict[str, float],
) -> None:
    """The table, the tasks of a mixture, the difficulties, the comparisons, and what failed.

    Raises ConfigError where no instance was answered to its end.
    """
    everything: list[Episode] = []
    answered: Played = {}
    for name, episodes in played.items():
        everything += episodes
        answered[name] = [episode for episode in episodes if was_answered(episode)]
    failures = error_summary(everything)
    if not any(answered[name] for name in names or answered):
        path = config.model.path
        raise ConfigError(f"{path}: no instance was answered to its end: {failures}")
    title = f"{spec.id}, {config.eval.instances} instances of the {part_of(config)}"
    summaries = {name: summarise(episodes) for name, episodes in answered.items() if episodes}
    console.print(table(summaries, f"{title}; 95%: Wilson for success, bootstrap for return"))
    parts = {
        "success on each task": [by_task(e) for e in answered.values()],
        "success on instances like the model's demonstrations (easy), and harder than any (hard)": [
            by_difficulty(e, demonstrated) for e in answered.values()
        ],
    }
    for what, columns in parts.items():
        if columns[0]:
            console.print(part_table(list(answered), columns, f"{what}; 95%: Wilson"))
    for first, other in pairs_of(names):
        compare(console, first, other, played)
    if failures:
        console.print(safe(f"failed: {failures}"))


def pairs_of(names: list[str]) -> list[tuple[str, str]]:
    """Which columns are compared: two models pass by pass, one with the random policy."""
    # Two models, each with a sampled and a greedy column.
    if len(names) == 4:
        return [(names[0], names[2]), (names[1], names[3])]
    return [(name, "random") for name in names]


def pair(first: list[Episode], other: list[Episode]) -> list[tuple[Episode, Episode]]:
    """Episodes of the same starts; where one side played an instance once, that time for all."""
    longer = max(first, other, key=len)
    columns = []
    for episodes in (first, other):
        known = {(episode.group, episode.member): episode for episode in episodes}
        column = [
            known.get((start.group, start.member)) or known[start.group, 0] for start in longer
        ]
        columns.append(column)
    return list(zip(*columns, strict=True))


def compare(console: Console, first: str, other: str, played: Played) -> None:
    """A sentence on two policies, over the instances that both played to their end."""
    both = [
        (x, y) for x, y in pair(played[first], played[other]) if was_answered(x) and was_answered(y)
    ]
    if both:
        sentence = compare_pairs(first, [x for x, _ in both], other, [y for _, y in both])
        console.print(sentence, markup=False)


if __name__ == "__main__":
    command(
        "evaluate",
        "Measure a policy on held-out instances, beside the random policy and the solver.",
        evaluate,
    )
