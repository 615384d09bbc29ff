"""Looks through a packed folder: its manifest, its files, and the structure of every document.

What no file can tell is whether a noisy block is a state that decoding went through: packing the
same trajectories again with the same settings must give the same bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jacobi_forcing.data.files import shard_paths
from jacobi_forcing.data.packed import (
    Counts,
    PackedColumns,
    Refusal,
    add_counts,
    read_columns,
    refuse_first,
    wrong_lengths,
)
from jacobi_forcing.data.trajectories import MANIFEST
from jacobi_forcing.errors import DataError


class Rules(NamedTuple):
    """What the manifest promises of every document."""

    block_size: int
    max_length: int  # tokens per sequence
    sequence_prompts: int  # documents per sequence; 0 for any number
    min_noise_ratio: float
    max_noise_ratio: float
    states: bool  # False: answers only, noisy blocks repeat the clean ones
    num_ids: int  # ids are 0 .. num_ids - 1


def check_packed(folder: str | Path, manifest: dict, num_ids: int | None = None) -> Counts:
    """Check a packed folder, in memory that grows by eight bytes per document.

    Args:
        folder: What `jacobi pack` wrote.
        manifest: Its manifest, which has been compared with the files (`read_packed_manifest`).
        num_ids: Size of the vocabulary; without it, ids that are not negative pass.

    Raises:
        DataError: Of the first thing that is wrong: what it is, and where.
    """
    path = Path(folder) / MANIFEST
    rules, promised, copies = _promises(path, manifest, num_ids or 2**31)
    found, prompts, pads = Counts(0, 0, 0), [], set()
    for shard in shard_paths(Path(folder)):
        first_row = 0
        for columns in read_columns(shard):
            for refusal in _refusals(columns, rules, pads):
                refuse_first(shard, first_row, columns, *refusal)
            num_rows, num_documents = len(columns.documents) - 1, len(columns.prompt_index)
            found = add_counts(found, Counts(num_rows, num_documents, len(columns.input_ids)))
            first_row += num_rows
            prompts.append(columns.prompt_index)
    for name, count, listed in zip(Counts._fields, found, promised, strict=True):
        if count != listed:
            raise DataError(f"{path}: {name} is {listed}, but the files hold {count}. Pack again.")
    _check_copies(folder, prompts, copies)
    return found


def _promises(path: Path, manifest: dict, num_ids: int) -> tuple[Rules, Counts, int]:
    """Take out of a manifest what every document must keep to, the counts, and the copies."""
    try:
        settings = manifest["settings"]
        rules = Rules(
            block_size=manifest["block_size"],
            max_length=settings["max_length"],
            sequence_prompts=settings["sequence_prompts"],
            min_noise_ratio=settings["min_noise_ratio"],
            max_noise_ratio=settings["max_noise_ratio"],
            states=manifest["record"] == "states",
            num_ids=num_ids,
        )
        # Mixed folders may each have an answer to the same prompt; older manifests say nothing.
        answers = len(manifest["inputs"]) if settings.get("mix", False) else 1
        counts = Counts(*(manifest[name] for name in Counts._fields))
        return rules, counts, settings["copies"] * answers
    except KeyError as error:
        raise DataError(
            f"{path}: has no {error.args[0]}, so it is not whole. Pack again."
        ) from None


def _check_copies(folder: str | Path, prompts: list[np.ndarray], copies: int) -> None:
    whole = np.concatenate([np.empty(0, np.int64), *prompts])
    indexes, counts = np.unique(whole, return_counts=True)
    if counts.max(initial=0) > copies:
        often = int(counts.argmax())
        raise DataError(
            f"{folder}: prompt {indexes[often]} is packed {counts[often]} times where the settings "
            f"say {copies}. Pack again."
        )


def _refusals(columns: PackedColumns, rules: Rules, pads: set[int]) -> Iterator[Refusal]:
    """Give rule after rule; each may count on those before it.

    Args:
        columns: Sequences.
        rules: What must hold.
        pads: The id that fills up clean blocks, once it has been seen; added to.
    """
    yield from _wrong_sequences(columns, rules)
    yield columns.prompt_index < 0, lambda d: f"has prompt index {columns.prompt_index[d]}"
    yield wrong_lengths(columns, rules.block_size)
    most = np.diff(columns.blocks) * rules.block_size
    length = columns.answer_length
    yield (
        (length > most) | (length <= most - rules.block_size),
        lambda d: f"has an answer of {length[d]} tokens, which does not end in its last block",
    )
    yield _wrong_ids(columns, rules)
    ratios = columns.noise_ratios
    low, high = np.float32(rules.min_noise_ratio), np.float32(rules.max_noise_ratio)
    outside = ~((ratios >= low) & (ratios <= high))  # NaN is outside
    yield (
        _any(outside, columns.blocks),
        lambda d: f"aims for a noise ratio that is not from {low:g} to {high:g}",
    )
    yield from _wrong_pairs(columns, rules, pads)


def _wrong_sequences(columns: PackedColumns, rules: Rules) -> Iterator[Refusal]:
    num_documents = np.diff(columns.documents)
    num_tokens = np.diff(columns.tokens[columns.documents])
    row = np.repeat(np.arange(len(num_documents)), num_documents)
    yield (
        (num_tokens > rules.max_length)[row],
        lambda d: (
            f"its sequence has {num_tokens[row[d]]} tokens, more than max_length {rules.max_length}"
        ),
    )
    most = rules.sequence_prompts or num_documents.max()
    yield (
        (num_documents > most)[row],
        lambda d: f"its sequence has {num_documents[row[d]]} documents, more than {most}",
    )


def _wrong_ids(columns: PackedColumns, rules: Rules) -> Refusal:
    ids = columns.input_ids
    wrong = (ids < 0) | (ids >= rules.num_ids)

    def say(d: int) -> str:
        span = slice(columns.tokens[d], columns.tokens[d + 1])
        place = int(wrong[span].argmax())
        return f"token {place} is {ids[span][place]}, ids go from 0 to {rules.num_ids - 1}"

    return _any(wrong, columns.tokens), say


def _wrong_pairs(columns: PackedColumns, rules: Rules, pads: set[int]) -> Iterator[Refusal]:
    """Compare noisy with clean blocks; shapes: T = blocks of all documents, n = block size."""
    num_blocks = np.diff(columns.blocks)
    place = np.arange(len(columns.input_ids)) - np.repeat(
        columns.tokens[:-1] + columns.prompt_length, np.diff(columns.tokens)
    )
    pairs = columns.input_ids[place >= 0].reshape(-1, 2, rules.block_size)  # [T, 2, n]
    differs = (pairs[:, 0] != pairs[:, 1]).any(1)  # [T]
    may_differ = columns.noise_ratios > 0 if rules.states else np.zeros(len(pairs), bool)
    yield (
        _any(differs & ~may_differ, columns.blocks),
        lambda d: "has a noisy block that differs from its clean one where no noise was asked for",
    )
    block = np.arange(len(pairs)) - np.repeat(columns.blocks[:-1], num_blocks)
    offset = np.arange(rules.block_size)
    answer_place = block[:, None] * rules.block_size + offset  # [T, n]
    is_behind = answer_place >= np.repeat(columns.answer_length, num_blocks)[:, None]
    behind = pairs[:, 1][is_behind]
    if not pads:
        pads.update(behind[:1].tolist())
    wrong = is_behind & ~np.isin(pairs[:, 1], list(pads))
    yield (
        _any(wrong.any(1), columns.blocks),
        lambda d: f"has other ids behind the end of its answer than the padding {min(pads)}",
    )


def _any(wrong: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Tell of each list whether any of its values is wrong; no list may be empty."""
    return np.logical_or.reduceat(wrong, offsets[:-1])
