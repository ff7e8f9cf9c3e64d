"""Where demonstrations come from: a scripted policy's episodes, or a file of trajectories."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Episode, Outcome, Start
from ragen_lite.config.schema import ConfigError
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.dialogue import has_solver
from ragen_lite.envs.files import FORMS
from ragen_lite.envs.splits import task_seed
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.samples import demonstration
from ragen_lite.runs.conversations import read_conversations
from ragen_lite.runs.summaries import difficulty_of, task_of

Source = Callable[[int, int], Sample]  # (step, place in the step) -> a demonstration
TRIES = 100  # episodes played for one demonstration at most
APART = 1_000_000  # between the places of two tries, which no step has


def encode(chat: Chat, system: str, turns: Sequence[tuple[str, str]], prefill: str = "") -> Sample:
    """A conversation in a model's tokens, its replies marked as what is learnt.

    Args:
        chat: the model's template.
        system: the system prompt.
        turns: messages with the replies to them.
        prefill: what a reply begins with that the policy will not have to say.
    """
    token_ids: list[int] = []
    loss_mask: list[bool] = []
    for k, (message, reply) in enumerate(turns):
        begun = prefill if reply.startswith(prefill) else ""
        prompt = (
            chat.follow(chat.end_id, message, begun) if k else chat.start(system, message, begun)
        )
        answer = [*chat.plain(reply.removeprefix(begun)), chat.end_id]
        token_ids += prompt + answer
        loss_mask += [False] * len(prompt) + [True] * len(answer)
    return demonstration(token_ids, loss_mask)


def from_policy(
    name: str, spec: EnvSpec, chat: Chat, seed: int, hardest: dict[str, float] | None = None
) -> Source:
    """A scripted policy's episodes on fresh train instances, apart from those of training.

    An episode is cut where the task says that it is lost. ``hardest`` gets the largest difficulty
    of each task's demonstrations.
    """
    env = spec.open()

    def draw(step: int, place: int) -> Sample:
        for again in range(TRIES):
            # A negative run seed: no training run has it, so no instance is shared with one by its
            # seed.
            start = Start(task_seed(-1 - seed, step, place + again * APART))
            episode = play_episode(env, spec.id, POLICIES[name], start, until_deadlock=True)
            # A failing environment teaches nothing; another instance takes its place.
            if episode.outcome is not Outcome.ERROR:
                if hardest is not None:
                    note_difficulty(episode, hardest)
                turns = [(turn.observation, turn.reply) for turn in episode.turns]
                return encode(chat, episode.system, turns, env.prefill)
        raise ConfigError(f"no demonstration of {spec.id} in {TRIES} tries: {episode.error}")

    return draw


def note_difficulty(episode: Episode, hardest: dict[str, float]) -> None:
    """Keep the largest difficulty of a task's episodes."""
    difficulty = difficulty_of(episode)
    if difficulty is not None:
        name = task_of(episode)
        hardest[name] = max(difficulty, hardest.get(name, difficulty))


def from_file(path: Path, spec: EnvSpec, chat: Chat, seed: int, longest: int) -> Source:
    """Conversations of a file, drawn again and again by the seed.

    Their texts are encoded by this model's chat. Those of more than ``longest`` tokens are left out
    with a warning that counts them. Raises ConfigError where none is left.
    """
    env = spec.make()
    encoded = []
    for conversation in read_conversations(path):
        system = env.system if conversation.system is None else conversation.system
        encoded.append(encode(chat, system, conversation.turns, env.prefill))
    samples = [sample for sample in encoded if len(sample.token_ids) <= longest]
    left_out = len(encoded) - len(samples)
    if left_out:
        told = (
            f"demos={path}: {left_out} of {len(encoded)} demonstrations have more than the "
            f"{longest} tokens that the model takes (engine.max_model_len)"
        )
        if not samples:
            raise ConfigError(told)
        warnings.warn(f"{told}; they are left out", stacklevel=2)

    def draw(step: int, place: int) -> Sample:
        return samples[np.random.default_rng([seed, step, place]).integers(len(samples))]

    return draw


def make_source(
    demos: str,
    spec: EnvSpec,
    chat: Chat,
    seed: int,
    longest: int,
    hardest: dict[str, float] | None = None,
) -> Source:
    """Where the demonstrations come from; see ``from_policy`` and ``from_file``.

    Raises ConfigError.
    """
    if demos in ("teacher", "solver"):
        task = spec.make().unwrapped
        own = getattr(type(task), "demonstrate", TextTask.demonstrate)
        teaches = own is not TextTask.demonstrate and not hasattr(task, "dialogues")
        if not has_solver(task) and not (teaches and demos == "teacher"):
            raise ConfigError(
                f"demos={demos}: {spec.id} has no solve and no demonstrate, so give a JSONL file "
                "of trajectories"
            )
        return from_policy(demos, spec, chat, seed, hardest)
    if not Path(demos).is_file():
        raise ConfigError(
            f"demos={demos}: give teacher, solver, or a file of demonstrations ({FORMS})"
        )
    return from_file(Path(demos), spec, chat, seed, longest)
