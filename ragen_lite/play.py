"""python -m ragen_lite.play: play a task in the terminal, or watch a policy play it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console

from ragen_lite.agents.answer import Answer, read
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Episode, Sampling, Start
from ragen_lite.config.command_line import command
from ragen_lite.config.schema import Config, ConfigError
from ragen_lite.envs.dialogue import Dialogue, has_solver
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
    if path.startswith("openai:"):
        return served_policy(spec, path, engine.name, engine.options).play([start], sampling)[0]
    choice = generation.resolve(engine, config.model.dtype)
    if choice.note:
        console.print(choice.note, style="dim", markup=False)
    policy = load_policy(config.model, config.seed, engine.max_model_len)
    generator, _ = generation.start_engine(choice.config, policy, sampling.temperature)
    rollout = Rollout(generator, policy.chat, spec, config.seed)
    (trajectory,) = rollout.play([start], sampling)
    return trajectory


# ---- at the keyboard ----


def as_reply(env: Dialogue, line: str) -> str:
    """What a person typed, as a reply.

    Action names or their first letters, with blanks or commas between; else the line itself as the
    answer. A line that has tags already is left as it is.
    """
    # Who types tags writes the whole reply.
    if "<" in line or "\\boxed" in line:
        return line
    names: tuple[str, ...] = tuple(getattr(env.unwrapped, "action_names", ()))
    words = line.replace(",", " ").replace("||", " ").split()
    meant = [
        [i for i, name in enumerate(names) if name.lower().startswith(word.lower())]
        for word in words
    ]
    # Each word must mean exactly one action; else the line is an answer in words.
    if names and meant and all(len(numbers) == 1 for numbers in meant):
        return env.write("", [numbers[0] for numbers in meant])
    return env.protocol.write("", line.strip())


def play_person(env: Dialogue, seed: int, split: str, console: Console, ask: Ask = input) -> float:
    """One episode at the keyboard; returns the return.

    An empty line or the end of the input gives up.
    """
    answer = read(env.reset(seed=seed, options={"split": split}), env.system)
    console.print(safe(answer.system), style="dim")
    if names := getattr(env.unwrapped, "action_names", ()):
        console.print(
            f"Type actions, such as: {names[0]} {names[-1]}, or their first letters. An empty line "
            "gives up."
        )
    total = 0.0
    while not answer.over:
        console.print(safe(answer.observation))
        line = _line(ask)
        if not line.strip():
            console.print(f"given up, return {total:+.2f}")
            return total
        answer = read(env.step(as_reply(env, line)), env.system)
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


if __name__ == "__main__":
    if not any(argument.startswith(("model", "-")) for argument in sys.argv[1:]):
        sys.argv.append("model.path=human")
    command(
        "play",
        "Play a task at the keyboard; model=PATH, tiny, random or solver watches that policy play.",
        play,
    )
