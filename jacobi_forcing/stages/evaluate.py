"""evaluate: accuracy, tokens per forward and speed on problems, beside the model's own AR."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from jacobi_forcing.config import EvaluateConfig
from jacobi_forcing.data.files import alone_in, refuse_file, write_json
from jacobi_forcing.data.record import claim, refuse_model, run_record
from jacobi_forcing.data.trajectories import tokenizer_fingerprint
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE, Run, Way, in_turns, take_turns
from jacobi_forcing.drawing.evaluation import (
    cut_off_note,
    divergence_note,
    table,
    write_evaluation_page,
)
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.evaluation import PAGE, SUMMARY
from jacobi_forcing.evaluation.answers import Answers, record
from jacobi_forcing.evaluation.divergence import Divergence, parting
from jacobi_forcing.evaluation.summary import against, summarize
from jacobi_forcing.evaluation.tasks import Item, PublishedTask, Task, read_problem_task
from jacobi_forcing.evaluation.texts import TextTask
from jacobi_forcing.host import hardware
from jacobi_forcing.integrations.outside import generate, vllm
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.loading import own_dtype
from jacobi_forcing.progress import AnswerProgress, progress_bar
from jacobi_forcing.stages.machine import check_block_size, open_model, report_set_aside, tuned

Turn = tuple[range, list[list[Run]]]  # problems' indices, and per decoder their runs

_LOCK = "evaluate.lock"  # in --out, held by the process that measures
ORIGINAL = "original"  # what answers are called that the original's AR gave
FREE = ("out", "limit")  # settings that may change while the work goes on


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate; write every answer, the summary and its page where there is a folder; return it.

    Stopped, it goes on with the problems that have no answer yet.

    Raises:
        JacobiForcingError: Bad settings or problems, a model that cannot be loaded, or a folder
            that another process is at work in.
    """
    refuse_file(config.out, "--out")
    config.refuse_idle()
    if config.engine == "vllm":
        vllm.require()
    task = read_task(config)
    if isinstance(task, PublishedTask) and "max_new_tokens" not in config.given:
        config = config.changed(max_new_tokens=task.max_new_tokens)
    model = _open(config)
    original = _original(config, model)
    if config.engine == "jacobi":
        config = tuned(config, model)
    if config.engine != "transformers":
        check_block_size(config, model)
    report_set_aside(config, model, "evaluate")
    items = task.items(model, original)
    if getattr(task, "style", "") == "chat":
        model, original = model.for_chat(), original and original.for_chat()
    assistant = _assistant(config, model, items)
    if not config.out:
        return _measure(config, task, items, model, original, assistant)
    out = Path(config.out)
    refuse_model(out)
    with alone_in(out, _LOCK):
        opened = {"weights": model, "original_weights": original, "assistant_weights": assistant}
        weights = {name: one.weights_fingerprint() for name, one in opened.items() if one}
        # Seconds of two machines, or answers of two types, in one table compare nothing.
        here = {name: hardware()[name] for name in ("cpu", "gpu")}
        here |= {"dtype": str(model.dtype), "engine_version": _version(config.engine)}
        claim(out, asdict(config) | weights | here, free=FREE)
        return _measure(config, task, items, model, original, assistant)


def _measure(
    config: EvaluateConfig,
    task: Task,
    items: Sequence[Item],
    model: CausalLM,
    original: CausalLM | None,
    assistant: CausalLM | None,
) -> dict[str, Any]:
    """Answer what has no answer yet, sum up, write what came of it; return the summary."""
    out = Path(config.out) if config.out else None
    rival = original if task.has_rival else None
    names = [*config.measured, *([] if rival is None else [ORIGINAL])]
    answers = Answers(out, items, names)
    with _progress(config, answers, len(names)) as progress:
        for new in _answers(config, task, answers, model, rival, assistant, progress):
            answers.add(new)
    summary = _summary(config, task, items, answers.records, rival is not None)
    if out is not None:
        write_json(out / SUMMARY, summary)
        write_evaluation_page(out / PAGE, summary, answers.records)
    _show(summary, config)
    return summary


@contextmanager
def _progress(config: EvaluateConfig, answers: Answers, num_ways: int) -> Iterator[AnswerProgress]:
    """Follow the answers of all decoders, with those of the warm-up, which takes as long."""
    num_groups = len(answers.todo) + min(config.batch_size, len(answers.todo))
    waiting, done = num_ways * num_groups, num_ways * len(answers.done)
    with progress_bar("evaluate", done + waiting, done, "answers, warm-up included") as bar:
        yield AnswerProgress(bar, waiting, config.max_new_tokens)


def read_task(config: EvaluateConfig) -> Task:
    """Read what `config.problems` names; see `read_problem_task`."""
    return TextTask(config) if config.num_texts else read_problem_task(config)


def _open(config: EvaluateConfig) -> CausalLM:
    """Open the model; beside vLLM, which loads weights of its own, on the CPU."""
    if config.engine != "vllm":
        return open_model(config)
    dtype = config.dtype
    if dtype == "auto" and torch.cuda.is_available():  # where vLLM will run
        dtype = str(own_dtype(config.model)).removeprefix("torch.")
    return open_model(replace(config, device="cpu", dtype=dtype))


def _original(config: EvaluateConfig, model: CausalLM) -> CausalLM | None:
    """Open the model that answers are compared with, its weights as they are."""
    if not config.original:
        return None
    original = _open(replace(config, model=config.original, quantize=""))
    if tokenizer_fingerprint(original.tokenizer) != tokenizer_fingerprint(model.tokenizer):
        raise ConfigError(
            f"--original {config.original} has another tokenizer than {config.model}, so it cannot "
            "read its text. Name the model that this one was made from."
        )
    return original


def _assistant(config: EvaluateConfig, model: CausalLM, items: Sequence[Item]) -> CausalLM | None:
    """Open the model that drafts for assisted decoding."""
    if not config.assistant:
        return None
    assistant = open_model(replace(config, model=config.assistant, quantize=""))
    longest = max(len(item.prompt_ids) for item in items) + config.max_new_tokens
    generate.check_assistant(model, assistant, longest)
    return assistant


def _answers(
    config: EvaluateConfig,
    task: Task,
    answers: Answers,
    model: CausalLM,
    rival: CausalLM | None,
    assistant: CausalLM | None,
    progress: AnswerProgress,
) -> Iterator[dict[str, Any]]:
    """Answer the problems that are left, a few at a time, judge them, and describe each."""
    if not answers.todo:  # no engine is started for nothing
        return
    # Those with an answer go first, so that what is left is one stretch.
    places, first = [*answers.done, *answers.todo], len(answers.done)
    prompts, names = [answers.items[place].prompt_ids for place in places], config.measured

    def turns_of(asked: CausalLM, strategies: Sequence[str]) -> Iterator[Turn]:
        return _turns(config, asked, strategies, prompts, task.stop, first, assistant, progress)

    turns = turns_of(model, names)
    if rival is not None:
        names = [*names, ORIGINAL]
        others = turns_of(rival, [AUTOREGRESSIVE.strategy])
        turns = ((group, [*own, *next(others)[1]]) for group, own in turns)
    decode = model.tokenizer.decode
    for group, runs in turns:
        texts = [[decode(run.answer, skip_special_tokens=True) for run in own] for own in runs]
        asked = [(places[i], text) for own in texts for i, text in zip(group, own, strict=True)]
        once = list(dict.fromkeys(asked))  # exact decoders give the same text
        verdicts = dict(zip(once, task.judge(once), strict=True))
        for row, index in enumerate(group):
            place = places[index]
            found = {
                name: (own[row], its_texts[row], verdicts[place, its_texts[row]])
                for name, own, its_texts in zip(names, runs, texts, strict=True)
            }
            new = record(answers.items[place], found)
            if config.engine == "jacobi":
                for name in names[1 : len(config.measured)]:
                    apart = parting(
                        model, prompts[index], runs[0][row].answer, found[name][0].answer
                    )
                    new["answers"][name]["parting"] = apart and apart._asdict()
            yield new


def _turns(
    config: EvaluateConfig,
    model: CausalLM,
    strategies: Sequence[str],
    prompts: Sequence[list[int]],
    stop: Sequence[str],
    first: int,
    assistant: CausalLM | None,
    progress: AnswerProgress,
) -> Iterator[Turn]:
    """Decode the prompts from `first` on in turns, with the engine that is asked for."""
    common = {"max_new_tokens": config.max_new_tokens, "stop": stop}
    if config.engine == "jacobi":
        every = {one.strategy: one for one in [AUTOREGRESSIVE, *config.decoders]}
        common |= {"seed": config.seed, "batch_size": config.batch_size, "first": first}
        common["progress"] = progress
        return take_turns(model, prompts, [every[name] for name in strategies], **common)
    if config.engine == "transformers":
        ways = generate.ways(model, strategies, prompts, assistant=assistant, **common)
    else:
        ways = vllm.ways(
            model,
            strategies,
            prompts,
            batch_size=config.batch_size,
            block_size=config.block_size,
            seed=config.seed,
            num_threads=config.threads or torch.get_num_threads(),
            trust_remote_code=config.trust_remote_code,
            num_engines=len(config.measured) + bool(config.original),
            **common,
        )

    def counted(way: Way, group: range) -> list[Run]:
        runs = way(group)
        for index, one in zip(group, runs, strict=True):
            progress.finished(index, at_end=one.reason != "length")
        return runs

    ways = [partial(counted, way) for way in ways]
    return in_turns(ways, len(prompts), batch_size=config.batch_size, first=first)


def _summary(
    config: EvaluateConfig,
    task: Task,
    items: Sequence[Item],
    records: Sequence[dict[str, Any]],
    has_rival: bool,
) -> dict[str, Any]:
    """Sum up; figures of the first decoder beside AR stand at the top too."""
    found, names = {}, config.measured
    for name in names:
        found[name] = summarize(records, name, AUTOREGRESSIVE.strategy)
        apart = Divergence.of(records, name)
        if apart.partings:
            found[name] |= apart.summary()
        if has_rival:
            found[name] |= against(records, name, ORIGINAL)
    first = names[min(1, len(names) - 1)]
    keys = "\n".join(task.key(item) for item in items)
    return {
        "model": config.model,
        "problems": config.problems,
        "problem_set": sha256(keys.encode()).hexdigest()[:16],
        "engine": config.engine,
        "engine_version": _version(config.engine),
        "strategy": first,
        **({} if config.engine == "transformers" else {"block_size": config.block_size}),
        "num_problems": len(records),
        **task.facts,
        **task.worth(records, first),
        **found[first],
        "decoders": found,
        "prefill": "counted as a forward, and inside the seconds",
        **run_record(config),
    }


def _version(engine: str) -> str:
    """Give the version of what decoded."""
    package = "jacobi_forcing" if engine == "jacobi" else engine
    return import_module(package).__version__  # vLLM for CPUs is distributed by another name


def worth_of(summary: dict[str, Any]) -> str:
    """Say what the answers are worth, in words."""
    if "nll" in summary:
        return f"NLL {summary['nll']:.3f}, distinct 8-grams {summary['distinct_8grams']:.1%}"
    low, high = summary["accuracy_low"], summary["accuracy_high"]
    return f"accuracy {summary['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _show(summary: dict[str, Any], config: EvaluateConfig) -> None:
    console = Console()
    if not config.out and not console.is_terminal:  # a program reads it
        shown = {k: v for k, v in summary.items() if not isinstance(v, dict | list | type(None))}
        console.print_json(json.dumps(shown))
        console = Console(stderr=True)
    console.print(table(summary))
    wrote = f"; wrote {Path(config.out) / PAGE}" if config.out else ""
    worth = f"{worth_of(summary)}, n = {summary['num_problems']}{wrote}"
    lines = (worth, cut_off_note(summary), divergence_note(summary))
    for line in filter(None, lines):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
