"""demo: the bundled pair side by side, a table of what forcing bought, and a page of one decode."""

import shlex
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jacobi_forcing import problems
from jacobi_forcing.config import DecodeConfig, DecoderConfig, DemoConfig
from jacobi_forcing.data.files import refuse_folder
from jacobi_forcing.decoding import (
    Finished,
    Forward,
    Request,
    decode,
    decode_one,
    make_strategy,
)
from jacobi_forcing.decoding.compare import (
    AUTOREGRESSIVE,
    Run,
    compare,
    summarize,
)
from jacobi_forcing.drawing.page import write_page
from jacobi_forcing.drawing.terminal import Side, watch
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.evaluation.statistics import wilson
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.prompt_text import encode_prompt
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.stages.machine import set_threads

_EXAMPLE = (
    "Chloe picks 7 plums a minute and Karl picks 5. Their basket already has 12 plums in it. "
    "How many are in the basket after 6 minutes of picking?"
)
_MAX_NEW_TOKENS = DecodeConfig.max_new_tokens


def run(config: DemoConfig) -> None:
    """Show the demo and write its page.

    Raises:
        JacobiForcingError: Bad settings, or a page that cannot be written.
    """
    if config.num_problems < 1:
        raise ConfigError("--num-problems is 0, must be at least 1.")
    refuse_folder(config.html, "--html")
    set_threads(config.threads)
    run_pair(config, load_model("tiny-base"), load_model("tiny-forced"))


def run_pair(
    config: DemoConfig, base: CausalLM, forced: CausalLM, max_new_tokens: int = _MAX_NEW_TOKENS
) -> None:
    """Show the demo with any model and its forced self."""
    console = Console()
    num_math = (config.num_problems + 1) // 2
    dealt = {
        "math": problems.held_out("math", num_math, config.seed),
        "code": problems.held_out("code", config.num_problems - num_math, config.seed),
    }
    chosen = [problem for kind in dealt.values() for problem in kind]
    for problem in [kind[0] for kind in dealt.values() if kind]:
        _show_side_by_side(console, config, problem, base, forced, max_new_tokens)

    table_rows = (
        (base, [AUTOREGRESSIVE, *_decoders(config, "prompt-lookup", "window")]),
        (forced, [AUTOREGRESSIVE, *_decoders(config, "jacobi", "window")]),
    )
    table = _new_table(len(chosen), config)
    runs: list[list[Run]] = []
    with progress_bar("decoding", 2 * len(chosen)) as bar:
        for model, decoders in table_rows:
            runs = compare(
                model,
                [encode_prompt(model.tokenizer, problem.prompt) for problem in chosen],
                decoders,
                max_new_tokens=max_new_tokens,
                seed=config.seed,
                on_prompt=bar.advance,
            )
            _add_rows(table, model, chosen, decoders, runs)
    console.print(table)
    _draw(config, forced, chosen, runs[-1], runs[0], max_new_tokens)
    console.print(f"Wrote {config.html}: one of these decodes, token by token.", highlight=False)
    console.print(
        "Next: a problem like these with your own numbers, such as\n"
        f"  jacobi decode --html mine.html --prompt {shlex.quote(_EXAMPLE)}\n"
        "or jacobi --help for the rest.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _decoders(config: DemoConfig, *strategies: str) -> list[DecoderConfig]:
    return [DecoderConfig(strategy=name, block_size=config.block_size) for name in strategies]


def _show_side_by_side(
    console: Console,
    config: DemoConfig,
    problem: Problem,
    base: CausalLM,
    forced: CausalLM,
    max_new_tokens: int,
) -> None:
    console.print(
        f"[bold]{problem.kind.capitalize()} problem[/bold]  {escape(problem.prompt)}",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )

    def side(model: CausalLM, decoder: DecoderConfig) -> tuple[Side, Iterator[Forward | Finished]]:
        request = Request(0, encode_prompt(model.tokenizer, problem.prompt), max_new_tokens)
        machine = make_strategy(decoder, model.vocab_tokens, f"{config.seed}/0")
        longest = len(request.prompt_ids) + max_new_tokens
        events = decode(model, [request], lambda _: machine, max_tokens=longest)
        return Side(f"{model.name}, {decoder.strategy}", model.tokenizer), events

    watch(console, [side(base, AUTOREGRESSIVE), side(forced, *_decoders(config, "window"))])
    if console.is_terminal:
        console.print()


def _new_table(num_problems: int, config: DemoConfig) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),  # so that it fits into 80 columns
        title=f"{num_problems} held-out problems, one at a time, block size {config.block_size}",
        title_justify="left",
        title_style="bold",
        caption="Prefill included. Accuracy with its 95 % interval. Speed-up and mismatches are "
        "against one token at a time with the same model in the same program.",
        caption_justify="left",
    )
    table.add_column("model", no_wrap=True)
    table.add_column("decoder", no_wrap=True)
    for name in ("accuracy", "tokens/\nforward", "tokens/\nsecond", "speed-\nup", "mis-\nmatches"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add_rows(
    table: Table,
    model: CausalLM,
    chosen: Sequence[Problem],
    decoders: Sequence[DecoderConfig],
    runs: Sequence[Sequence[Run]],
) -> None:
    for decoder, decoded in zip(decoders, runs, strict=True):
        summary = summarize(decoded, runs[0])
        is_last = decoder is decoders[-1]
        table.add_row(
            model.name,
            decoder.strategy,
            _accuracy(model, chosen, decoded),
            f"{summary.tokens_per_forward:.2f}",
            f"{summary.tokens_per_second:.0f}",
            f"{summary.speedup:.2f}x",
            str(summary.num_mismatches),
            style="bold" if is_last else "",
            end_section=is_last,
        )


def _accuracy(model: CausalLM, chosen: Sequence[Problem], runs: Sequence[Run]) -> str:
    texts = [model.tokenizer.decode(run.answer, skip_special_tokens=True) for run in runs]
    verdicts = check_answers(list(zip(chosen, texts, strict=True)))
    low, high = wilson(sum(verdicts), len(verdicts))
    rate = sum(verdicts) / len(verdicts)
    return f"{100 * rate:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def _draw(
    config: DemoConfig,
    model: CausalLM,
    chosen: Sequence[Problem],
    runs: Sequence[Run],
    ar_runs: Sequence[Run],
    max_new_tokens: int,
) -> None:
    """Draw the window decode with the median tokens per forward: neither the best nor the worst."""
    by_ratio = sorted(range(len(runs)), key=lambda i: len(runs[i].answer) / runs[i].num_forwards)
    index = by_ratio[len(runs) // 2]
    prompt = encode_prompt(model.tokenizer, chosen[index].prompt)
    # `compare` keeps no events; the same noise gives the same decode again.
    (decoder,) = _decoders(config, "window")
    strategy = make_strategy(decoder, model.vocab_tokens, f"{config.seed}/{index}")
    finished, forwards = decode_one(model, prompt, strategy, max_new_tokens)
    write_page(
        config.html,
        model.tokenizer,
        prompt,
        forwards,
        finished,
        model_name=model.name,
        strategy=decoder.strategy,
        block_size=decoder.block_size,
        seconds=runs[index].seconds,
        ar_seconds=ar_runs[index].seconds,
    )
