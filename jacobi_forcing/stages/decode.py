"""decode: continue one prompt and show how many tokens each forward settled."""

import json
import logging
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from jacobi_forcing.config import DecodeConfig
from jacobi_forcing.data.files import refuse_folder
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.data.sources import STDIN
from jacobi_forcing.decoding import Sampling
from jacobi_forcing.decoding.answer import Answer, answer
from jacobi_forcing.drawing.page import write_page
from jacobi_forcing.drawing.terminal import figures, forcing_hint, say
from jacobi_forcing.errors import DataError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.stages.machine import check_block_size, open_model, sampling_settings, tuned

logger = logging.getLogger(__name__)


def run(config: DecodeConfig) -> dict:
    """Decode `config.prompt` and print the answer; return what `--json` prints.

    The prompt goes through the model's chat template where it has one, as `evaluate` asks the
    published benchmarks; `config.raw` continues the text as it is.

    Raises:
        JacobiForcingError: A bad prompt, block size or model.
    """
    refuse_folder(config.html, "--html")
    text = _prompt_text(config.prompt)
    if config.model in BUNDLED and not text.endswith("\n"):
        text += "\n"  # as every problem does that the bundled pair has learned from
    model = open_model(config)
    is_chat = config.chat or (model.tokenizer.chat_template is not None and not config.raw)
    record = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
    ids = encode(record, model.tokenizer, "--prompt", model.context_tokens)
    if is_chat and not config.chat:
        logger.info("the prompt goes through the model's chat template; --raw continues it as is")
    sampling = Sampling(**sampling_settings(config, model), seed=config.seed)
    config = tuned(config, model)
    check_block_size(config, model)
    start = time.perf_counter()
    found = answer(
        model.for_chat() if is_chat else model,
        ids,
        on_text=lambda piece: None if config.json else say(piece),
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
        sampling=sampling,
        tuned=False,  # it is, already
        **asdict(config.decoder),
    )
    seconds = time.perf_counter() - start
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
    _show(config, model, found, result, seconds)
    return result


def _show(
    config: DecodeConfig, model: CausalLM, found: Answer, result: dict, seconds: float
) -> None:
    """Print what comes after the answer, or the JSON object in its place."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if config.json:
        console.out(json.dumps(result, ensure_ascii=False), highlight=False)
        return
    console.out("\n", end="")
    num_forwards = found.finished.num_forwards
    console.print(figures(len(found.ids), num_forwards, seconds), style="dim")
    if not found.text.strip():
        console.print(_about_nothing(config, model, found), style="dim")
    elif hint := forcing_hint(config.strategy, len(found.ids), num_forwards):
        console.print(hint, style="dim")


def _about_nothing(config: DecodeConfig, model: CausalLM, found: Answer) -> str:
    """Say why an answer without a visible character is one, and what to try."""
    if found.finished.reason != "eos":
        return "The answer is blank so far. Raise --max-new-tokens."
    said = "The model ended its answer at once."
    if model.tokenizer.chat_template is None:
        return f"{said} End the prompt where a text would go on: with the answer's first words."
    if config.raw:
        return f"{said} Leave out --raw: this model expects its chat template around the prompt."
    return f"{said} Ask in other words, or take --raw, which continues the prompt as a text."


def _prompt_text(prompt: str) -> str:
    if prompt == STDIN:
        if sys.stdin.isatty():
            logger.info("reading the prompt from standard input; Ctrl-D ends it")
        return sys.stdin.read().removesuffix("\n")  # which `echo` adds
    if not prompt.startswith("@"):
        return prompt
    path = Path(prompt[1:])
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--prompt: cannot read {path}: {error}.") from error
