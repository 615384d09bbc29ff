"""Shards that are being collected: which prompts are still to do, and what is done already."""

from collections.abc import Sequence
from pathlib import Path

from jacobi_forcing.data.files import shard_path
from jacobi_forcing.data.journal import Journal
from jacobi_forcing.data.trajectories import Trajectory, from_line, to_line


class OpenShards:
    """The shards of a folder that are not written yet, each with a journal of its finished prompts.

    Prompts finish in any order. Each goes into its shard's journal at once, and when a shard has
    all of its prompts it can be written. So whatever moment a run is killed at, every
    prompt is in exactly one place: in a shard, in a journal, or still to do.

    Args:
        folder: The folder of the shards.
        members: Shard number to the indices of its prompts.
    """

    def __init__(self, folder: Path, members: dict[int, Sequence[int]]):
        self.folder = folder
        self.num_written = 0  # prompts in shards that are there already
        self._open: dict[int, Sequence[int]] = {}
        self._shard_of: dict[int, int] = {}  # prompt -> its open shard
        self._rows: dict[int, dict[int, Trajectory]] = {}  # open shard -> prompt -> its decode
        self._journals: dict[int, Journal] = {}
        for number, indices in members.items():
            if shard_path(folder, number).exists():
                self._journal_path(number).unlink(missing_ok=True)
                self.num_written += len(indices)
                continue
            self._open[number] = indices
            self._shard_of |= dict.fromkeys(indices, number)
            if self._journal_path(number).exists():
                self._rows[number] = self._read(number)

    def _journal_path(self, number: int) -> Path:
        return shard_path(self.folder, number).with_suffix(".journal")

    def _journal(self, number: int) -> Journal:
        if number not in self._journals:
            self._journals[number] = Journal(self._journal_path(number))
        return self._journals[number]

    def _read(self, number: int) -> dict[int, Trajectory]:
        done = map(from_line, self._journal(number).lines)
        return {trajectory.prompt_index: trajectory for trajectory in done}

    @property
    def todo(self) -> list[int]:
        """The prompts that are neither in a shard nor in a journal, in order."""
        return [i for i, shard in self._shard_of.items() if i not in self._rows.get(shard, {})]

    @property
    def complete(self) -> list[int]:
        """The open shards that have all of their prompts."""
        return [n for n, rows in self._rows.items() if len(rows) == len(self._open[n])]

    def add(self, trajectory: Trajectory) -> int | None:
        """Keep a prompt's decode safe; return its shard's number if that is complete now."""
        number = self._shard_of.get(trajectory.prompt_index)
        if number is None or trajectory.prompt_index in self._rows.get(number, {}):
            return None  # an engine that was restarted may decode a prompt twice
        rows = self._rows.setdefault(number, {})
        self._journal(number).append(to_line(trajectory))
        rows[trajectory.prompt_index] = trajectory
        return number if len(rows) == len(self._open[number]) else None

    def take(self, number: int) -> list[Trajectory]:
        """Give a complete shard's decodes, in the order of its prompts; they are kept no longer."""
        rows = self._rows.pop(number)
        for index in rows:
            del self._shard_of[index]
        return [rows[index] for index in self._open[number]]

    def forget(self, number: int) -> None:
        """Delete the journal of a shard that is written."""
        self._journals.pop(number).remove()

    def close(self) -> None:
        """Let go of all files."""
        for journal in self._journals.values():
            journal.close()
