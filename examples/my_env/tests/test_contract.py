"""The task keeps ragen-lite's contract: seeds, splits, budgets, and no reward for noise."""

from ragen_lite.testing import check_task


def test_the_task_keeps_the_contract() -> None:
    check_task("my_env:my_env/GuessNumber-v0")
