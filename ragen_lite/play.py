"""python -m ragen_lite.play: play a task in the terminal, or watch a model, the solver or the random policy play it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console

from ragen_lite.agents.isolation import EnvSpec, checked
from ragen_lite.agents.rollout import Rollout, Start, play_out
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Sampling, Trajectory
from ragen_lite.cli import command
from ragen_lite.config import Config, ConfigError
from ragen_lite.display import safe
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.evaluate import has_solver, make_spec, server

Ask = Callable[[str], str]


def as_reply(env: Dialogue, line: str) -> str:
    """What a person typed as a reply: action names or their first letters, with blanks or commas between; else the
    line itself as the answer. A line that has tags already is left as it is."""
    if "<" in line or "\\boxed" in line:
        return line
    names: tuple[str, ...] = tuple(getattr(env.unwrapped, "action_names", ()))
    words = line.replace(",", " ").replace("||", " ").split()
    chosen = [[i for i, name in enumerate(names) if name.lower().startswith(word.lower())] for word in words]
    if names and chosen and all(len(c) == 1 for c in chosen):
        return env.write("", [c[0] for c in chosen])
    return env.protocol.write("", line.strip())


def play_person(env: Dialogue, seed: int, split: str, console: Console, ask: Ask = input) -> float:
    """One episode at the keyboard; returns the return. An empty line or end of input gives up."""
    message, _ = env.reset(seed=seed, options={"split": split})
    console.print(safe(env.system), style="dim")
    if names := getattr(env.unwrapped, "action_names", ()):
        console.print(f"Type actions, such as: {names[0]} {names[-1]}, or their first letters. An empty line gives up.")
    total = 0.0
    while True:
        console.print(safe(message))
        try:
            line = ask("> ")
        except EOFError:
            line = ""
        if not line.strip():
            console.print(f"given up, return {total:+.2f}")
            return total
        message, reward, terminated, truncated, info = checked(env.step(as_reply(env, line)))
        total += reward
        if terminated or truncated:
            console.print(safe(message))
            console.print(f"{'solved' if info.get('success') else 'not solved'}, return {total:+.2f}")
            return total


def run(config: Config) -> None:
    """Play one instance: ``seed`` of ``eval.split``."""
    console, spec = Console(), make_spec(config)
    who, split = config.model.path, config.eval.split
    env = spec.make()
    if who == "human":
        play_person(env, config.seed, split, console)
        return
    if who == "solver" and not has_solver(env.unwrapped):
        raise ConfigError(f"model=solver: {spec.id} has no solver")
    if who in POLICIES:
        trajectory = play_out(spec.open(), spec.id, POLICIES[who], Start(config.seed, split))
    else:
        trajectory = _watch(config, spec, console)
    for turn in trajectory.turns:
        console.print(safe(turn.observation))
        console.print(safe(turn.reply), style="bold green")
        console.print(f"reward {turn.reward:+.2f}\n", style="dim")
    console.print(f"{trajectory.outcome}, return {trajectory.reward:+.2f}")


def _watch(config: Config, spec: EnvSpec, console: Console) -> Trajectory:
    from ragen_lite import engines
    from ragen_lite.models import load_policy

    starts = [Start(config.seed, config.eval.split)]
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    if config.model.path.startswith("openai:"):
        return server(config, spec, config.model.path).play(starts, sampling)[0]
    engines.resolve(config, lambda text: console.print(text, style="dim", markup=False))
    policy = load_policy(config)
    engine, _ = engines.ready(config, policy)
    rollout = Rollout(engine, policy.chat, spec, config.seed)
    (trajectory,) = rollout.play(starts, sampling)
    return trajectory


if __name__ == "__main__":
    if not any(argument.startswith(("model", "-")) for argument in sys.argv[1:]):
        sys.argv.append("model.path=human")
    command("play", "Play a task at the keyboard; model=PATH, tiny, random or solver watches that policy play.", run)
