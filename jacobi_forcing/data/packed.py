"""Packed training sequences on disk: noisy and clean blocks side by side, ready for the trainer.

A sequence holds one document or more: a prompt and its blocks. Each row of a file is a sequence,
and each column a list with one entry per document. What a token is, follows from the lengths (see
training.layout).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jacobi_forcing.data.columns import nest, offsets_of, read_batches, unnest
from jacobi_forcing.data.files import replacing, shard_paths
from jacobi_forcing.data.trajectories import read_manifest
from jacobi_forcing.errors import DataError

FORMAT = 2  # 1 had one prompt per row
SCHEMA = pa.schema(
    [
        ("prompt_index", pa.list_(pa.int64())),
        ("prompt_length", pa.list_(pa.int32())),
        ("answer_length", pa.list_(pa.int32())),  # tokens up to and with the EOS
        # [prompt][noisy 0][clean 0][noisy 1][clean 1] ... per document
        ("input_ids", pa.list_(pa.list_(pa.int32()))),
        # what the schedule aimed for, per document and block
        ("noise_ratios", pa.list_(pa.list_(pa.float32()))),
    ]
)
_ROWS = 256  # per batch and row group: bounds what is in memory at a time


class Document(NamedTuple):
    """One prompt and its answer's blocks. P = prompt tokens, T = blocks, n = block size."""

    prompt_index: int
    prompt_length: int  # P
    answer_length: int  # tokens up to and with the EOS, (T - 1) * n + 1 .. T * n
    input_ids: np.ndarray  # [P + 2 * T * n] int32
    noise_ratios: np.ndarray  # [T] float32

    @property
    def prompt(self) -> np.ndarray:
        """Its [P] ids."""
        return self.input_ids[: self.prompt_length]


Packed = tuple[Document, ...]  # one training sequence: its documents, one behind the other


class Counts(NamedTuple):
    """What a file or a folder holds."""

    num_sequences: int
    num_documents: int
    num_tokens: int


class PackedColumns(NamedTuple):
    """Sequences as flat arrays. R = sequences, D = documents, S = tokens and T = blocks of all."""

    documents: np.ndarray  # [R + 1] offsets of the sequences, in documents
    tokens: np.ndarray  # [D + 1] offsets of the documents, in tokens
    blocks: np.ndarray  # [D + 1] offsets of the documents, in blocks
    prompt_index: np.ndarray  # [D]
    prompt_length: np.ndarray  # [D]
    answer_length: np.ndarray  # [D]
    input_ids: np.ndarray  # [S] int32
    noise_ratios: np.ndarray  # [T] float32


@contextmanager
def packed_writer(path: Path) -> Iterator["PackedWriter"]:
    """Write a file of sequences that appears whole; the same sequences give the same bytes."""
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as parquet,
    ):
        writer = PackedWriter(parquet)
        yield writer
        writer.flush()


class PackedWriter:
    """Writes sequences, some hundred at a time, so that memory does not grow with the file.

    Attributes:
        counts: Of what was written so far.
    """

    def __init__(self, parquet: pq.ParquetWriter):
        self._parquet = parquet
        self._waiting: list[Packed] = []
        self.counts = Counts(0, 0, 0)

    def write(self, sequences: Iterable[Packed]) -> None:
        """Add sequences."""
        for sequence in sequences:
            self._waiting.append(sequence)
            more = Counts(1, len(sequence), num_tokens(sequence))
            self.counts = add_counts(self.counts, more)
            if len(self._waiting) == _ROWS:
                self.flush()

    def flush(self) -> None:
        """Write what is waiting as one row group."""
        if self._waiting:
            self._parquet.write_table(_table(self._waiting))
            self._waiting = []


def add_counts(these: Counts, those: Counts) -> Counts:
    """Add up what two files hold."""
    return Counts(*(a + b for a, b in zip(these, those, strict=True)))


def num_tokens(sequence: Packed) -> int:
    """Count a sequence's tokens."""
    return sum(len(document.input_ids) for document in sequence)


def _table(sequences: Sequence[Packed]) -> pa.Table:
    documents = [document for sequence in sequences for document in sequence]
    borders = offsets_of([len(sequence) for sequence in sequences])
    arrays = []
    for field in SCHEMA:
        column = [getattr(document, field.name) for document in documents]
        offsets, value_type = [borders], field.type.value_type
        if pa.types.is_list(value_type):
            offsets.append(offsets_of([len(values) for values in column]))
            column, value_type = np.concatenate(column), value_type.value_type
        arrays.append(nest(offsets, column, value_type))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def read_columns(shard: Path) -> Iterator[PackedColumns]:
    """Read a file's sequences, some hundred at a time.

    Raises:
        DataError: The file cannot be read, its columns do not go together, or a row is empty.
    """
    for batch in read_batches(shard, SCHEMA, _ROWS):
        found = {name: unnest(batch[name], f"{shard}: {name}") for name in SCHEMA.names}
        (documents, tokens), _ = found["input_ids"]
        for name, (offsets, _) in found.items():
            if not np.array_equal(offsets[0], documents):
                raise DataError(
                    f"{shard}: {name} has not one entry for every document of input_ids. Pack "
                    "again."
                )
        if (np.diff(documents) < 1).any():
            raise DataError(f"{shard}: a row holds no document. Pack again.")
        values = {name: column[1] for name, column in found.items()}
        yield PackedColumns(documents, tokens, found["noise_ratios"][0][1], **values)


def is_packed_shard(path: Path) -> bool:
    """Tell by its columns whether `pack` wrote a file; what cannot be read it did not write."""
    try:
        return pq.read_schema(path).names == SCHEMA.names
    except (OSError, pa.ArrowException):
        return False


def read_packed_manifest(folder: str | Path) -> dict:
    """Read a packed folder's manifest.

    Raises:
        DataError: As `read_manifest`, or another version of the format.
    """
    manifest = read_manifest(folder, "pack")
    found = manifest.get("format", 1)
    if found != FORMAT:
        raise DataError(
            f"{folder}: is in format {found} of packed data, this version reads {FORMAT}. Run "
            "`jacobi pack` again; the trajectories are as good as they were."
        )
    return manifest


def read_packed(folder: str | Path, block_size: int) -> list[Packed]:
    """Read all sequences of a folder; a token takes four bytes.

    Raises:
        DataError: As `stream_packed`.
    """
    return list(stream_packed(folder, block_size))


def stream_packed(folder: str | Path, block_size: int) -> Iterator[Packed]:
    """Read a folder's sequences in order, some hundred at a time.

    Raises:
        DataError: A document does not consist of a prompt and pairs of blocks of `block_size`.
    """
    for shard in shard_paths(Path(folder)):
        first_row = 0
        for columns in read_columns(shard):
            refuse_first(shard, first_row, columns, *wrong_lengths(columns, block_size))
            yield from _sequences(columns)
            first_row += len(columns.documents) - 1


def _sequences(columns: PackedColumns) -> list[Packed]:
    tokens, blocks = columns.tokens.tolist(), columns.blocks.tolist()
    documents = [
        Document(
            *scalars,
            columns.input_ids[tokens[d] : tokens[d + 1]],
            columns.noise_ratios[blocks[d] : blocks[d + 1]],
        )
        for d, scalars in enumerate(
            zip(
                columns.prompt_index.tolist(),
                columns.prompt_length.tolist(),
                columns.answer_length.tolist(),
                strict=True,
            )
        )
    ]
    return [tuple(documents[i:j]) for i, j in pairwise(columns.documents.tolist())]


Refusal = tuple[np.ndarray, Callable[[int], str]]  # [D] bool, what is wrong; what to say of one


def wrong_lengths(columns: PackedColumns, block_size: int) -> Refusal:
    """Find the documents that are not a prompt and pairs of blocks."""
    num_blocks = np.diff(columns.blocks)
    behind = np.diff(columns.tokens) - columns.prompt_length
    wrong = behind != 2 * block_size * num_blocks
    wrong |= (columns.prompt_length < 1) | (num_blocks < 1)
    return (
        wrong,
        lambda d: (
            f"has {behind[d]} tokens behind a prompt of {columns.prompt_length[d]}, in "
            f"{num_blocks[d]} pairs of blocks, which does not go with a block size of {block_size}"
        ),
    )


def refuse_first(
    shard: Path, first_row: int, columns: PackedColumns, wrong: np.ndarray, say: Callable
) -> None:
    """Raise DataError that names the first document that is `wrong`, if there is one."""
    if wrong.any():
        document = int(wrong.argmax())
        row = int(np.searchsorted(columns.documents, document, side="right")) - 1
        number = document - columns.documents[row]
        raise DataError(
            f"{shard}: row {first_row + row}, document {number}: {say(document)}. Pack again."
        )
