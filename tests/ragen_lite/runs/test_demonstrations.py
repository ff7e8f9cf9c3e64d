"""Demonstrations drawn ahead: the same whoever draws, in order, and an error that a reader understands."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from ragen_lite.agents.environments import EnvSpec
from ragen_lite.config.schema import ConfigError, ModelConfig
from ragen_lite.models.loading import load_policy
from ragen_lite.runs import demonstrations
from ragen_lite.runs.demonstrations import Demonstration, drawn_ahead, make_source, note_difficulty

SPEC = EnvSpec("ragen_lite/Sokoban-v0", {"max_cost": 5})


def drawn(
    spec: EnvSpec, processors: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[Demonstration]]:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    source = make_source("teacher", spec, load_policy(ModelConfig()).chat, 3, 1000)
    return list(drawn_ahead(source, range(5, 9), 2))


@pytest.mark.filterwarnings("ignore:This DataLoader")
def test_what_is_drawn_does_not_depend_on_who_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, helped = (drawn(SPEC, processors, monkeypatch) for processors in (1, 4))
    tokens = [[list(d.sample.token_ids) for d in step] for step in alone]
    assert tokens == [[list(d.sample.token_ids) for d in step] for step in helped]
    assert len({tuple(ids) for step in tokens for ids in step}) == 8
    assert {d.task for step in helped for d in step} == {"sokoban"}
    # A run that goes on from step 7 is shown what it would have been.
    source = make_source("teacher", SPEC, load_policy(ModelConfig()).chat, 3, 1000)
    assert list(source(7, 1).sample.token_ids) == tokens[2][1]
    hardest = {"sokoban": 1.0}
    for step in alone:
        for demonstration in step:
            note_difficulty(demonstration, hardest)
    assert hardest == {"sokoban": max(d.difficulty or 0 for step in alone for d in step)}


@pytest.mark.filterwarnings("ignore:This DataLoader")
def test_those_who_draw_end_with_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    source = make_source("teacher", SPEC, load_policy(ModelConfig()).chat, 3, 1000)
    ahead = drawn_ahead(source, range(1, 9), 2)
    assert len(next(ahead)) == 2 and len(multiprocessing.active_children()) == 2
    ahead.close()
    assert not multiprocessing.active_children()


@pytest.mark.filterwarnings("ignore:This DataLoader")
@pytest.mark.parametrize("processors", [1, 3])
def test_what_cannot_be_drawn_is_told(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "PolicySource", Failing)
    with pytest.raises(ConfigError, match="^no demonstration of it$"):
        drawn(SPEC, processors, monkeypatch)


class Failing:
    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, step: int, place: int) -> Demonstration:
        raise ConfigError("no demonstration of it")
