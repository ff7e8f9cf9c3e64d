"""A run's folder: everything a researcher opens afterwards.

``config.yaml``, ``metrics.jsonl`` (names in metrics.py), ``trajectories/step-N.jsonl.gz``,
``checkpoints/step-N/``, and the measurements on the test split as JSON.
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
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from ragen_lite.agents.records import upgrade_record
from ragen_lite.config.keys import flatten, with_defaults
from ragen_lite.config.old_keys import upgrade_values
from ragen_lite.config.schema import ConfigError, RunConfig
from ragen_lite.envs.files import file_records
from ragen_lite.learning.checkpoint_files import last_good

try:
    import fcntl
except ImportError:  # Windows has none, and runs there are not guarded against one another
    fcntl = None  # type: ignore[assignment]


def run_slug(env_id: str, command: str, name: str) -> str:
    """The part of a run folder's name that says what runs.

    >>> run_slug("my_package:MyEnv-v0", "sft", "first")
    'myenv-sft-first'
    """
    plain = env_id.rpartition("/")[2].rpartition(":")[2]
    env = re.sub(r"-v\d+$", "", plain)
    kind = "" if command == "train" else f"{command}-"
    return f"{env.lower()}-{kind}{name}"


# Keys that may have other values when a run is resumed. All others say what the run is: with other
# values it would be another run.
_MAY_CHANGE = (
    "run.",
    "train.steps",
    "train.microbatch_tokens",
    "train.workers",
    "train.restarts",
    "eval.",
    "engine.workers",
    "engine.restarts",
    "engine.slots",
    "engine.options",
)


def runs_of(root: Path, slug: str) -> list[Path]:
    """The folders of a run that this slug ends, the oldest first."""
    named = re.compile(rf"\d{{8}}-\d{{6}}(\.\d+)?-{re.escape(slug)}")
    found = [folder for folder in root.glob("*") if named.fullmatch(folder.name)]
    return sorted(found, key=lambda folder: folder.name)


def changed_settings(
    folder: Path, settings: dict[str, Any], may_change: tuple[str, ...] = _MAY_CHANGE
) -> list[str]:
    """The keys by which the run in a folder differs from ``settings``, with both values.

    Those that begin with one of ``may_change`` are passed over: where not told, those with which a
    run may go on changed.

    Raises ConfigError where its config.yaml cannot be read.
    """
    path = folder / "config.yaml"
    try:
        saved = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError) as error:
        raise ConfigError(f"run.resume: {path} cannot be read: {error}") from error
    if not isinstance(saved, dict):
        raise ConfigError(f"run.resume: {path} holds no configuration")
    values = flatten({str(key): value for key, value in saved.items()})
    old = with_defaults(upgrade_values(values))
    new = flatten(settings)
    return [
        f"{key} (was {old.get(key)}, now {new.get(key)})"
        for key in dict.fromkeys([*new, *old])
        if not key.startswith(may_change) and old.get(key) != new.get(key)
    ]


class Run:
    """The folder of one run, new or resumed.

    ``start`` is the step it goes on from, ``checkpoint`` its weights, ``notes`` what a user should
    know.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = 0
        self.checkpoint: Path | None = None
        self.notes: list[str] = []
        self._lock: Any = None

    @classmethod
    def open(cls, config: RunConfig, slug: str, settings: dict[str, Any]) -> Run:
        """Make a folder, or find the one to resume.

        Args:
            config: where runs are, and whether one is resumed.
            slug: as ``run_slug`` makes it.
            settings: the whole configuration, as it is written to config.yaml.

        Raises:
            ConfigError: the folder cannot be written or found, or ran with other settings.
        """
        root = Path(config.dir).expanduser()
        if config.resume == "no":
            return cls._new(root, slug, settings)
        if config.resume == "auto":
            return cls._newest(root, slug, settings)
        folder = Path(config.resume).expanduser()
        if not (folder / "checkpoints").is_dir():
            raise ConfigError(
                f"run.resume={folder}: no run folder (checkpoints/ is missing); give no, auto or a "
                "run folder"
            )
        return cls._resume(folder, settings)

    @classmethod
    def _newest(cls, root: Path, slug: str, settings: dict[str, Any]) -> Run:
        """The newest run of this slug that has a checkpoint; else a new one."""
        older = runs_of(root, slug)
        saved = [folder for folder in older if any((folder / "checkpoints").glob("step-*"))]
        if saved:
            return cls._resume(saved[-1], settings)
        run = cls._new(root, slug, settings)
        why = f"there is no run of {slug} in {root}"
        if older:
            why = f"{older[-1]} has no checkpoint yet"
        run.notes.append(f"{why}: a new run begins")
        return run

    @classmethod
    def _new(cls, root: Path, slug: str, settings: dict[str, Any]) -> Run:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = cls._reserve(root, stamp, slug)
            (folder / "checkpoints").mkdir()
            (folder / "trajectories").mkdir()
            OmegaConf.save(OmegaConf.create(settings), folder / "config.yaml")
        except OSError as error:
            raise ConfigError(
                f"run.dir={root}: no run folder can be made there ({error.strerror}); give a "
                "folder you may write to, with room on its disk, and a short run.name"
            ) from error
        run = cls(folder)
        run.lock()
        return run

    @staticmethod
    def _reserve(root: Path, stamp: str, slug: str) -> Path:
        """Make the folder itself. Of several processes within one second each gets its own."""
        for again in range(1000):
            folder = root / (f"{stamp}.{again}-{slug}" if again else f"{stamp}-{slug}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
        raise FileExistsError(f"a thousand runs of {slug} began at {stamp}")

    def lock(self) -> None:
        """Hold the folder for this process; the system lets go when the process ends, however.

        Raises ConfigError where another process holds it.
        """
        if fcntl is None:
            return
        self._lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"run.resume: {self.folder} is in use: another process trains there; wait for its "
                "end, or begin another run by run.resume=no"
            ) from error

    @classmethod
    def _resume(cls, folder: Path, settings: dict[str, Any]) -> Run:
        run = cls(folder)
        run.lock()
        run.checkpoint, run.notes = last_good(folder / "checkpoints")
        if run.checkpoint is None:
            notes = " ".join(run.notes)
            raise ConfigError(f"run.resume: {folder} holds no undamaged checkpoint. {notes}")
        # Checked before anything is touched: a resume that is refused leaves the folder as it was.
        changed = changed_settings(folder, settings)
        if changed:
            raise ConfigError(
                f"run.resume: {folder} ran with other values: {', '.join(changed)}; give the old "
                "ones, another run by run.resume=FOLDER, or run.resume=no"
            )
        run.start = int(run.checkpoint.name[5:])
        run._forget_after(run.start)
        run.notes.append(f"resuming {folder} after step {run.start}")
        return run

    def _forget_after(self, step: int) -> None:
        """Drop what was logged after the checkpoint: those steps are made again."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        # Written beside its place and renamed: a kill leaves the old file or the new one, whole.
        draft = self.folder / ".metrics.jsonl.draft"
        draft.write_text("".join(json.dumps(row) + "\n" for row in kept))
        draft.replace(self.folder / "metrics.jsonl")
        for path in (self.folder / "trajectories").glob("step-*.jsonl.gz"):
            if int(path.name[5:].partition(".")[0]) > step:
                path.unlink()

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """The run itself: its folder is let go at the end.

        A new run that fails before it has logged anything leaves no folder: nobody should take it
        for a run.
        """
        try:
            yield
        except BaseException:
            if self.start == 0 and not (self.folder / "metrics.jsonl").exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            if self._lock is not None:
                self._lock.close()

    def metrics(self) -> list[dict[str, Any]]:
        """The steps logged so far; a last line that was cut off is left out."""
        path = self.folder / "metrics.jsonl"
        rows = []
        # A kill may cut the last line off; what stands before it is whole.
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def log(self, row: dict[str, Any]) -> None:
        """Append one step's metrics."""
        # JSON has no inf and no nan.
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        with (self.folder / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps(finite, allow_nan=False) + "\n")

    def write_trajectories(self, step: int, records: Iterable[dict[str, Any]]) -> None:
        """``trajectories/step-N.jsonl.gz``: one object a trajectory; the same records give the same
        bytes."""
        path = self.folder / "trajectories" / f"step-{step}.jsonl.gz"
        draft = path.with_name(f".{path.name}.draft")
        with (
            draft.open("wb") as raw,
            # No name and no time in the header: the same records give the same bytes.
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
    """The records of a run's file of trajectories, in today's form.

    Raises ConfigError, naming a line that is none.
    """
    records = []
    for place, record in file_records(path):
        if not isinstance(record, dict) or not isinstance(record.get("turns"), list):
            raise ConfigError(f"{path}, {place}: no trajectory")
        records.append(upgrade_record(record))
    return records
