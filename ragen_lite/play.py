"""python -m ragen_lite.play: play a task in the terminal, or watch a policy play it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from ragen_lite.agents.answer import Answer, read
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Episode, Sampling, Start
from ragen_lite.config.command_line import command
from ragen_lite.config.groups import context_of
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.dialogue import Dialogue, has_solver
from ragen_lite.envs.mix import Mix
from ragen_lite.learning import generation
from ragen_lite.models.loading import load_policy
from ragen_lite.runs.evaluation import make_spec
from ragen_lite.runs.servers import served_policy
from ragen_lite.runs.terminal import safe

Ask = Callable[[str], str]


def play(config: Config) -> None:
    """Play one instance: ``seed`` of ``eval.split``."""
    console = Console()
    spec = make_spec(config.env)
    who = config.model.path
    if who == "human":
        play_person(spec.make(), config.seed, config.eval.split, console)
        return
    if who == "solver" and not has_solver(spec.make().unwrapped):
        raise ConfigError(f"model=solver: {spec.id} has no solver")
    start = Start(config.seed, config.eval.split)
    if who in POLICIES:
        episode = play_episode(spec.open(), spec.id, POLICIES[who], start)
    else:
        episode = watch(config, spec, start, console)
    show(episode, console)


def show(episode: Episode, console: Console) -> None:
    """A whole episode, as it was played."""
    for turn in episode.turns:
        console.print(safe(turn.observation))
        console.print(safe(turn.reply), style="bold green")
        console.print(f"reward {turn.reward:+.2f}\n", style="dim")
    console.print(f"{episode.outcome}, return {episode.returns:+.2f}")


def watch(config: Config, spec: EnvSpec, start: Start, console: Console) -> Episode:
    """One episode of a model, in this process or behind a server."""
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    path = config.model.path
    engine = config.engine
    contexts = context_of(config)
    if path.startswith("openai:"):
        served = served_policy(spec, path, engine.name, engine.options, contexts)
        return served.play([start], sampling)[0]
    choice = generation.resolve(engine, config.model.dtype)
    if choice.note:
        console.print(choice.note, style="dim", markup=False)
    policy = load_policy(config.model, config.seed, engine.max_model_len)
    generator, _ = generation.start_engine(choice.config, policy, sampling.temperature)
    rollout = Rollout(generator, policy.chat, spec, config.seed, contexts)
    (trajectory,) = rollout.play([start], sampling)
    return trajectory


# ---- at the keyboard ----


def as_reply(env: Dialogue, line: str) -> str:
    """What a person typed, as a reply.

    Actions, each by its name or the beginning of it, with bars, commas or blanks between; else the
    line itself as the answer. A line that has tags already is left as it is.
    """
    # Who types tags writes the whole reply.
    if "<" in line or "\\boxed" in line:
        return line
    bars = line.split("||")
    commas = line.replace("||", ",").split(",")
    blanks = line.replace("||", " ").replace(",", " ").split()
    # The names of some games have blanks or commas in them, so the surest sign is tried first.
    for words in (bars, commas, blanks):
        meant = [_numbers(env, word.strip().lower()) for word in words]
        # Each word must mean exactly one action; else the line is an answer in words.
        if meant and all(len(numbers) == 1 for numbers in meant):
            return env.write("", [numbers[0] for numbers in meant])
    task: Any = env.unwrapped
    if isinstance(task, TextTask) and task.conversation:
        return str(task.reply_with(line.strip()))
    return env.protocol.write("", line.strip())


def _numbers(env: Dialogue, word: str) -> list[int]:
    """The actions that a word may mean: the one of that name, or all that begin with it."""
    if word in env.numbers:
        return [env.numbers[word]]
    return [number for name, number in env.numbers.items() if word and name.startswith(word)]


def innermost(env: Dialogue) -> Dialogue:
    """The conversation at hand: of a mixture, that of its present task."""
    return innermost(env.unwrapped.active) if isinstance(env.unwrapped, Mix) else env


def hint(env: Dialogue) -> str:
    """How actions are typed."""
    most = env.max_actions_per_turn
    example = " || ".join((env.names[0], env.names[-1])[:most])
    return (
        f"Type up to {most} of the actions, such as: {example}. The beginning of a name will do, "
        "and an empty line gives up."
    )


def play_person(env: Dialogue, seed: int, split: str, console: Console, ask: Ask = input) -> float:
    """One episode at the keyboard; returns the return.

    An empty line or the end of the input gives up.
    """
    answer = read(env.reset(seed=seed, options={"split": split}), env.system)
    console.print(safe(answer.system), style="dim")
    task = innermost(env)
    if task.names:
        console.print(safe(hint(task)))
    total = 0.0
    while not answer.over:
        console.print(safe(answer.observation))
        line = _line(ask)
        if not line.strip():
            console.print(f"given up, return {total:+.2f}")
            return total
        answer = read(env.step(as_reply(task, line)), env.system)
        total += answer.reward
    _farewell(answer, total, console)
    return total


def _line(ask: Ask) -> str:
    try:
        return ask("> ")
    except EOFError:
        return ""


def _farewell(answer: Answer, total: float, console: Console) -> None:
    console.print(safe(answer.observation))
    console.print(f"{'solved' if answer.success else 'not solved'}, return {total:+.2f}")


def player(arguments: list[str]) -> list[str]:
    """What is added to a command line that names no policy: somebody at the keyboard plays."""
    named = any(argument.startswith(("model=", "model.path=", "-")) for argument in arguments)
    return [] if named else ["model.path=human"]


if __name__ == "__main__":
    sys.argv += player(sys.argv[1:])
    command(
        "play",
        "Play a task at the keyboard; model=PATH, tiny, random or solver watches that policy play.",
        play,
    )
