"""evaluate: accuracy, tokens per forward and speed on problems, beside the model's own AR."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from jacobi_forcing import problems
from jacobi_forcing.config import EvaluateConfig
from jacobi_forcing.data.files import refuse_folder, write_json
from jacobi_forcing.data.prompts import encode, read_jsonl
from jacobi_forcing.data.record import run_record
from jacobi_forcing.data.trajectories import tokenizer_fingerprint
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE, compare, summarize, wilson
from jacobi_forcing.decoding.measure import distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.stages.machine import check_block_size, open_model, tuned

_BUNDLED_SEED = 0
_BUNDLED_PER_KIND = 500
_FROM_FILE = "file"  # the structure of problems that are not generated


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate and write the report; return it.

    Raises:
        JacobiForcingError: Bad settings or problems, or a model that cannot be loaded.
    """
    refuse_folder(config.report, "--report")
    task = _texts if config.num_texts else _problems
    model, prompts, judge = task(config)
    config = tuned(config, model)
    check_block_size(config, model)
    decoders = [AUTOREGRESSIVE]
    if config.strategy != "autoregressive":
        decoders.append(config.decoder)
    with progress_bar("evaluate", len(prompts)) as bar:
        runs = compare(
            model,
            prompts,
            decoders,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
            on_prompt=bar.advance,
        )
    report = _report(config, runs, judge([r.answer for r in runs[-1]]))
    if config.report:
        write_json(Path(config.report), report)
    _show(report)
    return report


class _Task(NamedTuple):
    """What a model is evaluated on."""

    model: CausalLM
    prompts: list[list[int]]
    judge: Callable[[list[list[int]]], dict[str, float]]  # from answers to what they are worth


def _problems(config: EvaluateConfig) -> _Task:
    """Judge by the share of problems that answers solve."""
    chosen = load_problems(config)
    model = open_model(config)
    prompts = [
        encode({"prompt": p.prompt}, model.tokenizer, _place(p, config), model.context_tokens)
        for p in chosen
    ]

    def judge(answers: list[list[int]]) -> dict[str, float]:
        verdicts = _verdicts(model, chosen, answers)
        low, high = wilson(sum(verdicts), len(verdicts))
        accuracy = sum(verdicts) / len(verdicts)
        return {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}

    return _Task(model, prompts, judge)


def _texts(config: EvaluateConfig) -> _Task:
    """Judge by how likely the original finds the texts, and how little they repeat themselves."""
    model = open_model(config)
    original = model
    if config.original:  # it judges, with its weights as they are
        original = open_model(replace(config, model=config.original, quantize=""))
    if tokenizer_fingerprint(original.tokenizer) != tokenizer_fingerprint(model.tokenizer):
        raise ConfigError(
            f"--original {config.original} has another tokenizer than {config.model}, so it cannot "
            "read its text. Name the model that this one was made from."
        )
    prompts = sample_prompts(
        original,
        config.num_texts,
        max_tokens=config.self_prompt_tokens,
        seed=2**32 + config.seed,  # no seed of `collect`: nothing that was trained on
    )
    prompts = prompts[: config.num_problems or None]

    def judge(answers: list[list[int]]) -> dict[str, float]:
        nll = negative_log_likelihood(original, prompts, answers)
        return {"nll": nll, "distinct_8grams": distinct_ngrams(answers)}

    return _Task(model, prompts, judge)


def load_problems(config: EvaluateConfig) -> list[Problem]:
    """Load the problems that `config.problems` names.

    Raises:
        DataError: No such set, or a broken file.
        ConfigError: The file's answers are code and running code was not allowed.
    """
    name = config.problems
    kinds = {"bundled": list(problems.KINDS), "bundled:math": ["math"], "bundled:code": ["code"]}
    if name in kinds:
        limit = config.num_problems or _BUNDLED_PER_KIND * len(kinds[name])
        per_kind = -(-limit // len(kinds[name]))
        dealt = [p for k in kinds[name] for p in problems.held_out(k, per_kind, _BUNDLED_SEED)]
        return dealt[:limit]
    path = Path(name)
    if not path.exists():
        raise DataError(
            f"{name}: no such problems. Write bundled, bundled:math, bundled:code, self:N, or a "
            'JSONL file whose lines have "prompt" and "check".'
        )
    chosen = [_problem(record, where) for where, record in read_jsonl(path)]
    if not chosen:
        raise DataError(f"{name}: holds no problems.")
    if any(p.kind == "code" for p in chosen) and not config.allow_code_execution:
        raise ConfigError(
            f"{name}: has problems that are checked by running what the model wrote. Pass "
            "--allow-code-execution if you want that; it runs in a limited subprocess."
        )
    return chosen[: config.num_problems or None]


def _problem(record: Any, where: str) -> Problem:
    """Read {"prompt": ..., "check": {"answer": ...} or {"function": ..., "tests": ...}}."""
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise DataError(f'{where}: needs an object with "prompt" and "check".')
    found = record.get("check")
    if not isinstance(found, dict):
        raise DataError(f'{where}: "check" must be an object, with what the answer must be.')
    if "function" in found:
        kind, is_good = "code", _is_code_check(found)
    else:
        kind, is_good = "math", _is_number(found.get("answer"))
    if not is_good:
        raise DataError(
            f'{where}: "check" needs "answer": "a number", or "function": "its name" and '
            '"tests": [[arguments, result], ...].'
        )
    return Problem(
        kind=kind,
        structure=_FROM_FILE,
        instance=(where,),
        prompt=record["prompt"],
        answer="",
        check=found,
    )


def _is_code_check(found: dict) -> bool:
    tests = found.get("tests")
    is_pairs = isinstance(tests, list) and all(isinstance(t, list) and len(t) == 2 for t in tests)
    return isinstance(found["function"], str) and is_pairs and len(tests) > 0


def _is_number(text: Any) -> bool:
    try:
        return isinstance(text, str) and Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _place(problem: Problem, config: EvaluateConfig) -> str:
    """Say where a problem comes from: file and line, or the name of the bundled ones."""
    return problem.instance[0] if problem.structure == _FROM_FILE else config.problems


def _verdicts(
    model: CausalLM, chosen: Sequence[Problem], answers: Sequence[list[int]]
) -> list[bool]:
    texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    return check_answers(list(zip(chosen, texts, strict=True)))


def _report(config: EvaluateConfig, runs: list, worth: dict[str, float]) -> dict[str, Any]:
    summary = summarize(runs[-1], runs[0])
    return {
        "model": config.model,
        "problems": config.problems,
        "strategy": config.strategy,
        "block_size": config.block_size,
        "num_problems": len(runs[0]),
        **worth,
        **summary._asdict(),
        "prefill": "counted as a forward, and inside the seconds",
        **run_record(config),
    }


def worth_of(report: dict[str, Any]) -> str:
    """Say what the answers are worth, in words."""
    if "nll" in report:
        return f"NLL {report['nll']:.3f}, distinct 8-grams {report['distinct_8grams']:.1%}"
    low, high = report["accuracy_low"], report["accuracy_high"]
    return f"accuracy {report['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _show(report: dict[str, Any]) -> None:
    shown = {k: v for k, v in report.items() if not isinstance(v, dict | type(None))}
    if not report["settings"]["report"]:
        Console().print_json(json.dumps(shown))
        return
    Console().print(
        f"{worth_of(report)}, n = {report['num_problems']}, "
        f"{report['tokens_per_forward']:.2f} tokens per forward, "
        f"{report['speedup']:.2f}x the AR of this engine, {report['num_mismatches']} mismatches; "
        f"wrote {report['settings']['report']}",
        highlight=False,
    )
