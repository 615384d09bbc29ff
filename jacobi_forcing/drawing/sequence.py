"""One self-contained HTML page that draws a packed sequence: its blocks, its mask, its losses."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from jacobi_forcing.data.files import replacing
from jacobi_forcing.data.packed import Document, Packed, num_tokens
from jacobi_forcing.drawing.template import fill, script_json
from jacobi_forcing.drawing.text import token_text


def write_sequence_page(
    path: Path | str,
    tokenizer: PreTrainedTokenizerBase | None,
    sequence: Packed,
    *,
    block_size: int,
    seen: np.ndarray,
    learns_ar: np.ndarray,
    learns_consistency: np.ndarray,
    facts: dict[str, Any],
) -> None:
    """Write the page that draws one packed sequence.

    Args:
        path: Written, its folder too where it is missing.
        tokenizer: Turns ids into text; None shows the ids.
        sequence: S tokens in all.
        block_size: n.
        seen: [L, L] bool, who sees whom among the first L tokens, L <= S.
        learns_ar: [S] bool, tokens that carry the AR loss.
        learns_consistency: [S] bool, tokens that carry the consistency loss.
        facts: What the page says of the data: `name`, `schedule`, `window`, `maxLength` in tokens,
            `mask`, and `record`.

    Raises:
        DataError: `path` cannot be written.
    """
    ids = sorted({int(i) for document in sequence for i in document.input_ids})
    place = {token: number for number, token in enumerate(ids)}
    special = set() if tokenizer is None else set(tokenizer.all_special_ids)
    texts = [str(i) if tokenizer is None else token_text(tokenizer, i) for i in ids]
    data = facts | {
        "blockSize": block_size,
        "hasText": tokenizer is not None,
        "texts": [[text, i in special] for text, i in zip(texts, ids, strict=True)],
        "documents": [_drawn(document, place, block_size) for document in sequence],
        "ar": _runs(learns_ar),
        "consistency": _runs(learns_consistency),
        "seen": [_runs(row) for row in seen],
    }
    title = f"{facts['name']}: a sequence of {num_tokens(sequence)} tokens"
    page = fill("sequence.html", {"title": html.escape(title), "data": script_json(data)})
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _drawn(document: Document, place: dict[int, int], block_size: int) -> dict[str, Any]:
    pairs = document.input_ids[document.prompt_length :].reshape(-1, 2, block_size)
    differs = pairs[:, 0] != pairs[:, 1]
    right = np.where(differs.any(1), differs.argmax(1), block_size)
    return {
        "prompt": document.prompt_index,
        "promptLength": document.prompt_length,
        "answerLength": document.answer_length,
        "tokens": [place[int(i)] for i in document.input_ids],
        "aims": [round(float(ratio), 4) for ratio in document.noise_ratios],
        "right": right.tolist(),  # tokens before the first wrong one, per block
    }


def _runs(flags: Sequence[bool] | np.ndarray) -> list[int]:
    """Write where flags are set as start, length, start, length, ..."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    edges[1::2] -= edges[::2]
    return edges.tolist()
