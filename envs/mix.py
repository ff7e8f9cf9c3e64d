"""Several tasks as one: mixed by weight, or one after the other as a curriculum.

Each task keeps its rules, its prompts and its budgets.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from ragen_lite.envs.base import TextTask
from ragen_lite.envs.dialogue import Dialogue, has_solver
from ragen_lite.envs.registry import check_options, find
from ragen_lite.envs.spaces import AnyText, text_space
from ragen_lite.envs.splits import requested_split

# What a task's entry may say beside the options of its constructor.
OPTIONS = ("env", "weight", "protocol", "habits")
HABITS = ("spread", "timid", "aimless", "slip")
DEFAULT = {"sokoban": 2, "frozen_lake": 1, "countdown": 1}


class Mix(TextTask[str]):
    """One of several tasks an episode, drawn by the seed; all members of a group get the same.

    Args:
        tasks: ``{name: weight}`` or ``{label: {env: name, weight: 1, protocol: null, ...}}``, every
            further entry being an option of that task; ``env`` is the label where it is left out.
            Example: ``{sokoban: 2, lake: {env: frozen_lake, size: 5}}``.
        curriculum: play the tasks in their order as training goes on, each for a share of the steps
            by its weight; evaluation still mixes them all.

    A task's ``habits`` change its teacher for supervised learning: ``spread`` (the share of its
    games that take a random number of turns, where the cost is known), ``timid`` (the share of its
    turns that stop after one action), ``aimless`` (the share that have no aim) and ``slip`` (the
    share of its actions, or of its answers, that are random).

    ``info`` is the task's own, and ``task``, its label: success is counted for each.

    Raises:
        ValueError: no task, an unknown one, a weight or a habit out of its range, or an option that
            the task does not have.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}
    # Each task has a Dialogue of its own inside, which writes its messages and reads its replies.
    # The Dialogue around the mixture passes both on as they are.
    conversation = True
    mixture = True
    protocol = "free"

    def __init__(
        self,
        tasks: dict[str, Any] | None = None,
        curriculum: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if not (tasks is None or (isinstance(tasks, dict) and tasks)):
            raise ValueError(
                f"tasks={tasks}: give names and weights, such as {{sokoban: 2, countdown: 1}}"
            )
        entries: dict[str, dict[str, Any]] = {}
        given = DEFAULT if tasks is None else tasks
        for label, entry in given.items():
            entries[label] = dict(entry) if isinstance(entry, dict) else {"weight": entry}
        self.render_mode = render_mode
        self.curriculum = curriculum
        self.labels = tuple(entries)
        # "From 0 and below infinity" is false for NaN too.
        told = [entry.get("weight", 1) for entry in entries.values()]
        fine = [isinstance(weight, (int, float)) and 0 <= weight < math.inf for weight in told]
        if not all(fine) or not sum(told):
            raise ValueError(
                f"tasks={tasks}: weights are finite numbers from 0, and one must be above 0"
            )
        weights = np.array(told, dtype=np.float64)
        self.shares = weights / weights.sum()
        self.habits: dict[str, dict[str, float]] = {}
        self.dialogues: dict[str, Dialogue] = {}
        for label, entry in entries.items():
            habits = dict(entry.get("habits") or {})
            if wrong := sorted(set(habits) - set(HABITS)):
                raise ValueError(
                    f"unknown habit {wrong[0]!r} of {label}: choose from {', '.join(HABITS)}"
                )
            shares = habits.values()
            fine = [isinstance(share, (int, float)) and 0 <= share <= 1 for share in shares]
            if not all(fine):
                raise ValueError(f"habits of {label}: {habits}: each is a share from 0 to 1")
            self.habits[label] = {habit: float(habits.get(habit, 0.0)) for habit in HABITS}
            kwargs = {name: value for name, value in entry.items() if name not in OPTIONS}
            env_id = find(entry.get("env", label))
            check_options(env_id, kwargs)
            env: gym.Env[Any, Any] = gym.make(env_id, disable_env_checker=True, **kwargs)
            self.dialogues[label] = Dialogue(env, entry.get("protocol"))
        # A first task, so that the prompt can be read before the first reset.
        parts = list(self.dialogues.values())
        self.label = self.labels[0]
        self.active = parts[0]
        self._turns: int | None = None  # over which the teacher spreads the present game
        # A reply is one action here. The largest budget never cuts a task short: each task's own
        # Dialogue ends its episodes.
        self.max_turns = self.max_actions = max(part.max_turns for part in parts)
        self.max_actions_per_turn = 1
        self.stochastic = any(getattr(part.unwrapped, "stochastic", False) for part in parts)
        seen: list[Any] = [part.observation_space for part in parts]
        self.observation_space = AnyText(max(space.max_length for space in seen))
        self.action_space = text_space(100_000)

    @property
    def instructions(self) -> str:
        """The system prompt of the present task."""
        return self.active.system

    @property
    def time_limit(self) -> float | None:
        """The longest of the tasks' time limits, in seconds; None where no task has one."""
        limits = [getattr(part.unwrapped, "time_limit", None) for part in self.dialogues.values()]
        return max((limit for limit in limits if limit), default=None)

    def _choose(self, progress: float | None) -> str:
        """The label of the task that an episode plays.

        The tasks' shares lie one after the other on the line from 0 to 1. A random place on it
        picks a task by weight; the progress of training as the place makes the curriculum.
        Evaluation has no progress, so it mixes.
        """
        # Drawn in either case, so that the instance's seed does not depend on the curriculum.
        drawn = self.np_random.random()
        place = drawn
        if self.curriculum and progress is not None:
            place = min(max(progress, 0.0), 1 - 1e-9)
        # "right": a task of weight 0 is never picked, not even at its edge. The sum of the shares
        # may be rounded to less than 1, so the last task takes what lies beyond it.
        edges = np.cumsum(self.shares)
        number = int(np.searchsorted(edges, place, "right"))
        return self.labels[min(number, len(self.labels) - 1)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a task and an instance of it; returns its first message and its info.

        Args:
            seed: of the task and of its instance.
            options: ``split``, ``member``, and ``progress``, which is how far training has come,
                from 0 to 1.
        """
        super().reset(seed=seed)
        given = {**(options or {}), "split": requested_split(options)}
        self.label = self._choose(given.get("progress"))
        self.active = self.dialogues[self.label]
        message, info = self.active.reset(seed=int(self.np_random.integers(2**31)), options=given)
        # Environments that are no TextTask name no instance; their first message stands for it.
        self.instance = f"{self.label}: {getattr(self.active.unwrapped, 'instance', '') or message}"
        return message, {**info, "task": self.label}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One reply, to the present task; ``info`` has the task's label beside its own entries."""
        message, reward, terminated, truncated, info = self.active.step(action)
        return message, reward, terminated, truncated, {**info, "task": self.label}

    def render(self) -> Any:
        """The present task's."""
        return self.active.render()

    # ---- what the scripted policies ask, answered by whole replies ----

    @property
    def has_solver(self) -> bool:
        """Whether every one of its tasks has a solver."""
        return all(has_solver(part.unwrapped) for part in self.dialogues.values())

    def solve(self) -> list[str] | None:
        """The present task's next solver turn as a reply; None where its solver has none."""
        plan = self.active.plan()
        return [self.active.write("", plan)] if plan else None

    def guess(self, rng: np.random.Generator) -> list[str]:
        """A random turn as a reply."""
        return [self.active.write("", self.active.guess(rng))]

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[str]]:
        """A teacher's turn as a reply, with the task's habits.

        The thought stands in the reply, so the first value is empty.
        """
        task: Any = self.active.unwrapped
        habits = self.habits[self.label]
        if not hasattr(task, "demonstrate"):
            return "", self.solve() or self.guess(rng)
        aimless = rng.random() < habits["aimless"]
        thought, actions = task.wander(rng) if aimless else task.demonstrate(rng)
        actions = actions[: self._pace(rng)]
        if rng.random() < habits["timid"]:
            actions = actions[:1]
        # Each action slips on its own, to the first action of a random turn.
        slipped = []
        for action in actions:
            slips = rng.random() < habits["slip"]
            slipped.append(self.active.guess(rng)[0] if slips else action)
        return "", [self.active.write(thought, slipped)]

    def _pace(self, rng: np.random.Generator) -> int | None:
        """How many actions of the plan a turn takes, where a game is spread over several turns.

        It is drawn at a game's first turn in how many turns, of all there are, it is to be won.
        """
        share = self.habits[self.label]["spread"]
        if self.active.turn == 1:
            spreads = share > 0 and rng.random() < share
            self._turns = int(rng.integers(1, self.active.max_turns + 1)) if spreads else None
        task: Any = self.active.unwrapped
        cost: float | None = getattr(task, "cost_to_go", lambda: None)()
        if self._turns is None or cost is None or math.isinf(cost):
            return None
        return math.ceil(cost / max(1, self._turns - self.active.turn + 1))
