"""Any OpenAI-compatible server: what is sent, and what its failures become. The server here is ours, over loopback."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ragen_lite.agents.completions import NEUTRAL, NEUTRAL_EXTRA
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.served import ServedPolicy, ServerRefused, parse
from ragen_lite.agents.trajectory import Episode, Outcome, Sampling, Start
from ragen_lite.config.schema import Config, ConfigError, EngineConfig, EvalConfig
from ragen_lite.evaluate import evaluate
from ragen_lite.runs.servers import served_policy

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
SOKOBAN = EnvSpec("ragen_lite/Sokoban-v0")
REPLY = "<think></think><answer>Up</answer>"


class Server(ThreadingHTTPServer):
    """Answers each request by the next of ``script``: a status, or None for a completion; then by completions."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script: list[int | str | None] = []
        self.requests: list[dict[str, Any]] = []
        self.under_way = self.most = 0
        self.text = "This model's maximum context length is 64 tokens"
        self.usage: dict[str, int] | None = {
            "prompt_tokens": 50,
            "completion_tokens": 7,
            "total_tokens": 57,
        }
        self.choice: dict[str, Any] = {}
        self.takes: set[str] | None = None
        self.woken = threading.Event()
        self.lock = threading.Lock()

    @property
    def model(self) -> str:
        return f"openai:some/model@http://127.0.0.1:{self.server_address[1]}/v1"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            answer = self.server.script.pop(0) if self.server.script else None
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        threading.Event().wait(0.005)
        with self.server.lock:
            self.server.under_way -= 1
        unknown = body.keys() - (self.server.takes or body.keys())
        if unknown:
            self.send(400, {"error": {"message": f"Unrecognized request argument: {min(unknown)}"}})
            return
        if answer == -1:
            self.server.woken.wait(60)
            return
        if isinstance(answer, int):
            self.send(answer, {"error": {"message": self.server.text, "code": answer}})
        elif isinstance(answer, str):
            self.send(200, {"surprise": answer})
        else:
            message = {"role": "assistant", "content": REPLY}
            choice = {"index": 0, "finish_reason": "stop", "message": message, **self.server.choice}
            head = {"id": "1", "object": "chat.completion", "created": 1, "model": "some/model"}
            self.send(200, {**head, "choices": [choice], "usage": self.server.usage})

    def send(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.woken.set()
    server.shutdown()
    server.server_close()


def starts(n: int) -> list[Start]:
    return [Start(seed, group=seed) for seed in range(n)]


def test_the_conversation_is_sent_as_messages(server: Server) -> None:
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    (played,) = player.play(starts(1), Sampling(0.5, 33))
    assert [t.reply for t in played.turns] == [REPLY] * len(played.turns) and len(played.turns) == 5
    assert played.outcome is Outcome.OUT_OF_TURNS and type(played) is Episode
    second = server.requests[1]
    assert (second["model"], second["temperature"], second["max_tokens"]) == ("some/model", 0.5, 33)
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][1]["content"] == played.turns[0].observation
    assert second["messages"][2]["content"] == REPLY
    account = player.account
    assert (account.requests, account.retries, account.prompt_tokens, account.reply_tokens) == (
        5,
        0,
        250,
        35,
    )
    assert (
        "5 requests answered after 0 retries, 250 prompt and 35 reply tokens; none failed"
        in str(account)
    )


def test_many_at_once_in_the_order_of_the_starts(server: Server) -> None:
    seen: list[int] = []
    player = ServedPolicy(SOKOBAN, server.model, concurrency=4)
    played = player.play(
        starts(12), Sampling(1.0, 9), lambda finished, tokens: seen.append(finished)
    )
    assert [t.seed for t in played] == list(range(12)) and seen == list(range(1, 13))
    assert 2 <= server.most <= 4


def test_what_may_pass_is_tried_again_and_counted(server: Server) -> None:
    server.script = [429, 500, 503, None]
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    (played,) = player.play(starts(1), Sampling(1.0, 9))
    assert played.error is None and player.account.retries == 3


def test_what_does_not_pass_ends_one_trajectory_and_keeps_its_turns(server: Server) -> None:
    server.text = "out of order"
    server.script = [None, None, 500, 500, 500]
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1, retries=2)
    first, second = player.play(starts(2), Sampling(1.0, 9))
    assert (
        first.outcome is Outcome.ERROR
        and "InternalServerError" in str(first.error)
        and len(first.turns) == 2
    )
    assert second.outcome is Outcome.OUT_OF_TURNS
    assert "1 x InternalServerError" in str(player.account)


def test_answers_that_are_none_and_full_contexts(server: Server) -> None:
    server.script = ["surprise"]
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    (played,) = player.play(starts(1), Sampling(1.0, 9))
    assert played.outcome is Outcome.ERROR and "no chat completion" in str(played.error)
    server.script = [None, 400]
    (played,) = player.play(starts(1), Sampling(1.0, 9))
    assert played.outcome is Outcome.OUT_OF_TOKENS and len(played.turns) == 1


@pytest.mark.parametrize(
    "text",
    [
        # vLLM, before and now; SGLang; llama.cpp; Text Generation Inference.
        "This model's maximum context length is 64 tokens. However, you requested 90 tokens",
        "You passed 60 input tokens and requested 9 output tokens. However, the model's context "
        "length is only 64 tokens",
        "The decoder prompt (length 70) is longer than the maximum model length of 64.",
        "The input (70 tokens) is longer than the model's context length (64 tokens).",
        "the request exceeds the available context size, try increasing it",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 64. Given: 60 `inputs` "
        "tokens and 9 `max_new_tokens`",
    ],
)
def test_a_full_context_is_known_by_every_servers_words(server: Server, text: str) -> None:
    server.text = text
    server.script = [None, 400]
    (played,) = ServedPolicy(SOKOBAN, server.model, concurrency=1).play(starts(1), Sampling(1.0, 9))
    assert played.outcome is Outcome.OUT_OF_TOKENS and len(played.turns) == 1


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_thought_beside_the_reply_is_put_back(server: Server, name: str) -> None:
    server.choice = {
        "message": {"role": "assistant", "content": "<answer>Up</answer>", name: "Up it is."}
    }
    (played,) = ServedPolicy(SOKOBAN, server.model).play(starts(1), Sampling(1.0, 9))
    assert played.turns[0].reply == "<think>Up it is.</think><answer>Up</answer>"
    assert played.turns[0].actions == ("Up",)
    server.choice = {
        "finish_reason": "length",
        "message": {"role": "assistant", "content": None, name: "Up or"},
    }
    (played,) = ServedPolicy(SOKOBAN, server.model).play(starts(1), Sampling(1.0, 9))
    assert played.turns[0].reply == "<think>Up or" and played.turns[0].unreadable


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"message": {"role": "assistant", "content": None}}, "the server sent no content"),
        ({"finish_reason": "error"}, "for the reason 'error'"),
        ({"finish_reason": "abort"}, "for the reason 'abort'"),
    ],
)
def test_what_the_model_did_not_say_is_no_reply(
    server: Server, choice: dict[str, Any], message: str
) -> None:
    server.choice = choice
    player = ServedPolicy(SOKOBAN, server.model)
    (played,) = player.play(starts(1), Sampling(1.0, 9))
    assert played.outcome is Outcome.ERROR and message in str(played.error) and not played.turns
    assert message in str(player.account)


def test_an_empty_reply_is_the_models_own(server: Server) -> None:
    server.choice = {"message": {"role": "assistant", "content": ""}}
    (played,) = ServedPolicy(SOKOBAN, server.model).play(starts(1), Sampling(1.0, 9))
    assert played.outcome is Outcome.OUT_OF_TURNS and played.turns[0].reply == ""


def test_a_servers_own_sampling_is_switched_off_or_said(server: Server) -> None:
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    player.play(starts(1), Sampling(0.5, 33))
    assert {**NEUTRAL, **NEUTRAL_EXTRA}.items() <= server.requests[0].items()
    assert "does not take" not in str(player.account)
    server.requests.clear()
    server.takes = {"model", "messages", "temperature", "max_tokens"}
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    (played,) = player.play(starts(1), Sampling(0.5, 33))
    assert played.outcome is Outcome.OUT_OF_TURNS and len(server.requests) == 6
    assert "does not take top_p" in str(player.account)
    assert "repetition_penalty, so what it has set of them holds" in str(player.account)


def test_a_budget_is_not_passed_by_more_than_what_is_under_way(server: Server) -> None:
    player = ServedPolicy(SOKOBAN, server.model, concurrency=3, budget=57 * 7)
    player.play(starts(6), Sampling(1.0, 9))
    assert 57 * 7 <= player.account.tokens <= 57 * 9
    server.requests.clear()
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1, budget=57 * 7)
    played = player.play(starts(6), Sampling(1.0, 9))
    assert len(server.requests) == 7 and player.account.tokens == 57 * 7
    spent = [t for t in played if t.outcome is Outcome.ERROR]
    assert len(spent) == 5 and all(
        "the budget of 399 tokens is spent" in str(t.error) for t in spent
    )
    assert sum(len(t.turns) for t in played) == len(server.requests)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_everything_stops_the_evaluation(server: Server, status: int) -> None:
    server.text = "not for you"
    server.script = [status] * 50
    player = ServedPolicy(SOKOBAN, server.model, concurrency=2)
    with pytest.raises(ServerRefused, match="refuses model some/model"):
        player.play(starts(40), Sampling(1.0, 9))
    assert len(server.requests) <= 6


def test_a_refusal_after_answers_loses_nothing_that_was_played(server: Server) -> None:
    server.text = "gone"
    server.script = [None] + [404] * 50
    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    first, second = player.play(starts(2), Sampling(1.0, 9))
    assert first.outcome is second.outcome is Outcome.ERROR and len(first.turns) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_a_request_that_is_refused_from_the_first_is_no_lost_game(
    server: Server, status: int
) -> None:
    server.text = "max_tokens is not supported with \x1b[31mthis model"
    server.script = [status] * 50
    player = ServedPolicy(SOKOBAN, server.model, concurrency=2)
    with pytest.raises(ServerRefused, match="max_tokens is not supported with \ufffd.31mthis"):
        player.play(starts(40), Sampling(1.0, 9))


def test_a_budget_needs_a_server_that_counts(server: Server) -> None:
    server.usage = None
    (played,) = ServedPolicy(SOKOBAN, server.model).play(starts(1), Sampling(1.0, 9))
    assert played.error is None
    with pytest.raises(ServerRefused, match="no budget can be kept"):
        ServedPolicy(SOKOBAN, server.model, budget=100).play(starts(1), Sampling(1.0, 9))
    server.usage = {"prompt_tokens": -5, "completion_tokens": "many"}  # type: ignore[dict-item]
    player = ServedPolicy(SOKOBAN, server.model)
    player.play(starts(1), Sampling(1.0, 9))
    assert player.account.tokens == 0
    server.usage = {"prompt_tokens": 50}
    player = ServedPolicy(SOKOBAN, server.model, budget=1000)
    player.play(starts(1), Sampling(1.0, 9))
    assert (player.account.prompt_tokens, player.account.reply_tokens) == (250, 0)


def test_stopping_does_not_wait_for_a_server_that_is_silent(server: Server) -> None:
    server.script = [None] * 5 + [-1] * 50

    def stop(finished: int, tokens: int) -> None:
        raise KeyboardInterrupt

    player = ServedPolicy(SOKOBAN, server.model, concurrency=1)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        player.play(starts(3), Sampling(1.0, 9), stop)
    assert (
        time.monotonic() - began < 20
    )  # seconds; the server is silent for 60, and would be asked six times


def test_no_server() -> None:
    player = ServedPolicy(SOKOBAN, "openai:m@http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(ServerRefused, match="no server answers at http://127.0.0.1:9/v1"):
        player.play(starts(2), Sampling(1.0, 9))


@pytest.mark.parametrize(
    "model", ["openai:m", "openai:@http://x/v1", "openai:m@ftp://x", "openai:m@http://a b"]
)
def test_addresses_that_are_none(model: str) -> None:
    with pytest.raises(ServerRefused, match="give openai:NAME@URL"):
        parse(model)


def test_an_address_that_no_library_takes() -> None:
    with pytest.raises(ServerRefused, match="no address"):
        ServedPolicy(SOKOBAN, "openai:m@http://[::1/v1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurency": 3}, "did you mean concurrency"),
        ({"concurrency": 2.5}, "engine.options.concurrency=2.5: concurrency .* whole numbers"),
        ({"concurrency": True}, "whole numbers"),
        ({"retries": -1}, "whole numbers"),
        ({"timeout": float("nan")}, "timeout is in seconds"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        served_policy(SOKOBAN, "openai:m@http://127.0.0.1:9/v1", "auto", options)
    fine = {"budget": None, "retries": 0, "timeout": 0.5, "concurrency": 1}
    served_policy(SOKOBAN, "openai:m@http://127.0.0.1:9/v1", "auto", fine).close()


def test_what_a_server_did_not_play_is_left_out_and_said(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    server.text = "\x1b[31mout of order"
    server.script = [None] * 5 + [500] + [None] * 200  # the second of six, in the sampled pass
    options = {"concurrency": 1, "retries": 0}
    config = Config(engine=EngineConfig(options=options), eval=EvalConfig(instances=6))
    config.model.path = server.model
    evaluate(config)
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("│ instances"))
    assert [cell.strip() for cell in row.split("│")[2:4]] == ["5", "6"]
    assert "the same 5 instances" in " ".join(text.split()) and "the same 6 instances" in " ".join(
        text.split()
    )
    assert (
        "failed: 1 x server: InternalServerError" in " ".join(text.split()) and "\x1b" not in text
    )
    server.script = [None, *[500] * 500]
    with pytest.raises(ConfigError, match="no instance was answered to its end"):
        evaluate(config)


def test_an_environment_that_fails_is_an_error_as_everywhere(server: Server) -> None:
    spec = EnvSpec("envs_for_tests:ragen_lite_tests/Guess-v0", {"fault": "reset"})
    played = ServedPolicy(spec, server.model, concurrency=2).play(starts(4), Sampling(1.0, 9))
    assert any(t.outcome is Outcome.ERROR and "no level today" in str(t.error) for t in played)
