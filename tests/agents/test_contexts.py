"""Several contexts a trajectory: each the exact tokens that were fed and sampled, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from ragen_lite.agents.chat import Chat
from ragen_lite.agents.contexts import (
    BadContext,
    FullContext,
    Said,
    WindowContext,
    as_messages,
    without_thought,
)
from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Outcome, Sampling, Start, Stop, Trajectory
from ragen_lite.config.schema import ModelConfig
from ragen_lite.learning.samples import to_samples
from ragen_lite.learning.scoring import scorer
from ragen_lite.models.loading import Policy, load_policy
from tests.agents.test_rollout import GUESS, LONG, NO, Scripted, ended

ROOM = EnvSpec(
    "ragen_lite/Sokoban-v0",
    {"min_cost": 20, "max_turns": 40, "max_actions_per_turn": 1, "max_actions": 40},
)


@pytest.fixture(scope="module")
def tiny() -> Policy:
    return load_policy(ModelConfig())


def shown(chat: Chat, trajectory: Trajectory) -> list[str]:
    """What each context holds before its first reply, as text."""
    texts = []
    for number, context in enumerate(trajectory.contexts):
        (_, first), *_ = trajectory.turns_of(number)
        texts.append(chat.tokenizer.decode(list(context.token_ids[: first.start])))
    return texts


def test_the_literal_prompts_of_a_window(chat: Chat) -> None:
    """Four turns, one of them shown: the first two share a context, the others have their own."""
    cut = (chat.plain("<think>Up Up"), Stop.LENGTH)
    engine = Scripted(chat, [ended(chat, NO), cut, ended(chat, NO), ended(chat, NO)])
    (t,) = Rollout(engine, chat, EnvSpec(GUESS), 0, WindowContext(turns=1)).play([Start(1)], LONG)
    t.check()
    assert [turn.context for turn in t.turns] == [0, 0, 1, 2]
    assert [turn.cut for turn in t.turns] == [False, True, False, False]
    # What was sampled stands in the history as it was, not trained on; a cut reply is closed.
    assert t.contexts[1].token_ids[: len(t.contexts[1].token_ids)].count(chat.end_id) == 5
    texts = shown(chat, t)
    assert [text.count("<|im_start|>user\n") for text in texts] == [1, 2, 2]
    assert "<|im_start|>assistant\n<think>Up Up<|im_end|>\n<|im_start|>user\n" in texts[1]
    assert all(text.startswith("<|im_start|>system\nReach the goal") for text in texts)
    assert "Turn 2:" in texts[1] and "Turn 1:" not in texts[1] and "Turn 4:" in texts[2]
    # The engine was told to forget before each prompt that does not go on.
    assert engine.released == [0, 0, 0]
    assert [len(r.token_ids) for r in engine.requests][2:] == [
        t.turns[2].start,
        t.turns[3].start,
    ]


def test_dropped_thoughts_leave_the_replies_as_sampled(chat: Chat) -> None:
    reply = "<think>Up Up</think>\n<answer>No</answer>"
    engine = Scripted(chat, [ended(chat, reply)] * 4)
    rule = FullContext(thoughts="drop")
    (t,) = Rollout(engine, chat, EnvSpec(GUESS), 0, rule).play([Start(1)], LONG)
    t.check()
    assert len(t.contexts) == len(t.turns) == 4
    assert (
        "<think>Up" not in shown(chat, t)[3] and shown(chat, t)[3].count("<answer>No</answer>") == 3
    )
    for turn in t.turns:
        ids = t.contexts[turn.context].token_ids[turn.start : turn.stop]
        assert chat.text(ids) == reply
    answer = tuple(chat.plain("<answer>No</answer>"))
    assert without_thought(chat, Said("?", tuple(chat.plain(NO)))) == Said("?", answer)
    # A thought that the prefill has begun goes with its beginning.
    rest = tuple(chat.plain("No.</think><answer>No</answer>"))
    assert without_thought(chat, Said("?", rest, "<think>")) == Said("?", answer)
    assert without_thought(chat, Said("?", (7, 8), "So: ")) == Said("?", (7, 8), "So: ")


def test_a_window_over_all_turns_is_the_whole_conversation(tiny: Policy) -> None:
    starts = [Start(1, member=m) for m in range(2)]
    played = []
    for rule in (None, FullContext(), WindowContext(turns=100)):
        engine = TorchEngine(EngineSetup(tiny.model, tiny.chat.stop_ids, 800))
        rollout = Rollout(engine, tiny.chat, EnvSpec("ragen_lite/Sokoban-v0"), 5, rule)
        played.append(rollout.play(starts, Sampling(1.0, 32)))
    assert played[0] == played[1] == played[2]


def test_a_game_of_forty_turns_is_exact_and_its_prompts_stay_bounded(tiny: Policy) -> None:
    """Every context's log-probs are the learner's, whatever else is in the batch; none grows."""
    starts = [Start(seed) for seed in range(4)]

    def play(slots: int, wanted: list[Start]) -> list[Trajectory]:
        engine = TorchEngine(EngineSetup(tiny.model, tiny.chat.stop_ids, 700, slots))
        return Rollout(engine, tiny.chat, ROOM, 3, WindowContext(turns=2)).play(
            wanted, Sampling(1.0, 24)
        )

    played = play(256, starts)
    # The draws of a turn are its own: fewer slots, or fewer trajectories, change nothing.
    alone = play(1, starts[1:2])
    assert [turn.reply for turn in alone[0].turns] == [turn.reply for turn in played[1].turns]
    assert max(len(t.turns) for t in played) > 20
    score = scorer(tiny.model, 1.0)
    for trajectory in played:
        trajectory.check()
        assert trajectory.outcome is not Outcome.OUT_OF_TOKENS
        starts_at = [turn.start for turn in trajectory.turns]
        assert max(starts_at) < 600
        blank = [np.zeros(len(context.token_ids)) for context in trajectory.contexts]
        samples = to_samples(trajectory, blank)
        for sample, found in zip(samples, score(samples), strict=True):
            drawn = sample.behaviour_logprobs[sample.loss_mask]
            assert np.abs(found - drawn).max() < 1e-4


def test_the_same_game_does_not_fit_a_growing_context(tiny: Policy) -> None:
    engine = TorchEngine(EngineSetup(tiny.model, tiny.chat.stop_ids, 700))
    played = Rollout(engine, tiny.chat, ROOM, 3).play([Start(s) for s in range(2)], Sampling(1, 24))
    assert any(t.outcome is Outcome.OUT_OF_TOKENS for t in played)


def test_a_server_is_sent_the_same_window() -> None:
    said = [("a", "<think>x</think>\n1"), ("b", "<think>y</think>2")]
    found = as_messages(WindowContext("drop", 1), "s", said, "c")
    assert [(m["role"], m["content"]) for m in found] == [
        ("system", "s"),
        ("user", "b"),
        ("assistant", "2"),
        ("user", "c"),
    ]
    assert [m["content"] for m in as_messages(WindowContext(turns=0), "s", said, "c")] == ["s", "c"]


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(BadContext, match="turns"):
        WindowContext(turns=-1)
    with pytest.raises(BadContext, match="choose one of keep, drop"):
        FullContext(thoughts="some")


@pytest.mark.parametrize("rule", [FullContext(), WindowContext(turns=1), FullContext("drop")])
def test_a_prefill_stands_before_every_reply_of_every_prompt(rule: FullContext, chat: Chat) -> None:
    rest = "Up Up</think>\n<answer>No</answer>"
    engine = Scripted(chat, [ended(chat, rest)] * 4)
    spec = EnvSpec(GUESS, prefill="<think>")
    (t,) = Rollout(engine, chat, spec, 0, rule).play([Start(1)], LONG)
    t.check()
    assert len(t.turns) == 4 and all(turn.reply == f"<think>{rest}" for turn in t.turns)
    for turn in t.turns:
        ids = t.contexts[turn.context].token_ids
        assert chat.text(ids[: turn.start]).endswith("<|im_start|>assistant\n<think>")
        assert chat.text(ids[turn.start : turn.stop]) == rest
    whole = [chat.tokenizer.decode(list(context.token_ids)) for context in t.contexts]
    # Each reply once, with its beginning; dropped thoughts take it with them.
    shown_replies = [text.count(f"assistant\n<think>{rest}<|im_end|>") for text in whole]
    dropped = [text.count("assistant\n<answer>No</answer><|im_end|>") for text in whole]
    expected = {"FullContextkeep": [4], "WindowContextkeep": [2, 2, 2], "FullContextdrop": [1] * 4}
    assert shown_replies == expected[type(rule).__name__ + rule.thoughts]
    assert dropped == ([0, 1, 2, 3] if rule.thoughts == "drop" else [0] * len(whole))
