"""Trajectories on disk: for every prompt, each block's states from first guess to fixed point."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from jacobi_forcing.data.files import read_json, read_rows, sha256, shard_paths
from jacobi_forcing.errors import DataError

if TYPE_CHECKING:  # packing imports this file too, and needs no transformers
    from transformers import PreTrainedTokenizerBase

SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int64()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("answer_ids", pa.list_(pa.int32())),  # the EOS included where there is one
        ("states", pa.list_(pa.list_(pa.list_(pa.int32())))),  # [blocks, states, block_size]
        ("finish_reason", pa.string()),  # "eos" or "length"
        ("num_forwards", pa.int32()),
        ("solved", pa.bool_()),  # null where the answer cannot be checked
    ]
)
MANIFEST = "manifest.json"


class Trajectory(NamedTuple):
    """One prompt's decode.

    The last state of a block is its fixed point, the model's own greedy tokens. In the block that
    holds the EOS the fixed point is filled up with pad tokens; `answer_ids` says where it ends.
    """

    prompt_index: int
    prompt_ids: list[int]
    answer_ids: list[int]
    states: list[list[list[int]]]
    finish_reason: str
    num_forwards: int
    solved: bool | None


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash a vocabulary: equal for tokenizers that give ids the same meaning."""
    entries = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    return hashlib.sha256(entries).hexdigest()[:16]


def read_manifest(folder: str | Path, written_by: str) -> dict:
    """Read a folder's manifest and see that its shards are the ones that it lists.

    Raises:
        DataError: `written_by` has not finished there, or a shard is missing, changed or left over
            from another run.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise DataError(
            f"{folder}: no {MANIFEST}, so this is not a finished `jacobi {written_by}` folder. Run "
            "it again with the same settings to continue, or give another folder."
        )
    manifest = read_json(path)
    stage = manifest.get("stage") if isinstance(manifest, dict) else None
    if stage != written_by:
        raise DataError(f"{path}: was written by {stage or 'no stage'}, needed is {written_by}.")
    found = {shard.name: sha256(shard) for shard in shard_paths(Path(folder))}
    listed = manifest.get("shards", {})
    for name in sorted(found | listed):
        if found.get(name) != listed.get(name):
            raise DataError(
                f"{Path(folder) / name}: is not the file that {MANIFEST} lists. Run "
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
