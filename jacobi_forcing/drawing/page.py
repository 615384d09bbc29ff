"""One self-contained HTML page that draws a decode: the text growing, and every cell of the grid.

Everything a model or tokenizer said reaches the page as escaped HTML, or as JSON without any `<`,
which the page's script turns into text nodes: no token can become markup.
"""

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from jacobi_forcing.data.files import replacing
from jacobi_forcing.decoding import Finished, Forward
from jacobi_forcing.drawing.grid import COMMITTED, EMPTY, grid
from jacobi_forcing.drawing.text import pieces, readable, token_text

_END = "⟨end⟩"  # shown for the end-of-sequence token, whatever its name


def write_page(
    path: Path | str,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    forwards: Sequence[Forward],
    finished: Finished,
    *,
    model_name: str,
    strategy: str,
    block_size: int,
    ar_seconds: float | None = None,
    seconds: float | None = None,
) -> None:
    """Write the page that draws one decode.

    Args:
        path: Written, its folder too where it is missing.
        tokenizer: Turns ids into text.
        prompt_ids: The prompt.
        forwards: All forwards of the request, in their order.
        finished: Its end.
        model_name: Named on the page, like `strategy` and `block_size`.
        strategy: See DecodeConfig.
        block_size: See DecodeConfig.
        ar_seconds: What AR decoding of the same prompt took, where it was measured.
        seconds: What this decode took, where it was measured.

    Raises:
        DataError: `path` cannot be written.
    """
    decode = _drawn(tokenizer, forwards, finished) | {
        "model": model_name,
        "strategy": strategy,
        "blockSize": block_size,
        "reason": finished.reason,
        "seconds": seconds,
        "arSeconds": ar_seconds,
    }
    page = fill(
        files("jacobi_forcing.drawing").joinpath("page.html").read_text(encoding="utf-8"),
        {
            "title": html.escape(f"{model_name}, {strategy}: {len(finished.answer_ids)} tokens"),
            "prompt": html.escape(readable(tokenizer.decode(prompt_ids))),
            "answer": html.escape("".join(decode["pieces"])),
            "data": _script_json(decode),
        },
    )
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _drawn(
    tokenizer: PreTrainedTokenizerBase, forwards: Sequence[Forward], finished: Finished
) -> dict[str, Any]:
    """Describe the grid without what is committed: cells from each forward's offset on."""
    texts: dict[int, int] = {}  # token id -> its place in the page's table of texts
    rows = []
    for forward, cells in zip(forwards, grid(forwards, finished), strict=True):
        held = [cell for cell in cells if cell.state not in (COMMITTED, EMPTY)]
        rows.append(
            {
                "offset": forward.offset,
                "accepted": len(forward.accepted),
                "cells": [[texts.setdefault(c.token, len(texts)), c.state] for c in held],
            }
        )
    special = set(tokenizer.all_special_ids)
    shown = {token: token_text(tokenizer, token) for token in texts}
    whole = pieces(tokenizer, finished.answer_ids)
    if finished.reason == "eos":
        shown[finished.answer_ids[-1]] = whole[-1] = _END
    return {
        "tokens": [[text, token in special] for token, text in shown.items()],
        "pieces": whole,
        "rows": rows,
    }


def _script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in, nor open a comment."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII: no raw line separators either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fill(template: str, values: dict[str, str]) -> str:
    """Replace every {{name}} in one pass, so that a value that looks like one stays as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)
