"""The contract of a task: ``check_task("my_package:MyEnv-v0")`` holds an environment against it.

Every task of this package passes; whoever writes one can ask the same of it in one line.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from ragen_lite.agents.environments import EnvSpec, Handle
from ragen_lite.agents.episodes import play_episode
from ragen_lite.agents.scripted import POLICIES, ScriptedPolicy
from ragen_lite.agents.trajectory import Episode, Start
from ragen_lite.envs.dialogue import Dialogue, has_solver
from ragen_lite.envs.formats import PROTOCOLS
from ragen_lite.envs.splits import SPLITS

FEW = 10  # 50 seeds must give more different instances than these
NOISE = "blah <think>"  # a reply that no format reads


@dataclass(frozen=True, slots=True)
class Task:
    """What is checked: an environment's id and its options."""

    env_id: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def make(self, protocol: str | None = None) -> Dialogue:
        """A new conversation with it."""
        return EnvSpec(self.env_id, self.kwargs, protocol).make()

    def play(self, env: Dialogue, policy: ScriptedPolicy, seed: int, split: str) -> Episode:
        """One episode of a scripted policy. Raises AssertionError where the environment fails."""
        episode = play_episode(Handle(env), self.env_id, policy, Start(seed, split))
        assert episode.error is None, f"seed {seed} of the {split} split failed: {episode.error}"
        return episode

    def instances(self, split: str, seeds: Iterable[int]) -> list[str]:
        """What each seed is: the first message, and the instance where that does not show it."""
        env = self.make()
        found = []
        for seed in seeds:
            message, _ = env.reset(seed=seed, options={"split": split})
            found.append(f"{message}\n{getattr(env.unwrapped, 'instance', '')}")
        return found


# ---- the checks ----


def gymnasium_accepts_it(task: Task) -> None:
    """``check_env`` passes, for the environment and for its conversation, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(task.make().unwrapped, skip_render_check=True)
        check_env(task.make(), skip_render_check=True)


def observations_lie_in_their_space(task: Task) -> None:
    """Messages after a reset, a readable and an unreadable reply belong to the space."""
    env = task.make()
    rng = np.random.default_rng(0)
    for seed in range(20):
        messages = [env.reset(seed=seed)[0]]
        messages.append(env.step(POLICIES["random"](env, rng))[0])
        messages.append(env.step("nonsense")[0])
        for message in messages:
            assert message in env.observation_space, f"seed {seed}: {message!r} is not in its space"


def a_seed_is_an_instance(task: Task) -> None:
    """The same seed gives the same first message, whichever member of the group asks."""
    env = task.make()
    for seed in range(30):
        alone, _ = env.reset(seed=seed, options={"split": "train"})
        member, _ = env.reset(seed=seed, options={"split": "train", "member": 7})
        assert alone == member, f"seed {seed} is {alone!r}, and then {member!r} for member 7"


def seeds_differ(task: Task) -> None:
    """Fifty seeds give more than ten instances."""
    found = len(set(task.instances("train", range(50))))
    assert found > FEW, f"50 seeds give {found} different instances only"


def no_instance_is_in_two_splits(task: Task) -> None:
    """Train, val and test share no instance."""
    seen = {split: set(task.instances(split, range(300))) for split in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = seen[first] & seen[second]
        assert not both, f"{len(both)} instances are in {first} and in {second}: {min(both)!r}"


def an_unknown_split_is_refused(task: Task) -> None:
    """``reset(options={"split": ...})`` raises ValueError for a split that is none."""
    try:
        task.make().reset(seed=0, options={"split": "tset"})
    except ValueError:
        return
    raise AssertionError("the split 'tset' is taken for one: reset must raise ValueError")


def the_solver_solves_it(task: Task) -> None:
    """The solver's line succeeds within the budgets, and gives nothing away."""
    env = task.make()
    unwrapped: Any = env.unwrapped
    if not has_solver(unwrapped) or getattr(unwrapped, "stochastic", False):
        return
    for seed in range(150):
        episode = task.play(env, POLICIES["solver"], seed, "test")
        assert episode.success, f"test seed {seed} ends as {episode.outcome} under the solver"
        regrets = [turn.regret for turn in episode.turns if turn.regret is not None]
        assert not any(regrets), f"test seed {seed}: the solver's turns have regrets {regrets}"


def the_solver_beats_the_random_policy(task: Task) -> None:
    """Over a hundred instances, by more than five; alone where chance goes on."""
    env = task.make()
    if not has_solver(env.unwrapped):
        return
    wins = {}
    for name in ("solver", "random"):
        played = [task.play(env, POLICIES[name], seed, "test") for seed in range(100)]
        wins[name] = sum(episode.success for episode in played)
    assert wins["solver"] > wins["random"] + 5, f"of 100: {wins}"


def noise_is_never_better_than_an_honest_try(task: Task) -> None:
    """Unreadable replies earn no more than the worst random episode that failed."""
    env = task.make()
    honest: dict[str | None, float] = {}  # by task, of a mixture
    noise: dict[str | None, float] = {}
    for seed in range(60):
        tried = task.play(env, POLICIES["random"], seed, "train")
        label = tried.turns[-1].task
        if not tried.success:
            honest[label] = min(honest.get(label, math.inf), tried.returns)
        nothing = task.play(env, lambda env, rng: NOISE, seed, "train")
        noise[label] = max(noise.get(label, -math.inf), nothing.returns)
    for label, worst in honest.items():
        assert noise[label] <= worst + 1e-9, (
            f"noise earns {noise[label]:g}, an honest failure {worst:g}: raise turn_penalty"
        )


def an_unreadable_turn_costs_as_much_as_a_readable_one(task: Task) -> None:
    """It earns no more than the best of the lower half of random first turns."""
    env = task.make()
    rewards = []
    for seed in range(30):
        env.reset(seed=seed)
        rewards.append(env.step(POLICIES["random"](env, np.random.default_rng(seed)))[1])
    env.reset(seed=0)
    unreadable = env.step(NOISE)[1]
    usual = max(reward for reward in rewards if reward <= np.median(rewards))
    assert unreadable <= usual, f"an unreadable turn earns {unreadable}, a readable one {usual}"


def what_is_written_is_read_back(task: Task) -> None:
    """``Dialogue.read`` gives the actions that ``Dialogue.write`` wrote, in every format."""
    for protocol in [None] if getattr(task.make().unwrapped, "conversation", 0) else PROTOCOLS:
        env = task.make(protocol)
        env.reset(seed=1)
        unwrapped: Any = env.unwrapped
        actions = env.guess(np.random.default_rng(0))
        if hasattr(unwrapped, "demonstrate"):
            _, actions = unwrapped.demonstrate(np.random.default_rng(0))
        reply = env.write("a thought", actions)
        assert env.read(reply) == actions, f"{protocol}: {reply!r} is read as {env.read(reply)}"


def the_teacher_is_readable(task: Task) -> None:
    """No reply of the task's teacher is unreadable."""
    env = task.make()
    for seed in range(40):
        episode = task.play(env, POLICIES["teacher"], seed, "train")
        for turn in episode.turns:
            assert turn.unreadable is None, f"seed {seed}: {turn.reply!r}: {turn.unreadable}"


def instructions_name_the_budgets(task: Task) -> None:
    """The system prompt says how many turns and actions there are, where there are several."""
    env = task.make()
    assert len(env.system) > 20, f"the system prompt is {env.system!r}"
    if env.max_actions_per_turn > 1:
        for number in (env.max_turns, env.max_actions_per_turn, env.max_actions):
            assert str(number) in env.system, f"{number} is not in {env.system!r}"


def it_pickles_with_its_state(task: Task) -> None:
    """A pickled copy goes on as the original does."""
    env = task.make()
    env.reset(seed=3)
    twin = pickle.loads(pickle.dumps(env))  # noqa: S301  (our own bytes)
    reply = POLICIES["solver"](env, np.random.default_rng(0))
    assert twin.step(reply) == env.step(reply), "a pickled copy answers otherwise"


def another_process_agrees(task: Task) -> None:
    """Another process makes the same instances of the same seeds, and loads no torch for it."""
    assert in_another_process([task])[0] == _first_messages(task)


CHECKS: dict[str, Callable[[Task], None]] = {
    check.__name__: check
    for check in (
        gymnasium_accepts_it,
        observations_lie_in_their_space,
        a_seed_is_an_instance,
        seeds_differ,
        no_instance_is_in_two_splits,
        an_unknown_split_is_refused,
        the_solver_solves_it,
        the_solver_beats_the_random_policy,
        noise_is_never_better_than_an_honest_try,
        an_unreadable_turn_costs_as_much_as_a_readable_one,
        what_is_written_is_read_back,
        the_teacher_is_readable,
        instructions_name_the_budgets,
        it_pickles_with_its_state,
        another_process_agrees,
    )
}


def check_task(env_id: str, **kwargs: Any) -> None:
    """Hold an environment against the contract.

    Args:
        env_id: as ``gymnasium.make`` takes it, such as ``my_package:MyEnv-v0``.
        kwargs: options of its constructor.

    Raises:
        AssertionError: it names every check that fails, and what came.
    """
    task = Task(env_id, kwargs)
    failures = []
    for name, check in CHECKS.items():
        try:
            check(task)
        except Exception as error:  # whatever an environment raises
            failures.append(f"{name.replace('_', ' ')}: {type(error).__name__}: {error}")
    if failures:
        raise AssertionError("\n".join([f"{env_id} breaks the contract:", *failures]))


# ---- another process ----


def _first_messages(task: Task) -> list[str]:
    env = task.make()
    return [env.reset(seed=seed, options={"split": "train"})[0] for seed in range(30)]


def in_another_process(tasks: list[Task]) -> list[list[str]]:
    """The first messages of thirty seeds of each task, made by one process of their own.

    Raises AssertionError where it fails, or where a task loads torch.
    """
    code = (
        "import json, sys; from ragen_lite.testing import Task, _first_messages\n"
        "tasks = [Task(*fields) for fields in json.loads(sys.argv[1])]\n"
        "print(json.dumps([_first_messages(task) for task in tasks]))\n"
        "sys.exit('a task imports torch' if 'torch' in sys.modules else 0)"
    )
    fields = json.dumps([[task.env_id, task.kwargs] for task in tasks])
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": paths}
    line = [sys.executable, "-W", "ignore", "-c", code, fields]
    result = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-1000:]
    found: list[list[str]] = json.loads(result.stdout.splitlines()[-1])
    return found


def vector_env_agrees(task: Task) -> None:
    """It runs in Gymnasium's AsyncVectorEnv, in processes that are spawned."""
    vector = gym.vector.AsyncVectorEnv([task.make] * 2, shared_memory=False, context="spawn")
    try:
        messages, _ = vector.reset(seed=[1, 2])
        expected = [task.make().reset(seed=seed)[0] for seed in (1, 2)]
        assert list(messages) == expected, f"{list(messages)}, not {expected}"
        vector.step(("blah", "blah"))
    finally:
        vector.close()
