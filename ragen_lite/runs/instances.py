"""Which instances a step is played on: as the task draws them, or as a curriculum chooses among
those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ragen_lite.agents.answer import EnvFailure
from ragen_lite.agents.environments import EnvSpec, Handle
from ragen_lite.agents.trajectory import Group, Start, Trajectory, group_by_instance
from ragen_lite.algorithms.curriculum import Curriculum
from ragen_lite.envs.registry import short_name
from ragen_lite.envs.splits import choice_stream, task_seed
from ragen_lite.runs.summaries import difficulty_of, task_of, told_difficulty

LOOKED_AT = 200  # instances by which the kinds, and the tasks' shares, are known
MOST = 400  # instances that a step's are chosen from, or four times as many as it plays


def kind_of(task: str, difficulty: float | None) -> str:
    """The kind of an instance: its task, and how hard it is where the task says so."""
    return task if difficulty is None else f"{task} {difficulty:g}"


class Instances:
    """The seeds of a run's train instances.

    With a curriculum the kinds of instance are those among the first LOOKED_AT that the task draws.
    Of a mixture each task keeps its share; the curriculum chooses within it. A kind that is none of
    them is not asked for, and one that is asked for and not met gives way to others.

    Args:
        spec: the task.
        curriculum: chooses, or does not.
        seed: of the run.
        note: takes what a user should know.

    ``values`` are what each kind has taught, and a run's state; empty where nothing is chosen.
    """

    def __init__(
        self, spec: EnvSpec, curriculum: Curriculum, seed: int, note: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self.curriculum = curriculum
        self.seed = seed
        self.values: dict[str, float] = {}
        self._kinds: dict[str, list[str]] = {}  # of each task
        self._shares: dict[str, float] = {}  # of the tasks
        self._env: Handle | None = None
        if curriculum.active:
            self._env = spec.open()
            self._look()
            if not self.values:
                told = "tells no difficulty, or one alone: instances come as it draws them"
                note(f"{spec.id} {told}")

    def _look(self) -> None:
        """Learn which kinds there are, if there is anything to choose."""
        # No step has the number 0, so these are no step's own.
        found = [self._meet(task_seed(self.seed, 0, place), None) for place in range(LOOKED_AT)]
        met = [pair for pair in found if pair is not None]
        for task, kind in sorted(set(met)):
            self._kinds.setdefault(task, []).append(kind)
        self._shares = {t: sum(task == t for task, _ in met) / len(met) for t in self._kinds}
        if any(len(kinds) > 1 for kinds in self._kinds.values()):
            every = [kind for kinds in self._kinds.values() for kind in kinds]
            self.values = dict.fromkeys(every, self.curriculum.first)

    def _meet(self, seed: int, progress: float | None) -> tuple[str, str] | None:
        """Task and kind of the instance of a seed; None where the environment fails."""
        assert self._env is not None
        try:
            self._env.reset(seed, Start(seed, progress=progress).options)
            answer = self._env.take()
        except EnvFailure:
            return None
        task = answer.task or short_name(self.spec.id)
        return task, kind_of(task, told_difficulty(answer.info))

    def seeds(self, step: int, first: int, count: int, progress: float) -> list[int]:
        """The seeds of ``count`` groups of a step, from group number ``first`` on."""
        if not self.values:
            return [task_seed(self.seed, step, group) for group in range(first, first + count)]
        wanted = self._wanted(step, first, count)
        chosen: dict[int, int] = {}
        left: list[int] = []
        most = max(MOST, 4 * count)
        for candidate in range(most):
            if len(chosen) == count:
                break
            seed = task_seed(self.seed, step, first * most + candidate)
            met = self._meet(seed, progress)
            places = wanted.get(met[1], []) if met else []
            if places:
                chosen[places.pop(0)] = seed
            else:
                left.append(seed)
        # What is too rare to be met gives way to what was.
        return [chosen[place] if place in chosen else left.pop(0) for place in range(count)]

    def _wanted(self, step: int, first: int, count: int) -> dict[str, list[int]]:
        """The places of a step's groups, by the kind that was drawn for each."""
        probabilities: dict[str, float] = {}
        for task, kinds in self._kinds.items():
            within = self.curriculum.shares({kind: self.values[kind] for kind in kinds})
            probabilities |= {kind: self._shares[task] * within[kind] for kind in kinds}
        kinds = list(probabilities)
        rng = choice_stream(task_seed(self.seed, step, first))
        wanted: dict[str, list[int]] = {}
        for place, number in enumerate(rng.choice(len(kinds), count, p=[*probabilities.values()])):
            wanted.setdefault(kinds[number], []).append(place)
        return wanted

    def learn(self, trajectories: Sequence[Trajectory]) -> None:
        """Take what a step's trajectories taught."""
        if not self.values:
            return
        played: dict[str, list[Group]] = {}
        for group in group_by_instance(trajectories):
            member = group.trajectories[0]
            kind = kind_of(task_of(member), difficulty_of(member))
            if kind in self.values:
                played.setdefault(kind, []).append(group)
        self.values = self.curriculum.learnt(self.values, played)

    def restore(self, values: Mapping[str, float]) -> None:
        """Go on from the values that a checkpoint kept."""
        self.values = {kind: float(values.get(kind, value)) for kind, value in self.values.items()}
