"""Any OpenAI-compatible server as a policy, for evaluation: messages in, text out. The only file
that imports openai.

A server tells no token ids, so what it played cannot be trained on; the records have turns and no
tokens.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from ragen_lite.agents.answer import EnvFailure, exchange_fields, outcome_of
from ragen_lite.agents.completions import (
    NEUTRAL,
    NEUTRAL_EXTRA,
    Account,
    NoReply,
    is_full_context,
    one_line,
    reply_of,
    token_count,
)
from ragen_lite.agents.contexts import ContextRule, FullContext, as_messages
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
FULL = "the context is full"
SERVER = "server: "  # how the error of an episode begins whose request failed


class ServerRefused(UserError, ValueError):
    """The server cannot be used at all: unreachable, without this model, or not for us."""


class _RequestFailed(RuntimeError):
    """One request was given up."""


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
        contexts: what of the conversation each prompt holds; the whole of it where not told.

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
        contexts: ContextRule | None = None,
    ) -> None:
        self.contexts = contexts or FullContext()
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
        self._refusals = (openai.BadRequestError, openai.UnprocessableEntityError)
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
        instance = ""

        def finish(outcome: Outcome, error: str | None = None) -> Episode:
            return end_episode(self.spec.id, start, system, turns, outcome, error, instance)

        try:
            env.reset(start.seed, start.options)
            answer = env.take()
            system = answer.system
            instance = answer.instance
            if answer.prefill:
                raise ServerRefused(
                    f"a server's replies do not begin with {answer.prefill!r}: take env.prefill=''"
                    " (the system prompt asks for the form)"
                )
            said: list[tuple[str, str]] = []
            while True:
                observation = answer.observation
                shown = as_messages(self.contexts, system, said, observation)
                reply, tokens = self._ask(shown, sampling, ended)
                said.append((observation, reply))
                env.step(reply)
                answer = env.take()
                turns.append(Exchange(**exchange_fields(observation, answer, tokens)))
                if answer.over:
                    return finish(outcome_of(answer))
        except EnvFailure as failure:
            return finish(Outcome.ERROR, str(failure))
        except _RequestFailed as failure:
            if str(failure) == FULL and turns:
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
            answer = self._request(messages, sampling)
            completion = answer.parse()
            reply = reply_of(completion.choices[0])
        except self._errors as error:
            raise self._why(error) from error
        except NoReply as error:
            raise self._failed(str(error)) from error
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

    def _request(self, messages: list[dict[str, str]], sampling: Sampling) -> Any:
        """A completion from the model's own distribution, as far as the server lets us say so."""
        create: Any = self._client.chat.completions.with_raw_response.create
        request: dict[str, Any] = {
            "model": self.name,
            "messages": messages,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        if not self.account.plain:
            try:
                return create(**request, **NEUTRAL, extra_body=NEUTRAL_EXTRA)
            except self._refusals as error:
                if is_full_context(getattr(error, "code", None), str(error)):
                    raise
        answer = create(**request)
        self.account.plain = True
        return answer

    def _why(self, error: Any) -> Exception:
        """What a failed request means: for all of them, or for this one."""
        name = type(error).__name__
        text = one_line(error)
        with self._lock:
            if is_full_context(getattr(error, "code", None), text):
                return self._failed(FULL)
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
