"""The benchmark against TRL: what it forces on our side, which needs no TRL."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.trl_iteration import Forced
from benchmarks.trl_side import ROWS, TASKS, TOKENS, Game, replies_of
from ragen_lite.agents.engines.protocol import EngineSetup
from ragen_lite.agents.engines.torch import TorchEngine
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling, Start
from ragen_lite.config.schema import ModelConfig
from ragen_lite.envs.registry import find
from ragen_lite.models.loading import load_policy


@pytest.mark.parametrize("turns", TASKS)
def test_the_forced_replies_are_what_is_trained_on(turns: int) -> None:
    policy = load_policy(ModelConfig())
    replies = replies_of(policy, turns)
    assert replies.shape == (turns, ROWS, TOKENS)
    assert (replies[..., -1] == policy.chat.end_id).all()
    assert len({tuple(reply) for reply in replies.reshape(-1, TOKENS).tolist()}) == turns * ROWS

    task = TASKS[turns]
    spec = EnvSpec(find(task.name), dict(task.options))
    engine: Any = TorchEngine(EngineSetup(policy.model, policy.chat.stop_ids, policy.max_model_len))
    engine._draw = Forced(engine, replies)
    starts = [Start(seed=3, member=row) for row in range(2)]
    rollout = Rollout(engine, policy.chat, spec, 0)
    # Twice, as in a run: the turns of the next iteration are counted anew.
    for _ in range(2):
        both = rollout.play(starts, Sampling(1.0, TOKENS))
        assert both[0].returns < both[1].returns
        for row, played in enumerate(both):
            ids = played.contexts[0].token_ids
            spans = [list(ids[turn.start : turn.stop]) for turn in played.turns]
            assert spans == replies[:, row].tolist()


def test_a_game_for_trl_answers_as_ours_does() -> None:
    game = Game(EnvSpec(find("sokoban"), {"min_cost": 6}))
    first = game.reset(3)
    assert game.play("<think>a</think><answer>Up</answer>") != first
    assert game.reset(3) == first
