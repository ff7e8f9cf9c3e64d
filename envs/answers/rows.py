"""Rows of a data set by split: from the hub by ``datasets``, or from a file.

Malformed rows are counted and named.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ragen_lite.envs.files import FORMS, BadRow, datasets_package, file_records, form_of
from ragen_lite.envs.splits import ALL, SPLITS, shuffled, split_of

RowT = TypeVar("RowT")
HELD_OUT = {"test", "eval", "val", "valid", "validation", "dev"}
Reader = Callable[[Any], RowT]  # a record -> a row; raises BadRow
Key = Callable[[RowT], str]  # what makes a row the instance that it is


def read_rows(
    records: Iterable[tuple[str, Any]], read: Reader[RowT], bad_rows: str = "skip"
) -> tuple[RowT, ...]:
    """The rows of records; malformed ones are skipped with one warning, or refused.

    Args:
        records: pairs of a name, such as ``line 3``, and a record; a BadRow stands for a record
            that could not be read.
        read: makes a row of a record.
        bad_rows: ``skip`` or ``refuse``.

    Raises:
        ValueError: malformed rows are refused, or no row is left.
    """
    rows = []
    bad = []
    for name, record in records:
        try:
            if isinstance(record, BadRow):
                raise record
            rows.append(read(record))
        except BadRow as error:
            bad.append(f"{name}: {error}")
    if bad:
        # Five are named, and all are counted.
        more = " ..." if len(bad) > 5 else ""
        told = (
            f"{len(bad)} of {len(bad) + len(rows)} rows are malformed: {'; '.join(bad[:5])}{more}"
        )
        if bad_rows == "refuse" or not rows:
            raise ValueError(told)
        warnings.warn(f"{told}; they are skipped (bad_rows=refuse refuses them)", stacklevel=2)
    if not rows:
        raise ValueError("there is no row")
    return tuple(rows)


def load_rows(
    data: str,
    config: str | None,
    parts: tuple[str, str],
    read: Reader[RowT],
    key: Key[RowT],
    bad_rows: str = "skip",
) -> dict[str, tuple[RowT, ...]]:
    """The rows of a source by split.

    A source's own test split is the test split; else content decides, as everywhere. ``all`` are
    all of its rows.

    Args:
        data: a hub id, a file that ``file_records`` reads, or a folder of such files.
        config: the configuration of a hub data set.
        parts: of a hub data set, the split to train on and that to test on.
        read: makes a row of a record.
        key: the text that decides a row's split.
        bad_rows: as for ``read_rows``.

    Raises:
        ValueError: no such file or data set, malformed rows that are refused, or no row.
        ImportError: ``datasets`` is not installed.
    """
    path = Path(data).expanduser()
    if form_of(path) and not path.is_file():
        raise ValueError(f"data={data}: there is no such file")
    training, testing = parts
    if path.is_file():
        found: Mapping[str, Any] = {training: list(file_records(path))}
    elif path.is_dir():
        found = _from_folder(path, training, testing)
    else:
        found = _from_hub(data, config)

    def part(split: str) -> tuple[RowT, ...]:
        return read_rows(found[split], read, bad_rows)

    # Three cases: a test split only, which is for evaluation; no test split; both.
    if training not in found and testing in found:
        return _held_out({"train": (), "val": (), "test": part(testing)}, key)
    if testing not in found:
        whole = part(training if training in found else next(iter(found)))
        return _held_out(_divided(whole, key), key)
    # The tenth that content would test on is trained on, since the source has its own test split.
    # A question of that split is taken out of the others, wherever it stands a second time.
    divided = _divided(part(training), key)
    tested = part(testing)
    held = {key(row) for row in tested}
    rest = [row for row in (*divided["train"], *divided["test"]) if key(row) not in held]
    val = tuple(row for row in divided["val"] if key(row) not in held)
    return _held_out({"train": tuple(rest), "val": val, "test": tested}, key)


@lru_cache(maxsize=64)
def rows_of_size(
    load: Callable[[str], Mapping[str, Sequence[RowT]]],
    size: Callable[[RowT], int],
    data: str,
    split: str,
    sizes: range,
) -> tuple[RowT, ...]:
    """The rows of a split whose size is asked for; kept, since every reset asks."""
    return tuple(row for row in load(data)[split] if size(row) in sizes)


def _from_folder(folder: Path, training: str, testing: str) -> dict[str, Any]:
    """The records of a folder's files, those below it too, each with its place.

    A file with the word test, or of validation, in its name or that of a folder is held out. Raises
    ValueError where there is none to read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and form_of(path))
    found: dict[str, Any] = {}
    for path in files:
        name = path.relative_to(folder)
        words = set(re.split(r"[^a-z]+", name.as_posix().lower()))
        part = found.setdefault(testing if words & HELD_OUT else training, [])
        part += [(f"{name}, {place}", record) for place, record in file_records(path)]
    if not found:
        raise ValueError(f"data={folder}: no file in it is of the form {FORMS}")
    return found


def _from_hub(data: str, config: str | None) -> dict[str, Any]:
    """The records of a hub data set, each with its place, by part.

    Raises ValueError where it cannot be had.
    """
    datasets = datasets_package()
    try:
        parts = datasets.load_dataset(data, config)
    # The hub's client, the network and the data set's own files each have errors of their own.
    except Exception as error:
        why = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"data={data}: it is no file, and the data set of this name cannot be had from the hub"
            f" ({type(error).__name__}: {why}); give a file of its rows"
        ) from error
    return {
        name: [(f"{name} row {i}", record) for i, record in enumerate(part, 1)]
        for name, part in parts.items()
    }


def _held_out(parts: Mapping[str, Sequence[RowT]], key: Key[RowT]) -> dict[str, tuple[RowT, ...]]:
    """The parts, those to measure on in an order of their own, and ``all``."""
    found = {"train": tuple(parts["train"])}
    for split in ("val", "test"):
        found[split] = shuffled(tuple(parts[split]), key)
    whole = (*parts["train"], *parts["val"], *parts["test"])
    found[ALL] = shuffled(whole, key)
    return found


def _divided(rows: Sequence[RowT], key: Key[RowT]) -> dict[str, tuple[RowT, ...]]:
    """The rows by the split that their key decides."""
    return {split: tuple(row for row in rows if split_of(key(row)) == split) for split in SPLITS}
