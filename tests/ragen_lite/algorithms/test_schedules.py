"""What replies earn at their length, which groups are refilled, stages, and when a run has had enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragen_lite.agents.trajectory import Group, Outcome
from ragen_lite.algorithms.advantages import DrGRPO
from ragen_lite.algorithms.filters import MixedOutcomes
from ragen_lite.algorithms.kl import K1, K3
from ragen_lite.algorithms.options import BadOption
from ragen_lite.algorithms.overlong import KeepCut, MaskCut, Overlong, ZeroCut
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import ConfigError
from ragen_lite.config.stages import Stage, stage_at, stages_of
from ragen_lite.learning.credit import give_credit, passing
from ragen_lite.learning.mini_batches import MiniBatches, optimiser_steps
from ragen_lite.learning.samples import to_samples
from ragen_lite.learning.shaping import shaped
from ragen_lite.runs.ending import why_enough
from tests.fixtures.commands import run
from tests.fixtures.making import trajectory, turn
from tests.fixtures.runs import SMALL, folder, records, rows

# Replies of 4, 8 and 10 tokens, the last one cut.
LONG = trajectory(
    [turn(1, 5, 1.0), turn(6, 14, -0.5), turn(15, 25, 2.0, cut=True)], 25, Outcome.SUCCESS
)


@pytest.mark.parametrize(
    ("rule", "rewards"),
    [
        (KeepCut(), [1, -0.5, 2]),
        # Of the last 4 tokens of 10: none over, 2 over, 4 over.
        (KeepCut(buffer=4), [1, -1, 1]),
        (KeepCut(buffer=4, penalty=3), [1, -2, -1]),
        (ZeroCut(), [0, -0.5, 0]),
        (ZeroCut(buffer=4), [0, -1, -1]),
        (MaskCut(), [1, -0.5, 2]),
    ],
    ids=["keep", "buffer", "penalty", "zero", "zero_buffer", "mask"],
)
def test_what_replies_earn(rule: Overlong, rewards: list[float]) -> None:
    (group,) = shaped([Group((LONG,))], rule, 10)
    (counted,) = group.trajectories
    assert [t.reward for t in counted.turns] == pytest.approx(rewards)
    # The record keeps what the environment gave, and the tokens.
    assert LONG.returns == 2.5 and counted.contexts is LONG.contexts


def test_a_trajectory_that_was_not_cut_keeps_its_rewards() -> None:
    whole = trajectory([turn(1, 5, 1.0)], 5, Outcome.SUCCESS)
    assert ZeroCut().rewards(whole, 4) == [1.0]


def test_a_masked_reply_is_not_trained_on_and_stays_in_the_baseline() -> None:
    lost = trajectory([turn(1, 5, 0.5)], 5, Outcome.FAILURE)
    group = Group((LONG, lost))
    credited = give_credit([group], DrGRPO(), [True])
    (masked,) = credited[0].samples(True, MaskCut())
    (kept,) = credited[0].samples(True)
    assert kept.trained == 22 and masked.trained == 12 and not masked.loss_mask[15:].any()
    assert masked.advantages[1] == kept.advantages[1] == 1.0
    only_cut = trajectory([turn(1, 5, 0.5, cut=True)], 5, Outcome.FAILURE)
    (first, *_) = give_credit([Group((only_cut, lost))], DrGRPO(), [True])
    assert first.samples(True, MaskCut()) == []


def test_costs_of_tokens_are_charged_to_their_turn() -> None:
    cost = np.arange(25) / 100
    (group,) = shaped([Group((LONG,))], KeepCut(), 10, [cost])
    charged = [t.reward for t in group.trajectories[0].turns]
    assert charged == pytest.approx([1 - 0.10, -0.5 - 0.76, 2 - 1.95])


def test_where_and_when_the_kl_counts() -> None:
    loss, reward = K3(coef=0.2, start=3), K1(coef=0.2, place="reward", start=3)
    assert [loss.coef_in_loss(i) for i in (2, 3)] == [0, 0.2] and loss.coef_in_reward(3) == 0
    assert [reward.coef_in_reward(i) for i in (2, 3)] == [0, 0.2] and reward.coef_in_loss(3) == 0
    with pytest.raises(BadOption, match="nothing with kl.place=reward"):
        K1(place="reward", unbiased=True)
    with pytest.raises(BadOption, match="choose one of loss, reward"):
        K1(place="there")


def test_the_first_groups_that_passed_fill_the_batch() -> None:
    won, lost = LONG, trajectory([turn(1, 5, 0.0)], 5, Outcome.FAILURE)
    mixed, solved = Group((won, lost)), Group((won, won))
    groups = [solved, mixed, mixed, solved, mixed]
    assert passing(groups, MixedOutcomes(), 2) == [False, True, True, False, False]
    assert passing(groups, MixedOutcomes()) == [False, True, True, False, True]


def test_the_samples_of_a_trajectory_stay_together() -> None:
    """Three trajectories, of one, two and one contexts: with ``sequence`` all weigh the same."""
    one = to_samples(LONG, [np.zeros(25)])
    cut = MiniBatches(epochs=1, count=3, aggregation="sequence", constant=1, seed=(0,))
    batches = list(optimiser_steps([one, one + one, one], cut))
    assert sorted(len(batch) for batch, _ in batches) == [1, 1, 2]
    for batch, weights in batches:
        total = sum(s.trained * w for s, w in zip(batch, weights, strict=True))
        assert total == pytest.approx(1)


# ---- stages and ends ----


def test_stages_keep_what_they_do_not_name() -> None:
    line = "train.stages=[{from: 3, max_tokens: 64}, {from: 5, group_size: 16, groups: 2}]"
    stages = stages_of(compose([line, "train.groups=4", "train.group_size=8"]))
    assert stages == [Stage(1, 4, 8, 96), Stage(3, 4, 8, 64), Stage(5, 2, 16, 64)]
    assert [stage_at(stages, step).start for step in (1, 2, 3, 4, 9)] == [1, 1, 3, 3, 5]


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ("[{max_tokens: 4}]", "give from, and of groups"),
        ("[{from: 4, size: 4}]", "give from, and of groups"),
        ("[{from: 1}]", "must begin after iteration 1"),
        ("[{from: 3}, {from: 3}]", "must begin after iteration 3"),
        ("[{from: 3, groups: 0}]", "sizes above 0"),
        ("[{from: 3, group_size: 1}]", "a group of one has no baseline"),
        ("[{from: 300}]", "one begins at 300, and the run ends at train.steps=80"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        compose([f"train.stages={stages}"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("algo=maxrl kl=k1 kl.place=reward", "kl.place=reward makes returns below 0"),
        ("algo=oracle overlong=zero", "overlong=zero does nothing with credit=oracle"),
        ("overlong.buffer=4096", "every one would be charged"),
        ("overlong.penalty=2", "does nothing without overlong.buffer"),
        ("algo=ppo critic.warmup=80", "critic.warmup=80: the run has no more"),
        ("kl=k3 kl.start=81", "kl.start=81: the run has no more"),
        ("eval.patience=2 eval.every=0", "eval.patience=2 does nothing"),
        ("train.tokens=0", "train.tokens=0: it must be above 0"),
        ("credit=reinforce_pp credit.baseline=true train.group_size=1 filter=none", "no baseline"),
    ],
)
def test_what_would_do_nothing_is_refused(line: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        compose(line.split())


def test_a_group_may_be_of_one_where_members_are_not_compared() -> None:
    for credit in ("rebn", "reinforce", "reinforce_pp", "oracle"):
        compose([f"credit={credit}", "filter=none", "train.group_size=1"])


def test_why_a_run_has_had_enough() -> None:
    made = [{"eval/success": s, "rollout/tokens": 10.0} for s in (0.2, 0.4, 0.3, 0.4)]
    assert why_enough(made) is None and why_enough(made, tokens=41, patience=3) is None
    assert "40 tokens were sampled, and train.tokens=40" in str(why_enough(made, tokens=40))
    assert "40.0%, is 2 evaluations ago" in str(why_enough(made, patience=2))
    assert why_enough([], 5, 1) is None


@pytest.mark.slow
def test_stages_refills_and_ends_in_a_run(tmp_path: Path) -> None:
    line = [*SMALL, "filter=spread", "filter.refill=2", "train.steps=9", "eval.every=0"]
    line += ["train.stages=[{from: 2, max_tokens: 40, group_size: 6}]", "train.tokens=2000"]
    result = run("train", *line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "and train.tokens=2000" in result.words
    made = folder(tmp_path)
    done = rows(made)
    assert sum(row.get("rollout/tokens", 0) for row in done) >= 2000
    assert len(done) < 10 and (made / "after.json").exists()
    assert (made / "checkpoints" / f"step-{done[-1]['step']}").is_dir()
    for step, size, longest in ((1, 4, 24), (2, 6, 40)):
        found = records(made, step)
        members = {r["group"]: [x for x in found if x["group"] == r["group"]] for r in found}
        assert all(len(group) == size for group in members.values()) and len(members) % 3 == 0
        replies = [turn["reply_tokens"] for r in found for turn in r["turns"]]
        assert max(replies) <= longest
        kept = [g for g, group in members.items() if group[0]["contexts"][0]["advantages"]]
        assert len(kept) <= 3
