"""Packed training sequences on disk: noisy and clean blocks side by side, ready for the trainer."""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from jacobi_forcing.data.files import read_rows, shard_paths
from jacobi_forcing.errors import DataError

SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int64()),
        ("prompt_length", pa.int32()),
        ("answer_length", pa.int32()),  # tokens up to and with the EOS
        ("input_ids", pa.list_(pa.int32())),  # [prompt][noisy 0][clean 0][noisy 1][clean 1] ...
        ("noise_ratios", pa.list_(pa.float32())),  # what the schedule aimed for, per block
    ]
)


class Packed(NamedTuple):
    """One training sequence; what each token is follows from the lengths (see training.layout)."""

    prompt_index: int
    prompt_length: int
    answer_length: int
    input_ids: list[int]
    noise_ratios: list[float]


def read_packed(folder: str | Path, block_size: int) -> list[Packed]:
    """Read all sequences of a folder.

    Raises:
        DataError: A sequence does not consist of blocks of `block_size`.
    """
    sequences = []
    for shard in shard_paths(Path(folder)):
        for number, row in enumerate(read_rows(shard, SCHEMA.names)):
            packed = Packed(**row)
            in_blocks = len(packed.input_ids) - packed.prompt_length
            if in_blocks != 2 * block_size * len(packed.noise_ratios):
                raise DataError(
                    f"{shard}: row {number} has {in_blocks} tokens in {len(packed.noise_ratios)} "
                    f"pairs of blocks, which does not go with a block size of {block_size}. Pack "
                    "again."
                )
            sequences.append(packed)
    return sequences
