"""Trajectories on disk: for every prompt, each block's states from first guess to fixed point."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from jacobi_forcing.config import check
from jacobi_forcing.data.files import (
    read_json,
    read_note,
    read_rows,
    sha256,
    shard_path,
    shard_paths,
    with_note,
    write_rows,
)
from jacobi_forcing.errors import DataError

if TYPE_CHECKING:  # packing imports this file too, and needs no transformers
    from transformers import PreTrainedTokenizerBase

SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int64()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("answer_ids", pa.list_(pa.int32())),  # the EOS included where there is one
        ("states", pa.list_(pa.list_(pa.list_(pa.int32())))),  # [blocks, states, block_size]
        ("finish_reason", pa.string()),  # "eos", "length", or "skipped" without an answer
        ("num_forwards", pa.int32()),
        ("solved", pa.bool_()),  # null where the answer cannot be checked
        ("prompt_id", pa.string()),  # null where the prompts' source gives none
    ]
)
DROPPED_SCHEMA = SCHEMA.append(pa.field("reason", pa.string())).append(
    pa.field("detail", pa.string())
)
MANIFEST = "manifest.json"
_NOTE = "jacobi"  # in a shard's Parquet schema: where it is from, and what was counted


class Trajectory(NamedTuple):
    """One prompt's decode.

    The last state of a block is its fixed point, what the model writes one token at a time: greedy,
    or sampled with the prompt's own noise. In the block that holds the EOS the fixed point is
    filled up with pad tokens; `answer_ids` says where it ends.
    """

    prompt_index: int
    prompt_ids: list[int]
    answer_ids: list[int]
    states: list[list[list[int]]]
    finish_reason: str
    num_forwards: int
    solved: bool | None
    prompt_id: str | None = None


class Dropped(NamedTuple):
    """A trajectory that a filter kept from the training data."""

    trajectory: Trajectory
    reason: str  # one of a few words, to be counted
    detail: str = ""  # what else is known, such as the message of an exception


def to_line(trajectory: Trajectory) -> str:
    """Write a trajectory as one line of JSON."""
    return json.dumps(trajectory, separators=(",", ":"))


def from_line(line: str) -> Trajectory:
    """Read what `to_line` wrote."""
    return Trajectory(*json.loads(line))


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash a vocabulary: equal for tokenizers that give ids the same meaning."""
    entries = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    return hashlib.sha256(entries).hexdigest()[:16]


def dropped_path(shard: Path) -> Path:
    """Name the file that holds what was dropped of a shard's prompts."""
    return shard.with_name(shard.name.replace("part-", "dropped-"))


def write_shard(
    folder: Path,
    number: int,
    kept: Sequence[Trajectory],
    dropped: Sequence[Dropped],
    *,
    origin: dict[str, Any],
    counts: dict[str, int],
) -> None:
    """Write one shard: what is kept, beside it what was dropped, in the order of the prompts.

    The file of what is kept comes last and marks both as whole. `origin` and `counts` go into its
    schema, so that neither has to be looked for in the rows.

    Args:
        folder: Where to.
        number: The shard's number.
        kept: Rows for `pack`.
        dropped: The others; without any there is no second file.
        origin: What the shards of one folder have in common: see `check_origin`.
        counts: What was counted in both: see `data.counts`.
    """
    path = shard_path(folder, number)
    if dropped:
        rows = [
            d.trajectory._asdict() | {"reason": d.reason, "detail": d.detail or None}
            for d in dropped
        ]
        write_rows(dropped_path(path), rows, DROPPED_SCHEMA)
    note = {"origin": origin, "counts": counts}
    write_rows(path, [t._asdict() for t in kept], with_note(SCHEMA, _NOTE, note))


def read_counts(shard: Path) -> dict[str, int]:
    """Read what was counted in a shard; only its schema is read."""
    return read_note(shard, _NOTE)["counts"]


def check_origin(shards: Sequence[Path], origin: dict[str, Any]) -> None:
    """See that shards were collected with the model, prompts and settings of their folder.

    Raises:
        DataError: One was not, or cannot be read; it is named.
    """
    for shard in shards:
        theirs = (read_note(shard, _NOTE) or {}).get("origin", {})
        for name, ours in origin.items():
            if theirs.get(name) != ours:
                raise DataError(
                    f"{shard}: was collected with {name} = {theirs.get(name)!r}, but its folder "
                    f"with {ours!r}. Give shards of other models, prompts or settings a folder of "
                    "their own."
                )


def refuse_foreign(out: Path, stage: str, others: Sequence[Path] = ()) -> None:
    """Raise ConfigError where a folder is not this stage's: by its manifest, or with `others`."""
    manifest = out / MANIFEST
    if manifest.exists():
        found = read_json(manifest)
        written_by = found.get("stage") if isinstance(found, dict) else None
        others = others if written_by == stage else [*others, manifest]
    check(
        not others,
        f"--out is {out}, which holds {min(others, default=out).name}, not written by `jacobi "
        f"{stage}`; needed is a folder of its own. Give another one.",
    )


def read_manifest(folder: str | Path, written_by: str) -> dict:
    """Read a folder's manifest and see that its shards are the ones that it lists.

    Raises:
        DataError: `written_by` has not finished there, or a shard is missing, changed or left over
            from another run.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        parts = sorted(p.parent.name for p in Path(folder).glob(f"shard-*-of-*/{MANIFEST}"))
        hint = f" Of its parts, {', '.join(parts)} are finished." if parts else ""
        advice = "Run it again with the same settings to continue, or give another folder."
        if not Path(folder).is_dir():
            advice = "There is no such folder. Give another one."
        raise DataError(
            f"{folder}: no {MANIFEST}, so this is not a finished `jacobi {written_by}` folder. "
            f"{advice}{hint}"
        )
    manifest = read_json(path)
    stage = manifest.get("stage") if isinstance(manifest, dict) else None
    if stage != written_by:
        raise DataError(f"{path}: was written by {stage or 'no stage'}, needed is {written_by}.")
    shards = shard_paths(Path(folder))
    found = {shard.name: sha256(shard) for shard in shards}
    listed = manifest.get("shards", {})
    changed = [name for name in sorted(found | listed) if found.get(name) != listed.get(name)]
    if changed:
        if "origin" in manifest:  # a shard from elsewhere, or one that is cut off, is called so
            check_origin([s for s in shards if s.name in changed], manifest["origin"])
        raise DataError(
            f"{Path(folder) / changed[0]}: is not the file that {MANIFEST} lists. Run "
            f"`jacobi {written_by}` again, into another folder."
        )
    return manifest


def read_trajectories(shard: Path) -> Iterator[Trajectory]:
    """Read the trajectories of one Parquet file."""
    for row in read_rows(shard, SCHEMA.names):
        yield Trajectory(**row)


def read_all(folder: str | Path) -> Iterator[Trajectory]:
    """Read a folder's trajectories in order."""
    for shard in shard_paths(Path(folder)):
        yield from read_trajectories(shard)
