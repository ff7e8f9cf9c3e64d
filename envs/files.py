"""The records of a file: .jsonl, .json, .csv, each also as .gz, and .parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXTS = (".jsonl", ".json", ".csv")
FORMS = ".jsonl, .json, .csv (each also with .gz) or .parquet"


class BadRow(ValueError):
    """A row that is not what is needed; it says why."""


def datasets_package() -> Any:
    """The package ``datasets``, which only data from outside need."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "data sets are read by datasets: pip install 'ragen-lite[math]'"
        ) from error
    # A bar for each file of a folder says nothing that the loading's own line does not.
    datasets.disable_progress_bars()
    return datasets


def form_of(path: Path) -> str:
    """The form of a file by its name, in small letters, without .gz; "" where it is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    form = "".join(suffixes[:-1][-1:] if packed else suffixes[-1:])
    return form if form in TEXTS or (form == ".parquet" and not packed) else ""


def file_records(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a file, each with its place, from 1.

    A line that cannot be read comes as a BadRow, so that one bad line does not end the reading.

    Raises:
        ValueError: the file is of none of these forms, or cannot be read as what its name says.
    """
    form = form_of(path)
    if form == ".parquet":
        records = datasets_package().load_dataset("parquet", data_files=str(path), split="train")
        yield from ((f"row {i}", record) for i, record in enumerate(records, 1))
        return
    if not form:
        raise ValueError(f"{path}: give a file of the form {FORMS}")
    try:
        content = _content(path)
        if form == ".jsonl":
            yield from _lines(content)
        else:
            read = _objects if form == ".json" else _columns
            yield from ((f"row {i}", record) for i, record in enumerate(read(content), 1))
    except (EOFError, OSError, zlib.error, csv.Error, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: it is no {form} file ({error})") from error


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix.lower() == ".gz" else content


def _lines(content: bytes) -> Iterator[tuple[str, Any]]:
    for i, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            # "utf-8-sig" drops the mark that some editors put before a file's text. Brackets that
            # are nested too deep raise RecursionError.
            try:
                yield f"line {i}", json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield f"line {i}", BadRow(f"no JSON ({error})")


def _objects(content: bytes) -> list[Any]:
    """A list of objects, by itself or under the one key of an object."""
    value = json.loads(content.decode("utf-8-sig"))
    parts = value.values() if isinstance(value, dict) else ()
    lists = [part for part in parts if isinstance(part, list)]
    if len(lists) == 1:
        value = lists[0]
    if not isinstance(value, list):
        raise ValueError("a list of objects is needed")
    return value


def _columns(content: bytes) -> Iterator[dict[str, str]]:
    # Solutions are longer than the 128 KiB that a field may have by default, at times.
    csv.field_size_limit(2**31 - 1)
    return csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
