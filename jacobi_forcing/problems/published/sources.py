"""Finds the published sets: a file, the folder that JACOBI_DATA names, or the hub."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jacobi_forcing.errors import DataError
from jacobi_forcing.problems.published.published_set import Source

FOLDER_VARIABLE = "JACOBI_DATA"


def find_records(source: Source, file: str | Path | None = None) -> Iterator[tuple[str, Any]]:
    """Yield all records of a set with their places; the first source that is named counts.

    Args:
        source: Where the set is found.
        file: A .jsonl or .jsonl.gz file to take instead.

    Raises:
        DataError: The file, or the one in the folder, cannot be read; or there is neither, and the
            hub does not give it either.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if file is None and folder:
        file = _file_in(Path(folder), source)
    if file is not None:
        yield from read_lines(Path(file))
        return
    for number, record in enumerate(_from_hub(source), 1):
        yield f"{source.hub}:row {number}", record


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield every record of a .jsonl or .jsonl.gz file with its place.

    Raises:
        DataError: It cannot be read, holds nothing, or a line is no JSON.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot read: {getattr(error, 'strerror', 0) or error}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: not valid JSON: {error}.") from error
    if number == 0:
        raise DataError(f"{path}: holds no records. Give the file as it was published.")


def _file_in(folder: Path, source: Source) -> Path:
    """Find a set's file in a folder of benchmarks, or in one that holds just the files."""
    tried = [folder / source.file, folder / Path(source.file).name]
    for path in tried:
        for either in (path, path.with_suffix("") if path.suffix == ".gz" else Path(f"{path}.gz")):
            if either.is_file():
                return either
    raise DataError(
        f"{folder}: {FOLDER_VARIABLE} names this folder, but it has neither {source.file} nor "
        f"{tried[1].name}. Put the file there, or unset {FOLDER_VARIABLE} to fetch it from the hub."
    )


def _from_hub(source: Source) -> Iterable[dict[str, Any]]:
    try:
        return load_from_hub(source)
    except Exception as error:  # the hub raises many kinds; all mean that there is no data
        raise DataError(
            f"{source.hub}: cannot be loaded from the hub ({' '.join(str(error).split())[:150]}). "
            f"Set {FOLDER_VARIABLE} to a folder that holds {source.file}."
        ) from error


def load_from_hub(source: Source) -> Iterable[dict[str, Any]]:
    """Load a set from the hub, or from what was loaded before."""
    import datasets

    return datasets.load_dataset(source.hub, source.config, split=source.split)
