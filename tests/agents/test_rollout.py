"""Rollout: the literal tokens and mask of a conversation, the invariant on random ones, and environments that fail."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.engines.protocol import Request
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.episodes import error_summary
from ragen_lite.agents.records import as_record
from ragen_lite.agents.rollout import PromptTooLong, Rollout
from ragen_lite.agents.trajectory import Completion, Outcome, Sampling, Start, Stop
from tests.fixtures.making import torch_engine

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
GUESS = "envs_for_tests:ragen_lite_tests/Guess-v0"
YES, NO = "<think></think><answer>Yes</answer>", "<think></think><answer>No</answer>"
LONG = Sampling(1.0, 40)


class Scripted:
    """An engine that gives replies from a list, in pieces of its own choosing: request k of a trajectory gets reply k."""

    def __init__(
        self,
        chat: Chat,
        replies: list[tuple[list[int], Stop]],
        max_model_len: int = 1000,
        late: int = 1,
    ) -> None:
        self.replies, self.max_model_len, self.late = replies, max_model_len, late
        self.requests: list[Request] = []
        self.served: dict[int, int] = {}
        self.queue: list[tuple[int, Request]] = []
        self.released: list[int] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self.queue.append((1 + request.id * self.late, request))  # later trajectories take longer

    def step(self) -> list[tuple[int, Completion]]:
        done = [r for wait, r in self.queue if wait <= 1]
        self.queue = [(wait - 1, r) for wait, r in self.queue if wait > 1]
        return [(r.id, self._reply(r.id)) for r in done]

    def _reply(self, id: int) -> Completion:
        k = self.served[id] = self.served.get(id, -1) + 1
        ids, stop = self.replies[k % len(self.replies)]
        return Completion(tuple(ids), tuple(-0.1 * (j + 1) for j in range(len(ids))), stop)

    def release(self, id: int) -> None:
        self.released.append(id)

    def load_weights(self, tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None: ...
    def metrics(self) -> dict[str, float]:
        return {}

    def reset_metrics(self) -> None: ...
    def close(self) -> None: ...
    @property
    def version(self) -> int:
        return 0

    def sleep(self) -> None: ...
    def wake(self) -> None: ...


def ended(chat: Chat, text: str) -> tuple[list[int], Stop]:
    return [*chat.plain(text), chat.end_id], Stop.EOS


def test_the_literal_ids_mask_and_spans_of_three_turns(chat: Chat) -> None:
    """A readable reply, one cut at its length, one with text behind its tags: each as sampled, nothing else trained."""
    cut = (chat.plain("<think>Up Up"), Stop.LENGTH)
    odd = ([*chat.plain(YES + " Up"), chat.end_id], Stop.EOS)
    engine = Scripted(chat, [ended(chat, YES), cut, odd, ended(chat, YES)])
    (t,) = Rollout(engine, chat, EnvSpec(GUESS), 0).play([Start(1)], LONG)
    t.check()
    decode = chat.tokenizer.decode
    system = (
        "<|im_start|>system\nReach the goal of the task.\nThe actions are No, Yes. You have 4 turns, up to 1 actions a "
        "turn (separated by ||) and 4 actions in all.<|im_end|>\n<|im_start|>user\n"
    )
    ask = "Always output: <think> [your thoughts] </think> <answer> [your answer] </answer>"
    end = f" {ask}<|im_end|>\n<|im_start|>assistant\n"
    sorry = "Your reply could not be read: "
    pieces = [
        (False, f"{system}Turn 1:\nState:\nroom 1\nYou have 4 actions left.{end}"),
        (True, f"{YES}<|im_end|>"),
        (False, f"\n<|im_start|>user\nTurn 2:\nState:\nturn 1 gave 1\nYou have 3 actions left.{end}"),
        (True, "<think>Up Up"),  # cut: its end token is not sampled, so it is not trained
        (False, f"<|im_end|>\n<|im_start|>user\n{sorry}exactly one <think> ... </think> is needed.\n"
                f"Turn 3:\nState:\nturn 1 gave 1\nYou have 3 actions left.{end}"),
        (True, f"{YES} Up<|im_end|>"),
        (False, f"\n<|im_start|>user\n{sorry}no text is allowed outside the tags.\n"
                f"Turn 4:\nState:\nturn 1 gave 1\nYou have 3 actions left.{end}"),
        (True, f"{YES}<|im_end|>"),
    ]  # fmt: skip
    assert decode(list(t.contexts[0].token_ids)) == "".join(text for _, text in pieces)
    at = 0
    for sampled, text in pieces:
        length = 1
        while decode(list(t.contexts[0].token_ids[at : at + length])) != text:
            length += 1
        assert t.contexts[0].loss_mask[at : at + length] == (sampled,) * length, text
        at += length
    assert at == len(t.contexts[0].token_ids)
    spans = [t.contexts[0].token_ids[turn.start : turn.stop] for turn in t.turns]
    assert spans == [tuple(ids) for ids, _ in engine.replies]
    assert [t.contexts[0].behaviour_logprobs[turn.start] for turn in t.turns] == [-0.1] * 4
    assert [r.token_ids for r in engine.requests] == [
        t.contexts[0].token_ids[: turn.start] for turn in t.turns
    ]
    assert [turn.reward for turn in t.turns] == [1.0, -0.5, -0.5, 1.0]
    assert t.outcome is Outcome.OUT_OF_TURNS and engine.released == [0]


reply_texts = st.lists(
    st.tuples(st.sampled_from([YES, NO, "", "<|im_end|>", "√ no tags ", "<think>"]), st.booleans()),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(replies=reply_texts, starts=st.integers(1, 4), late=st.integers(1, 3))
def test_the_invariant_holds_on_random_conversations(
    chat: Chat, replies: list[tuple[str, bool]], starts: int, late: int
) -> None:
    scripted = []
    for text, stopped in replies:
        ids = chat.plain(text) or chat.plain("x")
        scripted.append(([*ids, chat.end_id], Stop.EOS) if stopped else (ids, Stop.LENGTH))
    engine = Scripted(chat, scripted, late=late)
    played = Rollout(engine, chat, EnvSpec(GUESS), 0).play([Start(s) for s in range(starts)], LONG)
    for i, t in enumerate(played):
        t.check()
        requests = [r for r in engine.requests if r.id == i]
        assert t.seed == i and len(requests) == len(t.turns)
        for k, turn in enumerate(t.turns):
            assert (
                list(t.contexts[0].token_ids[turn.start : turn.stop])
                == scripted[k % len(scripted)][0]
            )
            assert requests[k].token_ids == t.contexts[0].token_ids[: turn.start]
        assert sum(t.contexts[0].loss_mask) == sum(
            len(scripted[k % len(scripted)][0]) for k in range(len(t.turns))
        )


def test_a_real_engine_keeps_the_invariant_and_repeats_itself(chat: Chat, model: Any) -> None:
    def play() -> list[dict[str, Any]]:
        engine = torch_engine(model, chat.stop_ids, 600, slots=3)
        rollout = Rollout(engine, chat, EnvSpec("ragen_lite/Sokoban-v0"), run_seed=5)
        played = rollout.play(
            [Start(s, group=s // 2, member=s % 2) for s in range(7)], Sampling(1.0, 12)
        )
        for t in played:
            t.check()
        return [as_record(t) for t in played]

    assert play() == play()


def test_members_of_a_group_see_the_same_instance_and_draw_apart(chat: Chat, model: Any) -> None:
    engine = torch_engine(model, chat.stop_ids, 600)
    a, b = Rollout(engine, chat, EnvSpec("ragen_lite/Sokoban-v0"), 0).play(
        [Start(9, member=m) for m in range(2)], Sampling(1.0, 12)
    )
    assert a.turns[0].observation == b.turns[0].observation
    assert (
        a.contexts[0].token_ids[a.turns[0].start : a.turns[0].stop]
        != b.contexts[0].token_ids[b.turns[0].start : b.turns[0].stop]
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("reset", "RuntimeError: no level today"),
        ("raise", "KeyError: 'the door is gone'"),
        ("reward", "the reward is nan"),
        ("observation", "observation"),
        ("tuple", "ValueError"),
        ("info", "info|NoneType"),
    ],
)
def test_a_failing_environment_ends_its_own_trajectory_only(
    chat: Chat, fault: str, message: str
) -> None:
    engine = Scripted(chat, [ended(chat, YES)])
    spec = EnvSpec(GUESS, {"fault": fault, "at": 2})
    played = Rollout(engine, chat, spec, 0).play([Start(s) for s in range(4)], LONG)
    assert [t.outcome for t in played] == [
        Outcome.ERROR,
        Outcome.SUCCESS,
        Outcome.SUCCESS,
        Outcome.ERROR,
    ]
    for t in played:
        t.check()
    import re

    assert re.search(message, played[0].error or "")
    assert "2 x" in error_summary(played) and "(seed " in error_summary(played)
    assert len(played[0].turns) == (0 if fault == "reset" else 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hang", "time limit of 0.5 s"),
        ("leave a child", "time limit of 0.5 s"),
        ("read", "EOFError"),
        ("exit", "ended without an answer"),
    ],
)
@pytest.mark.timeout(15)  # a child that is left behind lives longer
def test_an_environment_that_hangs_or_dies_in_its_process(
    chat: Chat, fault: str, message: str
) -> None:
    engine = Scripted(chat, [ended(chat, YES)])
    rollout = Rollout(engine, chat, EnvSpec(GUESS, {"fault": fault, "at": 2, "time_limit": 0.5}), 0)
    played = rollout.play([Start(0), Start(1)], LONG)
    again = rollout.play([Start(1), Start(2)], LONG)  # the handle starts a new process
    rollout.close()
    assert [t.outcome for t in played] == [Outcome.ERROR, Outcome.SUCCESS]
    assert message in (played[0].error or "")
    assert [t.outcome for t in again] == [Outcome.SUCCESS, Outcome.SUCCESS]


def test_more_processes_than_are_kept_at_once(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragen_lite.agents.rollout.PROCESSES", 2)
    engine = Scripted(chat, [ended(chat, YES)])
    rollout = Rollout(engine, chat, EnvSpec(GUESS, {"time_limit": 5.0}), 0)
    played = rollout.play([Start(s) for s in range(7)], LONG)
    assert [t.outcome for t in played] == [Outcome.SUCCESS] * 7 and [
        t.seed for t in played
    ] == list(range(7))
    assert len(rollout._free) == 2
    rollout.close()


def test_an_environment_that_cannot_be_made_in_its_process(chat: Chat) -> None:
    engine = Scripted(chat, [ended(chat, YES)])
    rollout = Rollout(engine, chat, EnvSpec(GUESS, {"time_limit": 5.0}), 0)
    rollout._free = [rollout.spec.open()]
    rollout._free[0]._spec = EnvSpec("ragen_lite/Nothing-v0")  # type: ignore[attr-defined]
    (t,) = rollout.play([Start(1)], LONG)
    assert t.outcome is Outcome.ERROR and "Nothing" in (t.error or "")


def test_a_prompt_that_does_not_fit(chat: Chat) -> None:
    with pytest.raises(PromptTooLong, match="engine.max_model_len=60"):
        Rollout(Scripted(chat, [ended(chat, YES)], 60), chat, EnvSpec(GUESS), 0).play(
            [Start(1)], LONG
        )
    engine = Scripted(chat, [ended(chat, YES)], 200)
    (t,) = Rollout(engine, chat, EnvSpec(GUESS), 0).play([Start(1)], LONG)
    assert (
        t.outcome is Outcome.OUT_OF_TOKENS
        and t.turns
        and t.contexts[0].token_ids[-1] == chat.end_id
    )
    t.check()


def test_what_progress_raises_leaves_the_rollout_clean(chat: Chat) -> None:
    engine = Scripted(chat, [ended(chat, YES)])

    def stop(finished: int, tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Rollout(engine, chat, EnvSpec(GUESS), 0).play([Start(1), Start(2)], LONG, stop)
    assert sorted(engine.released) == [0, 1]


def test_noise_of_an_environment_comes_from_seed_and_member(chat: Chat) -> None:
    rollout = Rollout(Scripted(chat, [ended(chat, YES)]), chat, EnvSpec(GUESS), 0)
    seen: list[Any] = []
    rollout._free = [rollout.spec.open() for _ in range(2)]
    for handle in rollout._free:
        original = handle.reset

        def reset(seed: int, options: Any, original: Any = original) -> None:
            seen.append(options)
            original(seed, options)

        handle.reset = reset  # type: ignore[method-assign]
    rollout.play([Start(1, "val", member=0), Start(1, "val", member=1)], LONG)
    assert seen == [{"split": "val", "member": 0}, {"split": "val", "member": 1}]


def test_a_record_is_plain_json(chat: Chat) -> None:
    import json

    (t,) = Rollout(Scripted(chat, [ended(chat, YES)]), chat, EnvSpec(GUESS), 0).play(
        [Start(1)], LONG
    )
    record = json.loads(json.dumps(as_record(t, [[1.0] * len(t.contexts[0].token_ids)])))
    (context,) = record["contexts"]
    assert record["outcome"] == "success" and record["returns"] == t.returns
    assert context["token_ids"] == list(t.contexts[0].token_ids)
    assert sum(context["loss_mask"]) == sum(t.contexts[0].loss_mask)
    assert context["advantages"] == [1.0] * len(t.contexts[0].token_ids)


def test_a_prefill_is_a_prompt_that_is_read_as_the_replys_beginning(chat: Chat, model: Any) -> None:
    spec = EnvSpec("ragen_lite/Countdown-v0", {"template": "mini_r1", "reward": "mini_r1"})
    engine = torch_engine(model, chat.stop_ids, 1000)
    rollout = Rollout(engine, chat, spec, run_seed=0)
    (played,) = rollout.play([Start(seed=1)], Sampling(1.0, 12))
    played.check()
    (turn,) = played.turns
    (context,) = played.contexts
    task = spec.make()
    message, info = task.reset(seed=1, options={"split": "train"})
    prefill = info["prefill"]
    assert prefill.endswith("<think>")
    prompt = chat.start(task.system, message, prefill)
    assert list(context.token_ids[: turn.start]) == prompt
    assert chat.text(prompt).endswith(prefill)
    sampled = context.token_ids[turn.start : turn.stop]
    assert turn.reply == prefill + chat.text(sampled)
    assert turn.info["rewards"].keys() == {"mini_r1_format", "accuracy"}
