"""What is learnt on instances harder than any that was demonstrated: by reinforcement learning, and by more supervision.

python -m benchmarks.generalise sokoban --model FOLDER [--seeds 3] [--jobs 2] [FLAG=VALUE ...]

The base is a model that was taught easy instances only (recipe=tiny). From it there are several ways on: ``rl``, the task's run
of ``ragen_lite.train`` with the flags given; ``rl_easy`` and ``rl_hard``, the same on easy or on hard instances only; and the
control, more supervised learning on the recipe's own easy demonstrations, with as many tokens through forward and backward as
``rl`` of that seed (``--lr`` may name several learning rates). Each then plays the same test instances, easy and hard. What is
finished in --folder is kept. ``--control MODEL`` writes what the best control of the first seed makes of the task, as
``ragen_lite.train`` plays it, into the base's folder, where that finds it.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.difficulty_table import KINDS, Wins, table
from ragen_lite.agents.environments import EnvSpec
from ragen_lite.agents.rollout import Rollout
from ragen_lite.agents.trajectory import Sampling
from ragen_lite.config.command_line import compose
from ragen_lite.config.schema import EngineConfig, ModelConfig
from ragen_lite.envs.registry import find
from ragen_lite.learning import generation
from ragen_lite.learning.checkpoint_files import digest, steps
from ragen_lite.learning.players import LocalPlayer
from ragen_lite.models.folders import source_of
from ragen_lite.models.loading import Policy, load_policy
from ragen_lite.runs.control import WEIGHTS, write_control
from ragen_lite.runs.demonstrations import PolicySource
from ragen_lite.runs.evaluation import Evaluator, make_spec
from ragen_lite.runs.summaries import as_measurement

RECIPE = Path(__file__).parents[1] / "configs" / "recipe" / "tiny.yaml"
DIFFICULTIES = ("easy", "hard")
OPTIONS_OF = {"rl_easy": "easy", "rl_hard": "hard"}  # by the way on, which instances it has
BATCH = (16, 4)  # groups and group size of the control, as in the recipe: 64 demonstrations
DRAWN = 400  # demonstrations by which their length is known, to about 1%
SAMPLING = Sampling(1.0, 96)


@dataclass(frozen=True)
class Study:
    """What is compared, and where it is kept.

    Attributes:
        task: by its short name.
        entry: the recipe's entry of the task, its easy options and habits among it.
        model: the base.
        flags: further ones of reinforcement learning.
        rates: learning rates of the control.
        instances: of each difficulty.
        folder: of all runs.
        threads: of each run.
    """

    task: str
    entry: dict[str, Any]
    model: str
    flags: tuple[str, ...]
    rates: tuple[str, ...]
    instances: int
    folder: Path
    threads: int

    @property
    def easy(self) -> dict[str, int]:
        """The task's options that keep it easy: the recipe's."""
        return {key: value for key, value in self.entry.items() if key.startswith("max_")}

    @property
    def hard(self) -> dict[str, int]:
        """Those that leave out what is easy."""
        return {f"min_{key.removeprefix('max_')}": most + 1 for key, most in self.easy.items()}

    def ways(self) -> list[str]:
        """The ways on from the base."""
        return ["rl", *OPTIONS_OF, *(f"control_{rate}" for rate in self.rates)]

    def begin(self) -> None:
        """Make the folder. Raises SystemExit where it holds what other weights or flags made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = Path(source_of(self.model)) / WEIGHTS
        own = {
            "weights": digest(weights) if weights.is_file() else self.model,
            "flags": list(self.flags),
            "instances": self.instances,
        }
        path = self.folder / "study.json"
        if path.exists() and (kept := json.loads(path.read_text())) != own:
            sys.exit(f"{self.folder} was made with {kept}, not {own}: take another --folder")
        path.write_text(json.dumps(own))

    def run(self, way: str, seed: int, first: Callable[[], object] | None = None) -> Path:
        """The last checkpoint of one way on; it is trained, after ``first``, where it is not yet."""
        name = f"{way}-{seed}"
        if first is not None:
            first()
        if not list(self.folder.glob(f"*-{name}/finished")):
            command, line = self.line(way, seed)
            line += [f"run.dir={self.folder}", f"run.name={name}", "run.resume=auto"]
            with (self.folder / f"{name}.log").open("a") as log:
                subprocess.run(
                    [sys.executable, "-m", f"ragen_lite.{command}", *line],
                    stdout=log, stderr=subprocess.STDOUT, check=True,
                    env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                )  # fmt: skip
            (made := self.made(name)).joinpath("finished").touch()
            print(f"{made.name} is trained", flush=True)
        return steps(self.made(name) / "checkpoints")[0][1]

    def made(self, name: str) -> Path:
        """The folder of a run that was begun."""
        return max(self.folder.glob(f"*-{name}/metrics.jsonl")).parent

    def line(self, way: str, seed: int) -> tuple[str, list[str]]:
        """Command and flags of a way on."""
        shared = [
            f"model.path={self.model}",
            "eval.every=0",
            "eval.instances=8",
            "run.save_every=20",
        ]
        if not way.startswith("control"):
            only: dict[str, int] = getattr(self, OPTIONS_OF.get(way, ""), {})
            options = [f"{key}={value}" for key, value in only.items()]
            return "train", [f"env={self.task}", *options, f"seed={seed}", *shared, *self.flags]
        demonstrations = self.tokens(seed) / self.demonstration_tokens
        groups, size = BATCH
        return "sft", [
            "env=mix", f"env.kwargs.tasks={as_flag({self.task: self.entry})}", "sample.max_tokens=96",
            # No seed of the recipe: demonstrations that the base has not seen.
            f"seed={1000 + seed}", f"train.groups={groups}", f"train.group_size={size}", "train.mini_batches=1",
            f"train.steps={max(1, round(demonstrations / (groups * size)))}", "train.warmup=2", "train.schedule=linear",
            f"train.lr={way.removeprefix('control_')}", *shared,
        ]  # fmt: skip

    def tokens(self, seed: int) -> int:
        """How many tokens went through the learner in ``rl`` of a seed."""
        return learnt_tokens(self.made(f"rl-{seed}"))

    @cached_property
    def demonstration_tokens(self) -> float:
        """The mean length of a demonstration, in tokens."""
        chat = load_policy(ModelConfig(self.model, dtype="float32")).chat
        spec = EnvSpec(find("mix"), {"tasks": {self.task: self.entry}})
        source = PolicySource("teacher", spec, chat, 0)
        return float(np.mean([len(source(1, place).sample.token_ids) for place in range(DRAWN)]))

    def measured(self, name: str, checkpoint: str) -> dict[str, Wins]:
        """Success on the test instances of each difficulty, of a model that may be measured already."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            found = {d: play_model(checkpoint, self.spec(d), self.instances) for d in DIFFICULTIES}
            path.write_text(json.dumps(found))
        kept: dict[str, Wins] = json.loads(path.read_text())
        return kept

    def spec(self, difficulty: str) -> EnvSpec:
        """The task at a difficulty."""
        return EnvSpec(find(self.task), dict(self.easy if difficulty == "easy" else self.hard))


def write_best_control(study: Study, model: str) -> Path:
    """The best of the first seed's controls, as ``train`` measures, into a model's folder."""
    config = compose([f"env={study.task}"])
    sampling = Sampling(config.sample.temperature, config.sample.max_tokens)
    found: list[tuple[Evaluator, dict[str, Any]]] = []
    for rate in study.rates:
        policy = load_policy(ModelConfig(str(study.run(f"control_{rate}", 0))))
        with playing(policy, make_spec(config.env), sampling) as evaluator:
            played = evaluator.both("test", config.eval.instances)
        found.append((evaluator, as_measurement(played, policy.demonstrated)))
    evaluator, best = max(found, key=lambda each: float(each[1]["rows"]["sampled"]["success"]))
    command = shlex.join(["python", "-m", "benchmarks.generalise", *sys.argv[1:]])
    return write_control(model, evaluator, best, command)


def as_flag(value: Any) -> str:
    """A dictionary of numbers as the command line takes it, where keys have no quotes.

    >>> as_flag({"sokoban": {"max_cost": 6}})
    '{sokoban:{max_cost:6}}'
    """
    if not isinstance(value, dict):
        return str(value)
    return "{" + ",".join(f"{key}:{as_flag(entry)}" for key, entry in value.items()) + "}"


def learnt_tokens(run: Path) -> int:
    """Tokens of the trajectories that a run learnt from, as often as it did."""
    epochs = yaml.safe_load((run / "config.yaml").read_text())["train"]["epochs"]
    found = 0
    for path in (run / "trajectories").iterdir():
        for line in gzip.decompress(path.read_bytes()).splitlines():
            for context in json.loads(line)["contexts"]:
                found += len(context["token_ids"]) if context["advantages"] is not None else 0
    return int(found * epochs)


@contextlib.contextmanager
def playing(policy: Policy, spec: EnvSpec, sampling: Sampling = SAMPLING) -> Iterator[Evaluator]:
    """What measures a model on a task."""
    chosen = generation.resolve(EngineConfig()).config
    engine, sync = generation.start_engine(chosen, policy, sampling.temperature)
    player = LocalPlayer(Rollout(engine, policy.chat, spec, 0), sync)
    with contextlib.closing(player):
        yield Evaluator(player, sampling)


def play_model(path: str, spec: EnvSpec, instances: int) -> Wins:
    """A model's success on test instances, sampled at temperature 1 and greedy."""
    with playing(load_policy(ModelConfig(path)), spec) as evaluator:
        played = evaluator.both("test", instances)
    return {kind: [float(episode.success) for episode in played[kind]] for kind in KINDS}


def parse(arguments: Sequence[str] | None = None) -> tuple[Study, argparse.Namespace]:
    """The study that a command line asks for, and the rest of what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("flags", nargs="*", help="of ragen_lite.train, such as algo=gigpo")
    parser.add_argument("--model", required=True, help="the base, a folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--ways", nargs="*", help="some of the ways on, such as rl_hard control_1e-3"
    )
    parser.add_argument("--lr", nargs="*", default=["2e-4", "1e-3"], help="of the control")
    parser.add_argument("--instances", type=int, default=256, help="of each difficulty")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--control", help="the base's folder, for which the best control is kept")
    parser.add_argument("--folder", type=Path, default=Path("runs/generalise"))
    given = parser.parse_args(arguments)
    entry = yaml.safe_load(RECIPE.read_text())["env"]["kwargs"]["tasks"].get(given.task, {})
    entry.pop("weight", None)
    study = Study(
        given.task,
        entry,
        given.model,
        tuple(given.flags),
        tuple(given.lr),
        given.instances,
        given.folder / given.task,
        threads=max(1, (os.cpu_count() or 1) // given.jobs),
    )
    if given.control and not (Path(given.control) / WEIGHTS).is_file():
        parser.error(f"--control {given.control}: a model's folder, which has {WEIGHTS}")
    if not study.easy:
        parser.error(
            f"{given.task}: the recipe shows all of it, so nothing is harder than its demonstrations"
        )
    ways = study.ways()
    given.ways = ways[1:] if given.ways is None else given.ways
    if unknown := set(given.ways) - set(ways):
        parser.error(f"--ways {min(unknown)}: choose from {', '.join(ways[1:])}")
    return study, given


def measure(study: Study, given: argparse.Namespace) -> dict[str, list[dict[str, Wins]]]:
    """Every way on, trained and measured: a seed an entry."""
    study.begin()
    found = {"base": [study.measured("base", study.model)]}
    if any(way.startswith("control") for way in given.ways):
        # Here, since two threads that load a model at once get in each other's way.
        print(f"a demonstration has {study.demonstration_tokens:.0f} tokens", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        runs: dict[tuple[str, int], Future[Path]] = {}
        for way in dict.fromkeys(["rl", *given.ways]):
            for seed in range(given.seeds):
                # A control is as long as rl, which began earlier, so nobody waits for ever.
                first = runs["rl", seed].result if way.startswith("control") else None
                runs[way, seed] = pool.submit(study.run, way, seed, first)
        try:
            for (way, seed), made in runs.items():
                measured = study.measured(f"{way}-{seed}", str(made.result()))
                found.setdefault(way, []).append(measured)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def main() -> None:
    study, given = parse()
    found = measure(study, given)
    specs = {difficulty: study.spec(difficulty) for difficulty in DIFFICULTIES}
    print("\n".join(table(study.task, specs, study.instances, found)))
    if given.control:
        print(f"the control is in {write_best_control(study, given.control)}")


if __name__ == "__main__":
    main()
