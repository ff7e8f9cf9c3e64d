"""Rollout: one loop over an engine and many environments, without a turn barrier."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ragen_lite.agents.answer import Answer, EnvFailure, exchange_fields, outcome_of
from ragen_lite.agents.chat import Chat
from ragen_lite.agents.contexts import ContextRule, FullContext, Said, goes_on, prompt
from ragen_lite.agents.engines.draws import draw_key
from ragen_lite.agents.engines.protocol import Engine, Request
from ragen_lite.agents.environments import EnvSpec, Handle, ProcessHandle
from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import (
    Completion,
    Context,
    Outcome,
    Progress,
    Sampling,
    Start,
    Stop,
    Trajectory,
    Turn,
    no_progress,
)

PROCESSES = 4 * (os.cpu_count() or 1)  # environments with a process of their own, at once
WAIT = 0.001  # seconds to wait where every trajectory waits for its environment


class PromptTooLong(UserError, ValueError):
    """The very first prompt of a task does not fit the context."""


@dataclass(slots=True)
class _Playing:
    """A trajectory under way."""

    start: Start
    env: Handle
    observation: str = ""
    prefill: str = ""
    system: str = ""
    instance: str = ""
    token_ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)
    behaviour_logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    closed: list[Context] = field(default_factory=list)
    completion: Completion | None = None

    def feed(self, token_ids: Sequence[int]) -> None:
        """Append tokens of a prompt."""
        self.token_ids += token_ids
        self.loss_mask += [False] * len(token_ids)
        self.behaviour_logprobs += [0.0] * len(token_ids)

    def append_reply(self, completion: Completion) -> None:
        """Append the tokens of a reply."""
        self.token_ids += completion.token_ids
        self.loss_mask += [True] * len(completion.token_ids)
        self.behaviour_logprobs += completion.logprobs
        self.completion = completion

    def add_turn(self, answer: Answer, completion: Completion) -> None:
        """The turn whose reply was the last to be appended."""
        stop = len(self.token_ids)
        length = len(completion.token_ids)
        exchange = exchange_fields(self.observation, answer, length)
        self.turns.append(
            Turn(
                context=len(self.closed),
                start=stop - length,
                stop=stop,
                cut=completion.stop is Stop.LENGTH,
                **exchange,
            )
        )
        self.said.append(Said(self.observation, completion.token_ids, self.prefill))
        self.completion = None

    def close_context(self) -> None:
        """Begin another context, empty as yet."""
        self.closed.append(self._context())
        self.token_ids = []
        self.loss_mask = []
        self.behaviour_logprobs = []

    def _context(self) -> Context:
        return Context(tuple(self.token_ids), tuple(self.loss_mask), tuple(self.behaviour_logprobs))

    def cut_back(self) -> None:
        """Drop what follows the last whole turn."""
        own = [turn for turn in self.turns if turn.context == len(self.closed)]
        end = own[-1].stop if own else 0
        del self.token_ids[end:]
        del self.loss_mask[end:]
        del self.behaviour_logprobs[end:]

    def finish(self, env_id: str, outcome: Outcome, error: str | None = None) -> Trajectory:
        """The record of it."""
        contexts = [*self.closed, self._context()]
        # One that was begun and has no turn is no context, unless there is no other.
        if self.closed and not self.token_ids:
            contexts.pop()
        return Trajectory(
            env_id=env_id,
            seed=self.start.seed,
            group=self.start.group,
            member=self.start.member,
            turns=tuple(self.turns),
            contexts=tuple(contexts),
            outcome=outcome,
            error=error,
            system=self.system,
            instance=self.instance,
        )


class Rollout:
    """Plays trajectories of one task with one engine; its environments are kept from call to call.

    Args:
        engine: token ids in, sampled token ids out.
        chat: the conversation's template, of the engine's tokenizer.
        spec: the task.
        run_seed: owns, with seed, member and turn, every draw of the policy.
        contexts: what of the conversation each prompt holds; the whole of it where not told.
    """

    def __init__(
        self,
        engine: Engine,
        chat: Chat,
        spec: EnvSpec,
        run_seed: int,
        contexts: ContextRule | None = None,
    ) -> None:
        self.contexts = contexts or FullContext()
        self.engine = engine
        self.chat = chat
        self.spec = spec
        self.run_seed = run_seed
        self._free: list[Handle] = []
        self.fits = False  # whether any first prompt has fitted

    def play(
        self, starts: Sequence[Start], sampling: Sampling, on_progress: Progress = no_progress
    ) -> list[Trajectory]:
        """Play every start to its end; returns the trajectories in the order of ``starts``.

        ``on_progress`` is called after each engine step; what it raises ends the rollout. A failing
        environment ends its own trajectory with ``Outcome.ERROR``.

        Raises PromptTooLong for a first prompt without room for a reply.
        """
        playing: dict[int, _Playing] = {}
        done: dict[int, Trajectory] = {}
        asked: list[int] = []  # trajectories whose environment has not answered yet
        tokens = 0
        limit = self._at_once(len(starts))
        try:
            while len(done) < len(starts):
                # Begin as many as may be open. The order of the starts is the order of the numbers.
                while len(playing) < len(starts) and len(playing) - len(done) < limit:
                    i = len(playing)
                    playing[i] = self._begin(starts[i])
                    asked.append(i)
                answered = [i for i in asked if playing[i].env.ready()]
                # Nobody is with the engine, and no environment has answered: do not spin.
                if not answered and len(asked) == len(playing) - len(done):
                    time.sleep(WAIT)
                asked = remove(asked, answered)
                for i in answered:
                    trajectory = self._advance(i, playing[i], sampling)
                    if trajectory is not None:
                        done[i] = trajectory
                        self.engine.release(i)
                        self._free.append(playing[i].env)
                for i, completion in self.engine.step():
                    playing[i].append_reply(completion)
                    # The environment reads the reply as text; its tokens stay as they were sampled.
                    reply = self.chat.text(completion.token_ids)
                    playing[i].env.step(playing[i].prefill + reply)
                    tokens += len(completion.token_ids)
                    asked.append(i)
                on_progress(len(done), tokens)
        finally:
            for i in playing.keys() - done.keys():  # left early
                self.engine.release(i)
                playing[i].env.close()
        return [done[i] for i in range(len(starts))]

    def _at_once(self, wanted: int) -> int:
        """How many environments may be open: of those in processes of their own, a few a core."""
        if not self._free:
            self._free.append(self.spec.open())
        return PROCESSES if isinstance(self._free[0], ProcessHandle) else wanted

    def _begin(self, start: Start) -> _Playing:
        """Take an environment and ask for the instance."""
        env = self._free.pop() if self._free else self.spec.open()
        env.reset(start.seed, start.options)
        return _Playing(start, env)

    def _advance(self, i: int, playing: _Playing, sampling: Sampling) -> Trajectory | None:
        """Take an environment's answer, end its turn and submit the next.

        Returns the trajectory where it is over.
        """
        try:
            answer = playing.env.take()
        except EnvFailure as failure:
            # A reply without an answer has no reward, so it makes no turn.
            playing.cut_back()
            return playing.finish(self.spec.id, Outcome.ERROR, str(failure))
        playing.system = answer.system
        if playing.completion is None:
            playing.instance = answer.instance
            new = self.chat.start(answer.system, answer.observation, answer.prefill)
            fed = 0
        else:
            last = playing.completion.token_ids[-1]
            playing.add_turn(answer, playing.completion)
            if answer.over:
                return playing.finish(self.spec.id, outcome_of(answer))
            fed, new = self._following(playing, last, answer)
        if not self._has_room(fed + len(new), sampling):
            return playing.finish(self.spec.id, Outcome.OUT_OF_TOKENS)
        if playing.turns and not fed:
            playing.close_context()
            # The engine remembers a trajectory's tokens, and these do not go on from them.
            self.engine.release(i)
        playing.feed(new)
        playing.observation = answer.observation
        playing.prefill = answer.prefill
        self._submit(i, playing, sampling)
        return None

    def _following(self, playing: _Playing, last: int, answer: Answer) -> tuple[int, list[int]]:
        """The tokens of the next prompt: how many are there already, and the new ones."""
        if goes_on(self.contexts, len(playing.turns)):
            # Only what is new is encoded; nothing that was fed or sampled is ever encoded again.
            added = self.chat.follow(last, answer.observation, answer.prefill)
            return len(playing.token_ids), added
        shown = (answer.system, playing.said, answer.observation, answer.prefill)
        return 0, prompt(self.contexts, self.chat, *shown)

    def _has_room(self, tokens: int, sampling: Sampling) -> bool:
        """Whether a prompt of ``tokens`` and a reply fit the context. Raises PromptTooLong."""
        longest = self.engine.max_model_len
        if tokens + sampling.max_tokens <= longest:
            self.fits = True
            return True
        if not self.fits:
            raise PromptTooLong(
                f"the first prompt of {self.spec.id} has {tokens} tokens; with a reply of up to "
                f"{sampling.max_tokens} it does not fit engine.max_model_len={longest}: raise it, "
                "or lower sample.max_tokens"
            )
        return False

    def _submit(self, i: int, playing: _Playing, sampling: Sampling) -> None:
        start = playing.start
        # Each reply's draws have a key of their own, so that they do not depend on the batch.
        key = draw_key(self.run_seed, start.seed, start.member, len(playing.turns))
        self.engine.submit(Request(i, tuple(playing.token_ids), sampling, key))

    def close(self) -> None:
        """End the environments' processes."""
        for handle in self._free:
            handle.close()
        self._free = []


def remove(numbers: list[int], gone: list[int]) -> list[int]:
    """The numbers, in their order, less those that are gone."""
    left = set(gone)
    return [i for i in numbers if i not in left]
