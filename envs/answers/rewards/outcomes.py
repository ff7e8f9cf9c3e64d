"""Rewards for what an answer comes to: right, wrong, or nothing that could be either.

Sources: open-r1, SimpleRL, TinyZero (verl/utils/reward_score/countdown.py, multiply.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from ragen_lite.envs.answers.rewards.attempt import Attempt
from ragen_lite.envs.formats import last_boxed


def accuracy(attempt: Attempt) -> float | None:
    """1 right, 0 wrong; None where the gold cannot be read.

    (open-r1's accuracy_reward, SimpleRL-Zoo, DeepScaleR.)
    """
    return None if attempt.correct is None else float(attempt.correct)


def simplerl(attempt: Attempt) -> float | None:
    """1 right, -0.5 wrong, -1 without a boxed answer (SimpleRL v0)."""
    if last_boxed(attempt.reply) is None:
        return -1.0
    return None if attempt.correct is None else 1.0 if attempt.correct else -0.5


def tinyzero(attempt: Attempt) -> float:
    """1 right, 0.1 for any other answer, 0 without one (TinyZero)."""
    return 0.0 if not attempt.parsed else 1.0 if attempt.correct else 0.1


# ---- where Dialogue reads the replies ----


@dataclass(frozen=True, slots=True)
class Earned:
    """What an answer earns that Dialogue has read out of a reply.

    Attributes:
        unsaid: it says nothing that could be right.
        wrong: it could be, and is not.
        right: it is.
        penalty: what a reply costs that Dialogue cannot read.
    """

    unsaid: float
    wrong: float
    right: float
    penalty: float = 0.0


STRICT = Earned(0.0, 0.0, 1.0)
# TinyZero gives 0.1 to any text in the tags of Countdown, but asks for digits in multiplication.
TINYZERO_TEXT = Earned(0.1, 0.1, 1.0)
TINYZERO_NUMBER = Earned(0.0, 0.1, 1.0)
# 1 for the format, 1 for the equation.
MINI_R1 = Earned(1.0, 1.0, 2.0)
# Format 1 or -1, plus answer 2, -1.5 or -2.
LOGIC_RL = Earned(-1.0, -0.5, 3.0, penalty=3.0)
