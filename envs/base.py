"""What a task declares: the attributes that Dialogue reads, and how an instance is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np

from ragen_lite.envs.splits import belongs

ActT = TypeVar("ActT")
InstanceT = TypeVar("InstanceT")
# Instances drawn at most to find one of the wanted split. The smallest splits hold 10% of all
# instances, so only a task with very few different ones can fail to find any.
DRAWS = 10_000


class TextTask(gym.Env[str, ActT], Generic[ActT]):
    """A task as a plain Gymnasium environment with text observations.

    Dialogue reads these attributes. Every one has a default, so other people's environments work
    without them.
    """

    action_space: gym.spaces.Space[Any]
    max_turns: int = 1
    """Replies an episode may have."""
    max_actions_per_turn: int = 1
    """Actions a reply may hold."""
    max_actions: int = 1
    """Actions an episode may have."""
    action_names: tuple[str, ...] = ()
    """The words for the actions of a Discrete space, in its order."""
    action_help: str = ""
    """How actions are written, for the system prompt, where their names are too many to list."""
    protocol: str = "think_answer"
    """The format of replies, a name of ``formats.PROTOCOLS``."""
    language: str = "en"
    """Of the format reminder: en or zh."""
    stochastic: bool = False
    """Whether chance goes on after the reset, so that no policy can promise success."""
    instance: str = ""
    """The present instance as text.

    Two instances that are the same are written alike. The hash of this text decides the split.
    """
    conversation: bool = False
    """Whether observations are whole messages, and actions whole replies.

    Dialogue then passes both on as they are.
    """
    mixture: bool = False
    """Whether an episode is one of several tasks, whose label its ``info`` says under ``task``."""
    prefill: str = ""
    """Text that every reply begins with.

    It is put into the prompt, unsampled, and read as the reply's beginning.
    """
    turn_penalty: float = 0.0
    """What an unreadable reply costs, in reward.

    It is at least what the cheapest readable reply costs, so that breaking the format never pays.
    """

    @property
    def instructions(self) -> str:
        """The rules, for the system prompt."""
        raise NotImplementedError

    def instance_count(self, split: str) -> int | None:
        """How many instances a split has; None where they are drawn and not listed.

        Where it is a number, consecutive seeds of a held-out split give each instance once.
        """
        return None

    @property
    def has_solver(self) -> bool:
        """Whether ``solve`` tells the best actions."""
        # Asked of the class: a task that writes a ``solve`` of its own has a solver.
        return type(self).solve is not TextTask.solve

    @property
    def difficulty(self) -> float | None:
        """How hard the present instance is, in the task's own unit; None where it does not say.

        Games count a best solution's actions, Countdown its numbers.
        """
        return None

    def reply_with(self, answer: str) -> str:
        """A whole reply that gives an answer, where ``conversation`` is true."""
        return answer

    def solve(self) -> list[ActT] | None:
        """The actions of a best solution from the present state; None where nothing solves it.

        It is asked only where ``has_solver`` is true.
        """
        raise NotImplementedError

    def demonstrate(self, rng: np.random.Generator) -> tuple[str, list[ActT]]:
        """One turn of a teacher: a thought, and the actions that follow it.

        The solver's turn, unless a task knows better; a random one where there is no solver.

        Args:
            rng: the teacher's own randomness, apart from the environment's.
        """
        # A plan of None or of no actions is a state that the solver cannot help.
        plan = self.solve() if self.has_solver else None
        return "", (plan or self.guess(rng))[: self.max_actions_per_turn]

    def wander(self, rng: np.random.Generator) -> tuple[str, list[ActT]]:
        """One turn without aim, of which supervised learning makes bad habits.

        A random turn, unless a task says otherwise.
        """
        return "", self.guess(rng)

    def guess(self, rng: np.random.Generator) -> list[ActT]:
        """One turn of the uniform random policy.

        Of a Discrete space it is as many random actions as the turn allows; of any other, one
        sample.
        """
        space: gym.spaces.Space[Any] = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            numbers = rng.integers(int(space.n), size=self.max_actions_per_turn)
            actions: list[ActT] = (int(space.start) + numbers).tolist()
            return actions
        # A space samples from a generator of its own. Seeding it makes the sample depend on
        # ``rng`` alone.
        space.seed(int(rng.integers(2**31)))
        return [space.sample()]

    def draw(
        self, split: str, make: Callable[[], InstanceT], content: Callable[[InstanceT], str]
    ) -> InstanceT:
        """Draw instances until one belongs to ``split``; ``self.instance`` is then its content.

        Args:
            split: train, val or test; ``all`` takes any instance.
            make: draws an instance from the task's own randomness.
            content: writes an instance as text. It leaves out what makes no difference, such as
                the order of the numbers, so that equal instances share a split.

        Raises:
            RuntimeError: none of 10,000 instances belongs to the split.
        """
        # Rejection: within a split the instances are distributed as ``make`` draws them.
        for _ in range(DRAWS):
            instance = make()
            self.instance = content(instance)
            if belongs(self.instance, split):
                return instance
        raise RuntimeError(
            f"no instance of the {split} split in {DRAWS:,} draws: allow more variety in the "
            "task's options"
        )
