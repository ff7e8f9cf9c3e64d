"""Any OpenAI-compatible server as a policy, for evaluation: messages in, text out. The only file
that imports openai.

A server tells no token ids, so what it played cannot be trained on; the records have turns and no
tokens.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from ragen_lite.agents.answer import EnvFailure, exchange_fields, outcome_of
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.errors import UserError
from ragen_lite.agents.trajectory import (
    Episode,
    Exchange,
    Outcome,
    Sampling,
    Start,
    end_episode,
)

FATAL = (  # where no request was answered yet, every other would fail alike
    *("AuthenticationError", "PermissionDeniedError", "NotFoundError"),
    *("APIConnectionError", "BadRequestError", "UnprocessableEntityError"),
)
SERVER = "server: "  # how the error of an episode begins whose request failed


class ServerRefused(UserError, ValueError):
    """The server cannot be used at all: unreachable, without this model, or not for us."""


class _RequestFailed(RuntimeError):
    """One request was given up."""


@dataclass(slots=True)
class Account:
    """What was asked of a server and what came of it."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.reply_tokens

    def __str__(self) -> str:
        failed = (
            ", ".join(f"{n} x {why}" for why, n in self.failures.most_common()) or "none failed"
        )
        return (
            f"{self.requests} requests answered after {self.retries} retries,"
            f" {self.prompt_tokens:,} prompt and {self.reply_tokens:,} reply tokens; {failed}"
        )


def parse(model: str) -> tuple[str, str]:
    """Name and address from ``openai:NAME@URL``. Raises ServerRefused.

    >>> parse("openai:Qwen/Qwen3-8B@http://127.0.0.1:8000/v1")
    ('Qwen/Qwen3-8B', 'http://127.0.0.1:8000/v1')
    """
    match = re.fullmatch(r"openai:(.+)@(https?://\S+)", model)
    if match is None:
        raise ServerRefused(
            f"model={model}: give openai:NAME@URL, such as openai:my-model@http://127.0.0.1:8000/v1"
        )
    return match[1], match[2]


def token_count(usage: Any, name: str) -> int:
    """A number of tokens as a server tells it; 0 for whatever is none."""
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


class ServedPolicy:
    """Plays episodes of one task with a server's chat completions, many at once.

    Args:
        spec: the task.
        model: ``openai:NAME@URL``; the key is read from OPENAI_API_KEY.
        concurrency: requests at once.
        budget: tokens, prompts and replies as the server counts them, after which no request is
            sent; None: no limit.
        retries: of a request that timed out, was refused for its rate or failed within the server,
            with back-off.
        timeout: seconds without an answer.

    Raises ServerRefused where the address is none or the openai package is not installed.
    """

    def __init__(
        self,
        spec: EnvSpec,
        model: str,
        concurrency: int = 16,
        budget: int | None = None,
        retries: int = 5,
        timeout: float = 120.0,
    ) -> None:
        self.name, self.url = parse(model)
        try:
            import openai
        except ImportError as error:
            raise ServerRefused(f"model={model}: pip install 'openai>=2.25'") from error
        key = os.environ.get("OPENAI_API_KEY", "none")
        try:
            self._client = openai.OpenAI(
                api_key=key, base_url=self.url, max_retries=retries, timeout=timeout
            )
        except Exception as error:  # of the HTTP library, which one depends on openai's version
            raise ServerRefused(f"model={model}: no address: {error}") from error
        self._errors = openai.APIError
        self.spec = spec
        self.concurrency = concurrency
        self.budget = budget
        self.account = Account()
        self._lock = threading.Lock()

    def play(
        self,
        starts: Sequence[Start],
        sampling: Sampling,
        on_progress: Callable[[int, int], None] = lambda finished, tokens: None,
    ) -> list[Episode]:
        """Play every start to its end; returns the episodes in the order of ``starts``.

        A failed request or environment and a spent budget end their own episode with
        ``Outcome.ERROR``; what was played before stays in it. Raises ServerRefused where no request
        can succeed.
        """
        ended = threading.Event()
        waiting: SimpleQueue[int] = SimpleQueue()
        answers: SimpleQueue[tuple[int, Episode | BaseException]] = SimpleQueue()
        for i in range(len(starts)):
            waiting.put(i)

        def work() -> None:
            while not ended.is_set():
                try:
                    i = waiting.get_nowait()
                except Empty:
                    return
                try:
                    answers.put((i, self._play(starts[i], sampling, ended)))
                except BaseException as error:  # raised below, in the caller's thread
                    answers.put((i, error))

        # Daemons: who stops must not wait for a server that is silent.
        for _ in range(min(self.concurrency, len(starts))):
            threading.Thread(target=work, daemon=True).start()
        done: dict[int, Episode] = {}
        try:
            while len(done) < len(starts):
                i, answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                done[i] = answer
                on_progress(len(done), self.account.reply_tokens)
        finally:
            ended.set()
        return [done[i] for i in range(len(starts))]

    def _play(self, start: Start, sampling: Sampling, ended: threading.Event) -> Episode:
        env = self.spec.open()
        turns: list[Exchange] = []
        system = ""

        def finish(outcome: Outcome, error: str | None = None) -> Episode:
            return end_episode(self.spec.id, start, system, turns, outcome, error)

        try:
            env.reset(start.seed, start.options)
            answer = env.take()
            system = answer.system
            messages = [{"role": "system", "content": system}]
            while True:
                observation = answer.observation
                messages.append({"role": "user", "content": observation})
                reply, tokens = self._ask(messages, sampling, ended)
                messages.append({"role": "assistant", "content": reply})
                env.step(reply)
                answer = env.take()
                turns.append(Exchange(**exchange_fields(observation, answer, tokens)))
                if answer.over:
                    return finish(outcome_of(answer))
        except EnvFailure as failure:
            return finish(Outcome.ERROR, str(failure))
        except _RequestFailed as failure:
            if str(failure) == "the context is full" and turns:
                return finish(Outcome.OUT_OF_TOKENS)
            return finish(Outcome.ERROR, f"{SERVER}{failure}")
        finally:
            env.close()

    def _ask(
        self, messages: list[dict[str, str]], sampling: Sampling, ended: threading.Event
    ) -> tuple[str, int]:
        """One reply and its length in tokens. Raises _RequestFailed, ServerRefused."""
        if ended.is_set():
            raise _RequestFailed("the evaluation was ended")
        with self._lock:
            if self.budget is not None and self.account.tokens >= self.budget:
                raise self._failed(f"the budget of {self.budget:,} tokens is spent")
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=self.name,
                messages=messages,  # type: ignore[arg-type]
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
            )
            completion = answer.parse()
            reply = str(completion.choices[0].message.content or "")
        except self._errors as error:
            raise self._why(error) from error
        except (IndexError, AttributeError, TypeError, ValueError) as error:
            raise self._failed("an answer that is no chat completion") from error
        prompt_tokens, reply_tokens = (
            token_count(completion.usage, n) for n in ("prompt_tokens", "completion_tokens")
        )
        # A budget that cannot be counted would be no budget.
        if self.budget is not None and not prompt_tokens:
            raise ServerRefused(
                f"{self.url} does not tell how many tokens it used, so no budget can be kept"
            )
        with self._lock:
            self.account.requests += 1
            self.account.retries += answer.retries_taken
            self.account.prompt_tokens += prompt_tokens
            self.account.reply_tokens += reply_tokens
        return reply, reply_tokens

    def _why(self, error: Any) -> Exception:
        """What a failed request means: for all of them, or for this one."""
        name = type(error).__name__
        text = " ".join(str(error).split())[:200]
        text = "".join(
            c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
        )  # it goes to a terminal
        with self._lock:
            if (
                getattr(error, "code", None) == "context_length_exceeded"
                or "maximum context length" in text
            ):
                return self._failed("the context is full")
            if name in FATAL and not self.account.requests:
                if name == "APIConnectionError":
                    return ServerRefused(f"no server answers at {self.url}: {text}")
                hint = (
                    "; such addresses end in /v1"
                    if name == "NotFoundError" and "/v1" not in self.url
                    else ""
                )
                return ServerRefused(f"{self.url} refuses model {self.name}: {name}: {text}{hint}")
            return self._failed(f"{name}: {text}")

    def _failed(self, why: str) -> _RequestFailed:
        self.account.failures[why] += 1
        return _RequestFailed(why)

    def close(self) -> None:
        """End the connections."""
        self._client.close()
