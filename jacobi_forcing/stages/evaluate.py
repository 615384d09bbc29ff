"""evaluate: accuracy, tokens per forward and speed on problems, beside the model's own AR."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from jacobi_forcing.config import DecoderConfig, EvaluateConfig
from jacobi_forcing.data.files import refuse_file, write_json
from jacobi_forcing.data.record import claim, run_record
from jacobi_forcing.data.trajectories import tokenizer_fingerprint
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE, take_turns
from jacobi_forcing.decoding.measure import distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.drawing.evaluation import table, write_evaluation_page
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.evaluation import PAGE, SUMMARY
from jacobi_forcing.evaluation.answers import Answers, record
from jacobi_forcing.evaluation.summary import against, summarize
from jacobi_forcing.evaluation.tasks import Item, PublishedTask, Task, Verdict, read_task
from jacobi_forcing.models import CausalLM
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.stages.machine import check_block_size, open_model, tuned

ORIGINAL = "original"  # what answers are called that the original's AR gave
FREE = ("out", "limit")  # settings that may change while the work goes on


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate; write every answer, the summary and its page where there is a folder; return it.

    Stopped, it goes on with the problems that have no answer yet.

    Raises:
        JacobiForcingError: Bad settings or problems, or a model that cannot be loaded.
    """
    refuse_file(config.out, "--out")
    task = None if config.num_texts else read_task(config)
    if isinstance(task, PublishedTask) and "max_new_tokens" not in config.given:
        config = config.changed(max_new_tokens=task.max_new_tokens)
    model = open_model(config)
    original = _original(config, model)
    config = tuned(config, model)
    check_block_size(config, model)
    items = _texts(config, original or model) if task is None else task.items(model)
    out = Path(config.out) if config.out else None
    if out is not None:
        weights = {"weights": model.weights_fingerprint()}
        weights |= {"original_weights": original.weights_fingerprint()} if original else {}
        claim(out, asdict(config) | weights, free=FREE)
    decoders = [AUTOREGRESSIVE, *config.decoders]
    answers = Answers(out, items, [one.strategy for one in decoders])
    # The original of self:N judges, and answers nothing.
    rival = original if task is not None else None
    with progress_bar("evaluate", len(items) - len(answers.records)) as bar:
        for new in _answers(config, items, len(answers.records), model, decoders, rival, task):
            answers.add(new)
            bar.advance()
    facts = _worth_of_texts(original or model, answers) if task is None else task.facts
    keys = [json.dumps(i.prompt) if task is None else task.key(i) for i in items]
    facts |= {"problem_set": sha256("\n".join(keys).encode()).hexdigest()[:16]}
    summary = _summary(config, answers.records, decoders, rival is not None, facts)
    if out is not None:
        write_json(out / SUMMARY, summary)
        write_evaluation_page(out / PAGE, summary, answers.records)
    _show(summary, config)
    return summary


def _original(config: EvaluateConfig, model: CausalLM) -> CausalLM | None:
    """Open the model that answers are compared with, its weights as they are."""
    if not config.original:
        return None
    original = open_model(replace(config, model=config.original, quantize=""))
    if tokenizer_fingerprint(original.tokenizer) != tokenizer_fingerprint(model.tokenizer):
        raise ConfigError(
            f"--original {config.original} has another tokenizer than {config.model}, so it cannot "
            "read its text. Name the model that this one was made from."
        )
    return original


def _texts(config: EvaluateConfig, original: CausalLM) -> list[Item]:
    """Sample beginnings of texts from the original."""
    prompts = sample_prompts(
        original,
        config.num_texts,
        max_tokens=config.self_prompt_tokens,
        seed=2**32 + config.seed,  # no seed of `collect`: nothing that was trained on
    )
    decode = original.tokenizer.decode
    return [
        Item(f"text/{number}", decode(ids), ids, "")
        for number, ids in enumerate(prompts[: config.limit or None], 1)
    ]


def _answers(
    config: EvaluateConfig,
    items: Sequence[Item],
    first: int,
    model: CausalLM,
    decoders: Sequence[DecoderConfig],
    rival: CausalLM | None,
    task: Task | None,
) -> Iterator[dict[str, Any]]:
    """Answer the problems from `first` on, a few at a time, judge them, and describe each."""
    settings = {
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "stop": task.stop if task is not None else (),
        "first": first,
    }
    prompts = [item.prompt_ids for item in items]
    turns = take_turns(model, prompts, decoders, **settings)
    names = [decoder.strategy for decoder in decoders]
    if rival is not None:
        names.append(ORIGINAL)
        others = take_turns(rival, prompts, [AUTOREGRESSIVE], **settings)
        turns = ((group, [*own, *next(others)[1]]) for group, own in turns)
    decode = model.tokenizer.decode
    for group, runs in turns:
        texts = [[decode(run.answer, skip_special_tokens=True) for run in own] for own in runs]
        verdicts = _judged(task, group, texts)
        for place, index in enumerate(group):
            yield record(
                items[index],
                {
                    name: (own[place], its_texts[place], verdicts.get((index, its_texts[place])))
                    for name, own, its_texts in zip(names, runs, texts, strict=True)
                },
            )


def _judged(
    task: Task | None, group: Sequence[int], texts: Sequence[Sequence[str]]
) -> dict[tuple[int, str], Verdict]:
    """Judge every different text once."""
    if task is None:
        return {}
    asked = list(dict.fromkeys(pair for own in texts for pair in zip(group, own, strict=True)))
    return dict(zip(asked, task.judge(asked), strict=True))


def _worth_of_texts(judge: CausalLM, answers: Answers) -> dict[str, float]:
    """Say how likely the original finds the texts, and how little they repeat themselves."""
    prompts = [one["prompt_ids"] for one in answers.records]
    texts = [list(one["answers"].values())[-1]["answer"] for one in answers.records]
    nll = negative_log_likelihood(judge, prompts, texts)
    return {"nll": nll, "distinct_8grams": distinct_ngrams(texts)}


def _summary(
    config: EvaluateConfig,
    records: Sequence[dict[str, Any]],
    decoders: Sequence[DecoderConfig],
    has_rival: bool,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Sum up; figures of the first decoder beside AR stand at the top too."""
    found = {}
    for decoder in decoders:
        name = decoder.strategy
        found[name] = summarize(records, name, AUTOREGRESSIVE.strategy)
        if has_rival:
            found[name] |= against(records, name, ORIGINAL)
    first = decoders[min(1, len(decoders) - 1)]
    return {
        "model": config.model,
        "problems": config.problems,
        "strategy": first.strategy,
        "block_size": config.block_size,
        "num_problems": len(records),
        **facts,
        **found[first.strategy],
        "decoders": found,
        "prefill": "counted as a forward, and inside the seconds",
        **run_record(config),
    }


def worth_of(summary: dict[str, Any]) -> str:
    """Say what the answers are worth, in words."""
    if "nll" in summary:
        return f"NLL {summary['nll']:.3f}, distinct 8-grams {summary['distinct_8grams']:.1%}"
    low, high = summary["accuracy_low"], summary["accuracy_high"]
    return f"accuracy {summary['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _show(summary: dict[str, Any], config: EvaluateConfig) -> None:
    console = Console()
    if not config.out:
        shown = {k: v for k, v in summary.items() if not isinstance(v, dict | list | type(None))}
        console.print_json(json.dumps(shown))
        return
    console.print(table(summary))
    console.print(
        f"{worth_of(summary)}, n = {summary['num_problems']}; wrote {Path(config.out) / PAGE}",
        highlight=False,
        soft_wrap=True,
    )
