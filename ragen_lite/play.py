"""python -m ragen_lite.play: play a task in the terminal, or watch a model, the solver or the random policy play it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from ragen_lite.agents.isolation import checked
from ragen_lite.agents.rollout import Rollout, Start
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.torch_engine import TorchEngine
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.config import Config, command
from ragen_lite.envs.dialogue import Dialogue
from ragen_lite.evaluate import make_spec

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
    console.print(Text(env.system, style="dim"))
    if names := getattr(env.unwrapped, "action_names", ()):
        console.print(f"Type actions, such as: {names[0]} {names[-1]}, or their first letters. An empty line gives up.")
    total = 0.0
    while True:
        console.print(Text(message))
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
            console.print(Text(message))
            console.print(f"{'solved' if info.get('success') else 'not solved'}, return {total:+.2f}")
            return total


def _show(console: Console, turns: list[tuple[str, str, float]], success: bool) -> None:
    for message, reply, reward in turns:
        console.print(Text(message))
        console.print(Text(reply, style="bold green"))
        console.print(f"reward {reward:+.2f}\n", style="dim")
    console.print(f"{'solved' if success else 'not solved'}, return {sum(r for _, _, r in turns):+.2f}")


def run(config: Config) -> None:
    """Play one instance: ``seed`` of ``eval.split``."""
    console, spec = Console(), make_spec(config)
    who, split = config.model.path, config.eval.split
    env = spec.make()
    if who == "human":
        play_person(env, config.seed, split, console)
        return
    if who in POLICIES:
        rng: np.random.Generator = np.random.default_rng(config.seed)
        message, info = env.reset(seed=config.seed, options={"split": split})
        turns, over = [], False
        while not over:
            reply = POLICIES[who](env, rng)
            after, reward, terminated, truncated, info = env.step(reply)
            turns.append((message, reply, reward))
            message, over = after, terminated or truncated
        _show(console, turns, bool(info.get("success")))
        return
    _show(console, *_watch(config, spec))


def _watch(config: Config, spec: Any) -> tuple[list[tuple[str, str, float]], bool]:
    from ragen_lite.models import load_policy

    policy = load_policy(config)
    engine = TorchEngine(policy.model, policy.chat.stop_ids, policy.max_model_len, slots=1)
    rollout = Rollout(engine, policy.chat, spec, config.seed)
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    (trajectory,) = rollout.play([Start(config.seed, config.eval.split)], sampling)
    return [(t.observation, t.reply, t.reward) for t in trajectory.turns], trajectory.success


if __name__ == "__main__":
    if not any(argument.startswith(("model", "-")) for argument in sys.argv[1:]):
        sys.argv.append("model.path=human")
    command("play", "Play a task at the keyboard; model=PATH, tiny, random or solver watches that policy play.", run)
