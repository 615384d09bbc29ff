"""decode: continue one prompt and show how many tokens each forward settled."""

import json
from pathlib import Path

from rich.console import Console

from jacobi_forcing.config import DecodeConfig
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.decoding import Noise, decode_one, make_strategy
from jacobi_forcing.drawing.page import write_page
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages.machine import open_model


def run(config: DecodeConfig) -> dict:
    """Decode `config.prompt` and print the answer; return what `--json` prints.

    Raises:
        JacobiForcingError: A bad prompt, block size or model.
    """
    text = _prompt_text(config.prompt)
    model = open_model(config)
    record = {"messages": [{"role": "user", "content": text}]} if config.chat else {"prompt": text}
    ids = encode(record, model.tokenizer, "--prompt")
    if len(ids) >= model.context_tokens:
        raise DataError(
            f"--prompt: has {len(ids)} tokens, but the model's context of {model.context_tokens} has "
            "to hold the answer too. Shorten it."
        )
    if config.block_size > model.context_tokens:
        raise ConfigError(
            f"--block-size is {config.block_size}, but {config.model} has a context of only "
            f"{model.context_tokens} tokens."
        )
    noise = Noise(config.noise, model.vocab_tokens, config.seed)
    strategy = make_strategy(config.strategy, config.block_size, noise)
    finished, forwards = decode_one(model, ids, strategy, config.max_new_tokens)
    result = {
        "ids": finished.answer_ids,
        "text": model.tokenizer.decode(finished.answer_ids, skip_special_tokens=True),
        "forwards": finished.num_forwards,
        "tokens_per_forward": len(finished.answer_ids) / finished.num_forwards,
        "finish_reason": finished.reason,
    }
    if config.html:
        write_page(
            Path(config.html),
            model.tokenizer,
            ids,
            forwards,
            finished,
            model_name=config.model,
            strategy=config.strategy,
            block_size=config.block_size,
        )
    _show(config, result)
    return result


def _prompt_text(prompt: str) -> str:
    if not prompt.startswith("@"):
        return prompt
    path = Path(prompt[1:])
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--prompt: cannot read {path}: {error}.") from error


def _show(config: DecodeConfig, result: dict) -> None:
    console = Console(soft_wrap=True)
    if config.json:
        console.out(json.dumps(result, ensure_ascii=False), highlight=False)
        return
    console.out(result["text"], highlight=False)
    console.print(
        f"[dim]{len(result['ids'])} tokens in {result['forwards']} forwards: "
        f"{result['tokens_per_forward']:.2f} tokens per forward[/dim]",
        highlight=False,
    )
