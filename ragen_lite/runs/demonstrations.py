"""Where demonstrations come from: a scripted policy's episodes, or a file of trajectories."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.environments import EnvSpec, Handle
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.scripted import POLICIES
from ragen_lite.agents.trajectory import Outcome, Start
from ragen_lite.config.schema import ConfigError
from ragen_lite.envs.base import TextTask
from ragen_lite.envs.dialogue import has_solver
from ragen_lite.envs.files import FORMS
from ragen_lite.envs.splits import task_seed
from ragen_lite.learning.batches import Sample
from ragen_lite.learning.samples import demonstration
from ragen_lite.runs.conversations import read_conversations
from ragen_lite.runs.summaries import difficulty_of, task_of

TRIES = 100  # episodes played for one demonstration at most
APART = 1_000_000  # between the places of two tries, which no step has
MOST_PROCESSES = 4


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One conversation to learn from, and of what task and how hard it is, where that is known."""

    sample: Sample
    task: str = ""
    difficulty: float | None = None


Source = Callable[[int, int], Demonstration]  # (step, place in the step) -> a demonstration


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


@dataclass(frozen=True)
class PolicySource:
    """A scripted policy's episodes on fresh train instances, apart from those of training.

    An episode is cut where the task says that it is lost. It can be sent to another process.
    """

    name: str
    spec: EnvSpec
    chat: Chat
    seed: int

    @cached_property
    def env(self) -> Handle:
        """Opened where the episodes are played."""
        return self.spec.open()

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "env"}

    def __call__(self, step: int, place: int) -> Demonstration:
        """See Source. Raises ConfigError where the environment fails every time."""
        for again in range(TRIES):
            # A negative run seed: no training run has it, so no instance is shared with one by its
            # seed.
            start = Start(task_seed(-1 - self.seed, step, place + again * APART))
            policy = POLICIES[self.name]
            episode = play_episode(self.env, self.spec.id, policy, start, until_deadlock=True)
            # A failing environment teaches nothing; another instance takes its place.
            if episode.outcome is not Outcome.ERROR:
                turns = [(turn.observation, turn.reply) for turn in episode.turns]
                sample = encode(self.chat, episode.system, turns, self.env.prefill)
                return Demonstration(sample, task_of(episode), difficulty_of(episode))
        raise ConfigError(f"no demonstration of {self.spec.id} in {TRIES} tries: {episode.error}")


def note_difficulty(demonstration: Demonstration, hardest: dict[str, float]) -> None:
    """Keep the largest difficulty of a task's demonstrations."""
    task, difficulty = demonstration.task, demonstration.difficulty
    if difficulty is not None:
        hardest[task] = max(difficulty, hardest.get(task, difficulty))


class _Steps(Dataset[list[Demonstration] | ConfigError]):
    """The demonstrations of some steps, as a DataLoader asks for them; or why there are none."""

    def __init__(self, source: Source, steps: range, count: int) -> None:
        self.source = source
        self.steps = steps
        self.count = count

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> list[Demonstration] | ConfigError:
        try:
            return [self.source(self.steps[index], place) for place in range(self.count)]
        except ConfigError as error:
            # Raised here, it would reach the user as a traceback of the DataLoader's.
            return error


def drawn_ahead(
    source: Source, steps: range, count: int
) -> Generator[list[Demonstration], None, None]:
    """The ``count`` demonstrations of each of the steps, in their order.

    While one step is learnt from, other processes draw for the next ones, as many as there are
    processors to spare, and they end with the generator. What is drawn does not depend on how many
    they are. Raises ConfigError.
    """
    processes = min(MOST_PROCESSES, len(steps), (os.cpu_count() or 1) - 1)
    # A file's are drawn at once.
    if not isinstance(source, PolicySource):
        processes = 0
    loader = DataLoader(
        _Steps(source, steps, count),
        batch_size=None,
        num_workers=processes,
        worker_init_fn=_leave_stopping_to_the_run,
        generator=torch.Generator(),  # the global one is nobody's to draw from
    )
    for demonstrations in loader:
        if isinstance(demonstrations, ConfigError):
            raise demonstrations
        yield demonstrations


def _leave_stopping_to_the_run(worker: int) -> None:
    # A terminal's Ctrl-C, or a scheduler's SIGTERM, goes to all processes; the run still ends its
    # step, for which it may want what is being drawn, and then ends these.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


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

    def draw(step: int, place: int) -> Demonstration:
        chosen = np.random.default_rng([seed, step, place]).integers(len(samples))
        return Demonstration(samples[chosen])

    return draw


def make_source(demos: str, spec: EnvSpec, chat: Chat, seed: int, longest: int) -> Source:
    """Where the demonstrations come from; see ``PolicySource`` and ``from_file``.

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
        return PolicySource(demos, spec, chat, seed)
    if not Path(demos).is_file():
        raise ConfigError(
            f"demos={demos}: give teacher, solver, or a file of demonstrations ({FORMS})"
        )
    return from_file(Path(demos), spec, chat, seed, longest)
