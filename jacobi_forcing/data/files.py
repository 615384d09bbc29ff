"""Write files whole or not at all, and find out what a file is."""

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jacobi_forcing.errors import ConfigError, DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes `path` when the block ends without an error.

    What has its final name is on the disk, whole, even if the power fails.

    Raises:
        DataError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    # Machines that share the folder may have processes of the same number.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> DataError:
    """Say that a file could not be written, and that nothing else is lost."""
    return DataError(
        f"{path}: cannot write: {error.strerror or error}. What was finished before is kept; "
        "make room and run the same command again to continue."
    )


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an existing file for this process alone; a killed process lets go of it.

    Raises:
        ConfigError: Another process holds it.
    """
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{path.parent}: another process is at work in this folder. Wait for its end, or "
                "give another folder."
            ) from None
        yield


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Make a folder and an empty file in it, which is held as by `locked` and stays there.

    Raises:
        ConfigError: Another process holds it.
        DataError: It cannot be made.
    """
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()  # never replaced: two processes would each hold a file of their own
    except OSError as error:
        raise cannot_write(path, error) from error
    with locked(path):
        yield


def refuse_folder(path: str, flag: str) -> None:
    """Raise ConfigError where a file is to be written and a folder is: before the work, not after.

    An empty path asks for no file.
    """
    if path and Path(path).is_dir():
        raise ConfigError(f"{flag}: {path} is a folder; give the name of a file.")


def refuse_file(path: str, flag: str) -> None:
    """Raise ConfigError where a folder is to be made and a file is; see `refuse_folder`."""
    if path and Path(path).is_file():
        raise ConfigError(f"{flag}: {path} is a file; give the name of a folder.")


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that were killed while they wrote `path` left."""
    for leftover in path.parent.glob(f".{path.name}.{socket.gethostname()}.*.tmp"):
        try:
            os.kill(int(leftover.name.split(".")[-2]), 0)  # only asks whether the process lives
        except ProcessLookupError:
            leftover.unlink(missing_ok=True)
        except PermissionError:
            pass  # it lives, under another user


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON, on one line where `indent` is None."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises DataError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}.") from error


def write_rows(path: Path, rows: list[dict], schema: pa.Schema) -> None:
    """Write rows as one Parquet file; the same rows give the same bytes."""
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict]:
    """Read a Parquet file's rows, with those columns only; raises DataError that names the file."""
    try:
        # One file, not a data set: folders named key=value above it must not become columns.
        with pq.ParquetFile(path) as file:
            missing = set(columns or ()).difference(file.schema_arrow.names)
            if missing:
                raise DataError(f"{path}: has no column {', '.join(sorted(missing))}.")
            return file.read(columns).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}.") from error


def read_note(path: Path, key: str) -> Any:
    """Read the JSON value that a Parquet file's schema carries under `key`; None without one."""
    try:
        notes = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a readable Parquet file, it may be cut off: {str(error).rstrip('.')}. "
            "Remove it and run the command that wrote it again."
        ) from error
    return json.loads(notes[key.encode()]) if key.encode() in notes else None


def with_note(schema: pa.Schema, key: str, value: Any) -> pa.Schema:
    """Let a schema carry a JSON value under `key`; the same value gives the same bytes."""
    return schema.with_metadata({key: json.dumps(value, sort_keys=True)})


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shard_path(folder: Path, number: int) -> Path:
    """Name the `number`-th Parquet file of a folder."""
    return folder / f"part-{number:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """List a folder's Parquet files in order, with those that machines put into parts of it."""
    found = [*folder.glob("part-*.parquet"), *folder.glob("shard-*-of-*/part-*.parquet")]
    return sorted(found, key=lambda path: path.name)
