"""decode: continue one prompt and show how many tokens each forward settled."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from jacobi_forcing.config import DecodeConfig
from jacobi_forcing.data.files import refuse_folder
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.decoding import Sampling
from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.drawing.page import write_page
from jacobi_forcing.errors import DataError
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.stages.machine import check_block_size, open_model, tuned


def run(config: DecodeConfig) -> dict:
    """Decode `config.prompt` and print the answer; return what `--json` prints.

    Raises:
        JacobiForcingError: A bad prompt, block size or model.
    """
    refuse_folder(config.html, "--html")
    text = _prompt_text(config.prompt)
    if config.model in BUNDLED and not text.endswith("\n"):
        text += "\n"  # as every problem does that the bundled pair has learned from
    model = open_model(config)
    record = {"messages": [{"role": "user", "content": text}]} if config.chat else {"prompt": text}
    ids = encode(record, model.tokenizer, "--prompt", model.context_tokens)
    config = tuned(config, model)
    check_block_size(config, model)
    console = Console(soft_wrap=True)
    found = answer(
        model,
        ids,
        on_text=lambda piece: None if config.json else _write(piece),
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
        sampling=Sampling(**config.sampling, seed=config.seed),
        tuned=False,  # it is, already
        **asdict(config.decoder),
    )
    result = {
        "ids": found.ids,
        "text": found.text,
        "forwards": found.finished.num_forwards,
        "tokens_per_forward": found.tokens_per_forward,
        "finish_reason": found.finished.reason,
    }
    if config.html:
        write_page(
            Path(config.html),
            model.tokenizer,
            ids,
            found.forwards,
            found.finished,
            model_name=config.model,
            strategy=config.strategy,
            block_size=config.block_size,
        )
    if config.json:
        console.out(json.dumps(result, ensure_ascii=False), highlight=False)
        return result
    console.out("\n", end="")
    console.print(
        f"[dim]{len(found.ids)} tokens in {result['forwards']} forwards: "
        f"{found.tokens_per_forward:.2f} tokens per forward[/dim]",
        highlight=False,
    )
    return result


def _write(piece: str) -> None:
    """Print a piece of the answer behind those before it, at once, and as it is, tabs and all."""
    sys.stdout.write(piece)
    sys.stdout.flush()


def _prompt_text(prompt: str) -> str:
    if not prompt.startswith("@"):
        return prompt
    path = Path(prompt[1:])
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--prompt: cannot read {path}: {error}.") from error
