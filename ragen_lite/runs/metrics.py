"""The names of metrics.jsonl, what each means, and those that are worked out from trajectories.

``metrics.jsonl`` has one object a step; a number that is not finite is null. A new metric of the
rollout is a function of the step's trajectories, and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragen_lite.agents.trajectory import Trajectory
from ragen_lite.envs.names import resolve
from ragen_lite.runs.summaries import reward_by_function, success_by_part


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric means, and the function of a step's trajectories that it is, if it is one."""

    doc: str
    of: str | None = None


SUMMARIES = "ragen_lite.runs.summaries"
DIAGNOSTICS = "ragen_lite.runs.diagnostics"

METRICS = {
    "rollout/success": Metric("share of trajectories that succeeded", f"{SUMMARIES}:success"),
    "rollout/success/TASK": Metric("the same on one task of a mixture"),
    "rollout/success_easy": Metric("the same on instances like those the model was shown in sft"),
    "rollout/success_hard": Metric("the same on harder instances than any it was shown"),
    "rollout/reward/NAME": Metric(
        "mean of a reward function, unweighted, where a task has several"
    ),
    "rollout/return": Metric("mean undiscounted return", f"{SUMMARIES}:mean_return"),
    "rollout/turns": Metric("turns a trajectory", f"{SUMMARIES}:mean_turns"),
    "rollout/reply_tokens": Metric("tokens a reply", f"{SUMMARIES}:mean_reply_tokens"),
    "rollout/format_errors": Metric(
        "share of turns that were unreadable", f"{SUMMARIES}:format_errors"
    ),
    "rollout/out_of_tokens": Metric(
        "share of trajectories whose next prompt did not fit the context",
        f"{SUMMARIES}:out_of_tokens",
    ),
    "rollout/errors": Metric(
        "trajectories whose environment failed (a count)", f"{SUMMARIES}:errors"
    ),
    "rollout/return_spread": Metric(
        "standard deviation of returns within a group, the mean over groups",
        f"{DIAGNOSTICS}:spread_within",
    ),
    "rollout/return_spread_across": Metric(
        "standard deviation of the groups' mean returns", f"{DIAGNOSTICS}:spread_across"
    ),
    "rollout/reply_tokens_won": Metric(
        "tokens a reply in trajectories that succeeded", f"{DIAGNOSTICS}:tokens_won"
    ),
    "rollout/reply_tokens_lost": Metric("in those that did not", f"{DIAGNOSTICS}:tokens_lost"),
    "rollout/readable_failures": Metric(
        "share of trajectories that were readable throughout, and failed",
        f"{DIAGNOSTICS}:readable_failures",
    ),
    "rollout/reflection": Metric(
        "share of replies with a keyword of reflection", f"{DIAGNOSTICS}:reflection"
    ),
    "rollout/repetition": Metric(
        "share of a reply's runs of four tokens that stood in it before",
        f"{DIAGNOSTICS}:repetition",
    ),
    "rollout/kept_groups": Metric("share of groups that are learnt from"),
    "rollout/cut_replies": Metric(
        "share of replies that were ended by their length", f"{DIAGNOSTICS}:cut_replies"
    ),
    "rollout/tokens": Metric("tokens sampled (a count)", f"{SUMMARIES}:tokens_sampled"),
    "rollout/tokens_per_second": Metric("tokens sampled a second"),
    "rollout/prefix_hits": Metric(
        "share of the tokens of earlier turns (in whole blocks) that vLLM's cache still held"
    ),
    "rollout/engine_restarts": Metric("times the engine failed and was built again (a count)"),
    "rollout/lost_players": Metric("engines of the run that were lost and started again (a count)"),
    "rollout/age": Metric("steps between the weights that sampled the batch and those that learn"),
    "eval/success": Metric("success on instances of the val split, sampled"),
    "eval/success/TASK": Metric("the same on one task of a mixture"),
    "eval/success_easy": Metric("the same on instances like those the model was shown in sft"),
    "eval/success_hard": Metric("the same on harder instances than any it was shown"),
    "eval/success_low": Metric("lower end of its 95% Wilson interval"),
    "eval/success_high": Metric("upper end"),
    "eval/greedy_success": Metric("the same at temperature 0"),
    "eval/random_success": Metric("the uniform random policy on the same instances"),
    "eval/solver_success": Metric("the solver on the same instances"),
    "eval/prompt_information": Metric(
        "mutual information of first prompts and replies, in nats: 0 where all get the same reply"
    ),
    "train/loss": Metric(
        "as minimised; the mean over the step's optimiser steps, as all of train/"
    ),
    "train/grad_norm": Metric("before clipping"),
    "train/grad_norm_wide": Metric(
        "of the quarter of groups whose returns differ most, after the step; where val is evaluated"
    ),
    "train/grad_norm_narrow": Metric("of the quarter whose returns differ least, but differ"),
    "train/clip_fraction": Metric("share of tokens whose ratio was clipped"),
    "train/entropy": Metric("nats a token"),
    "train/kl": Metric("to the reference model, where there is one, in nats a token"),
    "train/logprob_gap": Metric(
        "largest |learner - engine| log-prob of the first optimiser step, before any update; with "
        "train.staleness that of the older weights is in it"
    ),
    "train/mismatch_kl": Metric("KL(engine || learner) of the same tokens (k3), nats a token"),
    "train/correction": Metric("mean importance weight, with a correction"),
    "train/value_loss": Metric("of the critic, where there is one"),
    "train/explained_variance": Metric(
        "share of the variance of the critic's targets that its values explain"
    ),
    "train/padding": Metric("share of padding among the positions computed"),
    "train/skipped": Metric("optimiser steps skipped for a number that is none (a count)"),
    "train/lr": Metric("learning rate"),
    "train/microbatch_tokens": Metric("tokens of a micro-batch, halved where they did not fit"),
    "train/probe_gap": Metric(
        "mean |learner - engine| log-prob of the canary's probe after the weights were handed over"
    ),
    "time/rollout_s": Metric("seconds of sampling"),
    "time/update_s": Metric("seconds of learning"),
    "time/sync_s": Metric("seconds of handing the weights to the engine and probing it"),
    "time/eval_s": Metric("seconds of playing held-out instances, the first test among them"),
    "time/overlap_s": Metric("seconds of the step in which sampling and learning went on at once"),
    "time/player_idle": Metric("share of the step in which nothing was sampled"),
    "time/learner_idle": Metric("share of the step in which nothing was learnt"),
}


def rollout_metrics(
    trajectories: Sequence[Trajectory], demonstrated: Mapping[str, float]
) -> dict[str, float]:
    """The metrics of METRICS that follow from a step's trajectories; 0 for one that has none."""
    found = {name: resolve(m.of)(trajectories) for name, m in METRICS.items() if m.of}
    parts = success_by_part("rollout", trajectories, demonstrated)
    parts |= reward_by_function("rollout", trajectories)
    return {name: 0.0 if v is None else v for name, v in found.items()} | parts
