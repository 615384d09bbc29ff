"""Answers on disk, a JSON file per problem: an evaluation goes on where it was stopped."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jacobi_forcing.data.files import read_json, write_json
from jacobi_forcing.decoding.compare import Run
from jacobi_forcing.errors import DataError
from jacobi_forcing.evaluation.tasks import Item, Verdict

FOLDER = "problems"  # of an evaluation's folder


def record(item: Item, runs: dict[str, tuple[Run, str, Verdict]]) -> dict[str, Any]:
    """Describe a problem with its answers: run, text and verdict by decoder."""
    return {
        "id": item.id,
        "prompt": item.prompt,
        "reference": item.reference,
        "prompt_ids": item.prompt_ids,
        "answers": {
            name: {
                "text": text,
                **verdict._asdict(),
                **asdict(run),
            }
            for name, (run, text, verdict) in runs.items()
        },
    }


class Answers:
    """The records of one evaluation, in the order of its problems; on disk where there is a folder.

    Args:
        out: The evaluation's folder, or None to keep them in memory only.
        items: All problems.
        names: What answers them.

    Raises:
        DataError: The folder holds answers of other problems, or a file that is no answer.
    """

    def __init__(self, out: Path | None, items: Sequence[Item], names: Sequence[str]):
        self.folder = None if out is None else out / FOLDER
        self.items = items
        self.records: list[dict[str, Any]] = []
        for item in items if self.folder is not None else ():
            path = self._path(item)
            if not path.exists():
                break
            self.records.append(_checked(read_json(path), item, names, path))

    def add(self, new: dict[str, Any]) -> None:
        """Keep the next problem's record."""
        if self.folder is not None:
            write_json(self._path(self.items[len(self.records)]), new, indent=None)
        self.records.append(new)

    def _path(self, item: Item) -> Path:
        return self.folder / f"{file_name(item.id)}.json"


def file_name(name: str) -> str:
    """Make a name that every file system takes; different ids give different names."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _checked(found: Any, item: Item, names: Sequence[str], path: Path) -> dict[str, Any]:
    """Give a record that is this problem's, answered by all of `names`."""
    mine = found.get("prompt_ids") if isinstance(found, dict) else None
    if mine != item.prompt_ids or found.get("id") != item.id:
        raise DataError(
            f"{path}: is no answer to {item.id} as it is asked now. Give another --out, or remove "
            "the folder's problems."
        )
    missing = [name for name in names if name not in found.get("answers", {})]
    if missing:
        raise DataError(f"{path}: has no answer of {missing[0]}. Remove the file and run again.")
    return found
