"""Records, each with its place, from a file of any kind that is read, standard input or the hub."""

import codecs
import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from huggingface_hub.utils import HFValidationError, validate_repo_id

from jacobi_forcing.data.files import read_rows
from jacobi_forcing.errors import DataError

logger = logging.getLogger(__name__)

STDIN = "-"
_LINES = ("", ".jsonl", ".ndjson")  # one record per line; "" is a pipe, or a file without a suffix
_PACKED = (".gz", ".zst", ".bz2")
_NEEDED = "Needed is JSONL, a JSON array (.json), either of them as .gz, .zst or .bz2, or .parquet."
# A name that ends in one of these means a file, though a hub id may hold dots too.
_FILES = (*_LINES[1:], *_PACKED, ".json", ".parquet", ".csv", ".tsv", ".txt", ".arrow")
_FILES += (".xz", ".zip", ".tar", ".md", ".yaml", ".yml", ".toml")


def kind_of(source: str) -> str:
    """Tell what a source is: `stdin`, `file`, `folder`, `self`, `bundled` or `hub`.

    An existing path is a file or a folder, whatever else its name could mean. Only a name that
    could be a data set's is `hub`: the name of a file that is not there stays on this machine.

    Raises:
        DataError: It names a path, and nothing is there, or a file of a kind that is not read.
    """
    if source == STDIN:
        return "stdin"
    if os.path.isdir(source):
        return "folder"
    if os.path.exists(source):
        _refuse_other_kinds(Path(source))
        return "file"
    kind = source.partition(":")[0]
    if kind in ("self", "bundled"):
        return kind
    if _is_hub_id(source):
        return "hub"
    raise DataError(f"{source}: cannot read: No such file or directory. {_NEEDED}")


def _is_hub_id(name: str) -> bool:
    folder = os.path.dirname(name)
    if name.lower().endswith(_FILES) or (folder and os.path.isdir(folder)):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def read_records(source: str) -> Iterator[tuple[str, Any]]:
    """Yield every record of a file, a folder, standard input or a hub dataset, with its place.

    Raises:
        DataError: It cannot be read, or a record is broken.
    """
    kind = kind_of(source)
    if kind == "file":
        yield from read_file(Path(source))
    elif kind == "stdin":
        if sys.stdin is not None and sys.stdin.isatty():
            logger.info("reading JSONL from standard input; Ctrl-D ends it")
        lines = () if sys.stdin is None else sys.stdin.buffer
        yield from _json_lines("standard input", lines)
    else:
        yield from _data_set(source)


def count_records(source: str) -> int:
    """Count the records of a source; lines are not looked into."""
    path = Path(source)
    if kind_of(source) == "file" and _suffix(path) in _LINES:
        with _opened(path) as lines:
            return sum(bool(line.strip()) for line in lines)
    return sum(1 for _ in read_records(source))


def read_file(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield every record of a file with its place, `PATH:LINE` where it has lines.

    Raises:
        DataError: The file cannot be read, is of another kind, or a record is broken.
    """
    _refuse_other_kinds(path)
    suffix = _suffix(path)
    if suffix == ".parquet":
        for number, record in enumerate(read_rows(path), 1):
            yield f"{path}:row {number}", record
        return
    try:
        with _opened(path) as stream:
            yield from (_json if suffix == ".json" else _json_lines)(str(path), stream)
    except (OSError, EOFError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise DataError(f"{path}: cannot read: {reason}.") from error


def _refuse_other_kinds(path: Path) -> None:
    if _suffix(path) not in (*_LINES, ".json", ".parquet"):
        raise DataError(f"{path}: is a file of a kind that is not read here. {_NEEDED}")


def _suffix(path: Path) -> str:
    """Give the suffix that says how a file's content is read, in lower case."""
    is_packed = path.suffix.lower() in _PACKED
    return (path.with_suffix("") if is_packed else path).suffix.lower()


def _opened(path: Path) -> BinaryIO:
    """Open a file, or what is packed in it."""
    if path.suffix.lower() in _PACKED:
        compression = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[path.suffix.lower()]
        return io.BufferedReader(pa.input_stream(str(path), compression=compression))
    return path.open("rb")


def _json_lines(name: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, 1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if line.strip():
            yield f"{name}:{number}", _parsed(line, f"{name}:{number}")


def _json(name: str, stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Read a JSON array's items, a single object, or lines that are called .json."""
    content = stream.read().removeprefix(codecs.BOM_UTF8)
    first, _, rest = content.strip().partition(b"\n")
    if first.startswith(b"{") and first.rstrip().endswith(b"}") and rest:
        yield from _json_lines(name, io.BytesIO(content))
    elif content.strip():
        found = _parsed(content, name)
        for number, record in enumerate(found if isinstance(found, list) else [found], 1):
            yield f"{name}:item {number}", record


def _parsed(text: bytes, where: str) -> Any:
    try:
        found = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        if b"\\u" in text:  # half of a surrogate pair, which is no character
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise DataError(f"{where}: not valid JSON: it is nested too deeply.") from error
    except ValueError as error:  # of huge numbers, Python's text goes on about its own settings
        reason = str(error).partition(";")[0].rstrip(".")
        raise DataError(f"{where}: not valid JSON: {reason}.") from error
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {twice[:100]!r} twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number; write null")


def _data_set(name: str) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        dataset = datasets.load_dataset(name, split="train")
    except Exception as error:  # the hub raises many kinds; all mean that there are no prompts
        raise DataError(
            f"{name}: as a data set it cannot be loaded: {' '.join(str(error).split())[:200]}"
        ) from error
    for number, record in enumerate(dataset, 1):
        yield f"{name}:row {number}", record
