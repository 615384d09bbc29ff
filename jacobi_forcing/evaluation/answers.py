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
        "check": item.check,
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
    """The records of one evaluation; on disk where there is a folder.

    Fields:
        todo: Places of the problems that have no answer yet, in order.

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
        self._found: dict[int, dict[str, Any]] = {}
        for place, item in enumerate(items if self.folder is not None else ()):
            path = self._path(item)
            if path.exists():
                self._found[place] = _checked(read_json(path), item, names, path)
        self.todo = [place for place in range(len(items)) if place not in self._found]

    @property
    def done(self) -> list[int]:
        """Give the places of the problems that have an answer."""
        return list(self._found)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Give all records that there are, in the order of the problems."""
        return [self._found[place] for place in sorted(self._found)]

    def add(self, new: dict[str, Any]) -> None:
        """Keep the record of the first problem that has none."""
        place = self.todo[0]
        assert new["id"] == self.items[place].id
        if self.folder is not None:
            write_json(self._path(self.items[place]), new, indent=None)
        self._found[self.todo.pop(0)] = new

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
    # Files of earlier versions do not say what decided.
    if found.get("check", item.check) != item.check:
        raise DataError(
            f"{path}: {item.id} was judged by another answer or by other tests than it has now. "
            "Give another --out, or remove the folder's problems."
        )
    missing = [name for name in names if name not in found.get("answers", {})]
    if missing:
        raise DataError(f"{path}: has no answer of {missing[0]}. Remove the file and run again.")
    return found
