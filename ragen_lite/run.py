"""A run on disk: its folder, its metrics, its trajectories. Everything a researcher opens afterwards.

``metrics.jsonl`` has one object a step; a number that is not finite is null. Names (means over the step's trajectories
unless it says otherwise):

==========================  =========================================================================================
rollout/success             share of trajectories that succeeded
rollout/success/TASK        the same on one task of a mixture
rollout/return              undiscounted return
rollout/turns               turns a trajectory
rollout/reply_tokens        tokens a reply
rollout/format_errors       share of turns whose reply could not be read
rollout/out_of_tokens       share of trajectories whose next prompt did not fit the context
rollout/errors              trajectories whose environment failed (a count)
rollout/kept_groups         share of groups that passed the filter
rollout/tokens_per_second   tokens sampled a second
rollout/prefix_hits         share of the tokens of earlier turns (in whole blocks) that vLLM's prefix cache still held
rollout/engine_restarts     times the engine failed and was built again (a count)
eval/success                success on instances of the val split, sampled
eval/success/TASK           the same on one task of a mixture
eval/success_low            lower end of its 95% Wilson interval
eval/success_high           upper end
eval/greedy_success         the same at temperature 0
eval/random_success         the uniform random policy on the same instances
eval/solver_success         the solver on the same instances
train/loss                  as minimised; the mean over the step's optimiser steps, as all of train/
train/grad_norm             before clipping
train/clip_fraction         weight of tokens whose ratio was clipped
train/entropy               nats a token
train/kl                    to the reference model, where there is one
train/logprob_gap           largest |learner - engine| log-prob of the first optimiser step's tokens, before any update
train/mismatch_kl           KL(engine || learner) of the same tokens (k3 estimate), nats a token
train/correction            mean importance weight, with algo.correction
train/padding               share of padding among the positions computed
train/skipped               optimiser steps skipped for a loss or gradient that is no number (a count)
train/lr                    learning rate
time/rollout_s              seconds of sampling
time/update_s               seconds of learning
train/probe_gap             mean |learner - engine| log-prob of the canary's probe after the weights were handed over
time/sync_s                 seconds of handing the weights to the engine and probing it
==========================  =========================================================================================
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ragen_lite import checkpoint
from ragen_lite.config import Config, ConfigError, documented, get


def run_slug(config: Config, command: str) -> str:
    """The part of a run folder's name that says what runs: env, sft where it is that, and name."""
    env = config.env.id.rpartition("/")[2].rpartition(":")[2].rpartition("-v")[0] or config.env.id
    return f"{env.lower()}-{'' if command == 'train' else command + '-'}{config.run.name}"


# What a run may go on with changed; all else is what the run is.
_MAY_CHANGE = ("run.", "train.steps", "train.microbatch_tokens", "eval.", "engine.slots", "engine.options")


class Run:
    """The folder of one run, new or resumed. ``start`` is the step it goes on from, ``checkpoint`` its weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = 0
        self.checkpoint: Path | None = None
        self.notes: list[str] = []

    @classmethod
    def open(cls, config: Config, command: str = "train") -> Run:
        """Make a folder, or find the one to resume. Raises ConfigError where it cannot be written or found."""
        root, slug = Path(config.run.dir).expanduser(), run_slug(config, command)
        if config.run.resume == "no":
            return cls._new(root, slug, config)
        if config.run.resume == "auto":
            ours = re.compile(rf"\d{{8}}-\d{{6}}(\.\d+)?-{re.escape(slug)}")
            older = sorted((f for f in root.glob("*") if ours.fullmatch(f.name)), key=lambda f: f.name)
            saved = [f for f in older if any((f / "checkpoints").glob("step-*"))]
            if saved:
                return cls._resume(saved[-1], config)
            run = cls._new(root, slug, config)
            why = f"{older[-1]} has no checkpoint yet" if older else f"there is no run of {slug} in {root}"
            run.notes.append(f"{why}: a new run begins")
            return run
        folder = Path(config.run.resume).expanduser()
        if not (folder / "checkpoints").is_dir():
            raise ConfigError(
                f"run.resume={folder}: no run folder (checkpoints/ is missing); give no, auto or a run folder"
            )
        return cls._resume(folder, config)

    @classmethod
    def _new(cls, root: Path, slug: str, config: Config) -> Run:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = root / f"{stamp}-{slug}"
        for again in range(1, 1000):
            if not folder.exists():
                break
            folder = root / f"{stamp}.{again}-{slug}"
        try:
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "trajectories").mkdir()
        except OSError as error:
            raise ConfigError(
                f"run.dir={root}: no run folder can be made there ({error.strerror}); give a folder you may write to"
            ) from error
        OmegaConf.save(OmegaConf.create(asdict(config)), folder / "config.yaml")
        return cls(folder)

    @classmethod
    def _resume(cls, folder: Path, config: Config) -> Run:
        run = cls(folder)
        run.checkpoint, run.notes = checkpoint.last_good(folder / "checkpoints")
        if run.checkpoint is None:
            raise ConfigError(f"run.resume: {folder} holds no undamaged checkpoint. {' '.join(run.notes)}")
        run.start = int(run.checkpoint.name[5:])
        run._forget_after(run.start)
        run.notes.append(f"resuming {folder} after step {run.start}")
        saved = OmegaConf.load(folder / "config.yaml")
        changed = [
            f"{key} (was {OmegaConf.select(saved, key)}, now {get(config, key)})"
            for key, _, _ in documented()
            if not key.startswith(_MAY_CHANGE) and OmegaConf.select(saved, key) != get(config, key)
        ]
        if changed:
            raise ConfigError(
                f"run.resume: {folder} ran with other values: {', '.join(changed)}; give the old ones, "
                "another run by run.resume=FOLDER, or run.resume=no"
            )
        return run

    def _forget_after(self, step: int) -> None:
        """Drop what was logged after the checkpoint: those steps are made again."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        draft = self.folder / ".metrics.jsonl.draft"
        draft.write_text("".join(json.dumps(row) + "\n" for row in kept))
        draft.replace(self.folder / "metrics.jsonl")
        for path in (self.folder / "trajectories").glob("step-*.jsonl.gz"):
            if int(path.name[5:].partition(".")[0]) > step:
                path.unlink()

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Remove the folder of a new run that fails before it has logged anything: nobody should take it for one."""
        try:
            yield
        except BaseException:
            if self.start == 0 and not (self.folder / "metrics.jsonl").exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def metrics(self) -> list[dict[str, Any]]:
        """The steps logged so far; a last line that was cut off is left out."""
        path = self.folder / "metrics.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def log(self, row: dict[str, Any]) -> None:
        """Append one step's metrics."""
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        with (self.folder / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps(finite, allow_nan=False) + "\n")

    def write_trajectories(self, step: int, records: Iterable[dict[str, Any]]) -> None:
        """``trajectories/step-N.jsonl.gz``: one object a trajectory; the same records give the same bytes."""
        path = self.folder / "trajectories" / f"step-{step}.jsonl.gz"
        draft = path.with_name(f".{path.name}.draft")
        with (
            draft.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as out,
        ):
            for record in records:
                out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        draft.replace(path)

    def write_json(self, name: str, value: Any) -> None:
        """A small JSON file in the folder, written atomically."""
        draft = self.folder / f".{name}.draft"
        draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        draft.replace(self.folder / name)

    def read_json(self, name: str) -> Any:
        """What ``write_json`` wrote, or None."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None


def read_trajectories(path: Path) -> list[dict[str, Any]]:
    """The records of a trajectories file, gzipped or plain JSONL. Raises ConfigError naming a line that is none."""
    records = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    list(record["turns"])
                except (ValueError, KeyError, TypeError) as error:
                    raise ConfigError(f"{path}, line {number}: no trajectory ({error!r})") from error
                records.append(record)
    except OSError as error:
        raise ConfigError(f"demos={path}: cannot be read ({error.strerror})") from error
    if not records:
        raise ConfigError(f"demos={path}: it holds no trajectory")
    return records
