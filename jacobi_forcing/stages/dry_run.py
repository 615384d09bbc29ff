"""The dry run of a recipe: everything that can be checked before the first GPU hour is spent.

It needs neither network nor GPU, and loads no weights: every stage runs on a small random model of
the same architecture, and memory and time are estimated from the shapes of the large one.
"""

import contextlib
import io
import itertools
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from rich.console import Console

from jacobi_forcing.config import CollectConfig, ForceConfig, TrainConfig, check
from jacobi_forcing.data.files import read_json
from jacobi_forcing.data.prompts import count_records, encode, encode_answer, read_records
from jacobi_forcing.data.record import RECORD
from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.evaluation.tasks import read_problem_task
from jacobi_forcing.models import load_model
from jacobi_forcing.models.shrink import Architecture, find_architecture, save_small, small
from jacobi_forcing.problems.verifier import Verifier
from jacobi_forcing.progress import duration
from jacobi_forcing.stages import collect, pack, train
from jacobi_forcing.stages.estimates import RoundEstimate, Work, estimate_round
from jacobi_forcing.stages.recipe import Recipe, Round
from jacobi_forcing.training.arguments import check_installed
from jacobi_forcing.training.processes import check_processes

logger = logging.getLogger(__name__)

_GIB = 2**30
_LOOKED_AT = 64  # prompts of a source
_TRIED = 4  # the shortest of them
_TRIED_BLOCKS = 3  # of an answer: the third is scheduled to be noisy
_SAVED_AT_ONCE = 3  # checkpoints: the best, the last and the one that is being written
_MANY_VISITS = 20  # of a prompt in training: more teach it by heart
_BYTES_PER_TOKEN = 4  # of text, roughly, where a stand-in for the tokenizer counts bytes
_SHORTEST_PROMPT = 64  # assumed at least, where a source cannot be read


class Source(NamedTuple):
    """What is known of a round's prompts."""

    trial: str  # the same kind of source with few prompts, `{folder}` being a temporary one
    records: list[Any]  # for a trial file
    count: int  # 0 where it is not known
    tokens: int  # a prompt's mean length
    longest: int  # of the longest one known, in tokens; 0 where none is
    found: str  # in words
    unknown: str  # what could not be checked, in words


@dataclass(frozen=True)
class Report:
    """What a dry run found."""

    title: str
    checked: list[str]
    not_checked: list[str]
    rounds: list[RoundEstimate]
    commands: list[str]


def run(config: ForceConfig, recipe: Recipe) -> Report:
    """Check a recipe; everything in a temporary folder, on the CPU.

    Raises:
        JacobiForcingError: Whatever would stop the run itself, as far as it can be known here.
    """
    name = recipe.rounds[0].collect.model
    found, sources = checked(config, recipe)
    tried = []
    for stages, source in zip(recipe.rounds, sources, strict=True):
        logger.info("%s: trying its stages on a small random model", stages.name)
        tried.append(_tried(stages, source, found))
    numbered = zip(itertools.count(1), sources, tried, strict=False)
    results = [f"round {n}: {source.found}; {result}" for n, source, result in numbered]
    return Report(
        title=f"{name}: a {found.config.model_type} as in {found.source}",
        checked=results,
        not_checked=list(dict.fromkeys(_not_checked(recipe, sources, found))),
        rounds=estimates(config, recipe, found, sources),
        commands=commands(recipe, config.gpus),
    )


def checked(config: ForceConfig, recipe: Recipe) -> tuple[Architecture, list[Source]]:
    """Find the architecture, and check settings and prompts, without running anything."""
    name = recipe.rounds[0].collect.model
    found = find_architecture(name, Path(config.recipe).parent)
    return found, [_check_round(stages, config.gpus, found) for stages in recipe.rounds]


def estimates(
    config: ForceConfig, recipe: Recipe, found: Architecture, sources: Sequence[Source]
) -> list[RoundEstimate]:
    """Estimate every round."""
    return [
        estimate_round(
            Work(r.collect, r.pack, r.trains[0], r.evaluate, len(r.trains)),
            found,
            0 if _are_few(source, r) else source.count,
            source.tokens,
            0 if _are_few(source, r) else source.longest,
            config.gpu,
            config.gpus,
        )
        for r, source in zip(recipe.rounds, sources, strict=True)
    ]


def _check_round(stages: Round, gpus: int, found: Architecture) -> Source:
    """Check what the stages of a round would refuse once they run."""
    context = getattr(found.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    for config in (stages.collect, stages.evaluate):
        check(
            config is None or config.block_size <= context,
            f"--block-size does not fit into the model's context of {context} tokens.",
        )
    check(
        stages.collect.max_prompt_tokens < context,
        f"--max-prompt-tokens is {stages.collect.max_prompt_tokens}, but the context of {context} "
        "tokens has to hold the answer too. Take a smaller number.",
    )
    for config in stages.trains:
        check_installed(config)
        check_processes(config, gpus, on_cpu=False)
    if stages.collect.verifier:
        Verifier(stages.collect.verifier, seconds=60.0, workers=1).close()
    if stages.evaluate is not None and not stages.evaluate.num_texts:
        read_problem_task(stages.evaluate)
    return _look_at_prompts(stages.collect, stages.pack.max_length, found)


def _look_at_prompts(config: CollectConfig, max_length: int, found: Architecture) -> Source:
    """Read the first prompts of a source, as collecting will."""
    kind, _, count = config.prompts.rpartition(":")
    if kind.split(":")[0] in ("self", "bundled"):
        check(count.isdigit() and int(count) > 0, f"--prompts is {config.prompts!r}: no number.")
        few, tokens = min(int(count), _TRIED), config.self_prompt_tokens
        longest = tokens + 1 if kind == "self" else 0  # with the BOS
        says = f"prompts {config.prompts}"
        return Source(f"{kind}:{few}", [], int(count), tokens, longest, says, "")
    path = Path(config.prompts)
    if path.suffix not in (".jsonl", ".parquet") and not path.exists():
        tokens = max(_SHORTEST_PROMPT, max_length - 2 * config.max_new_tokens)
        unknown = f"prompts: {config.prompts} is read from the hub when collecting begins"
        return Source(f"bundled:{_TRIED}", [], 0, tokens, 0, "prompts of a hub dataset", unknown)
    encoded = []
    for where, record in itertools.islice(read_records(config.prompts), _LOOKED_AT):
        encoded.append((len(encode(record, found.tokenizer, where, None)), record))
        encode_answer(record, found.tokenizer, where)
    total = count_records(config.prompts)
    check(bool(encoded), f"{config.prompts}: no prompts found; needed is at least one.")
    records = [record for _, record in sorted(encoded, key=lambda pair: pair[0])[:_TRIED]]
    lengths = [length for length, _ in encoded]
    if not found.has_own_tokenizer:
        lengths = [length // _BYTES_PER_TOKEN + 1 for length in lengths]
    tokens = sum(lengths) // len(lengths)
    says = f"{total} prompts in {config.prompts}, the first {len(encoded)} read"
    return Source("{folder}/prompts.jsonl", records, total, tokens, max(lengths), says, "")


def _tried(stages: Round, source: Source, found: Architecture) -> str:
    """Run the stages of a round, small; say what came out."""
    with tempfile.TemporaryDirectory() as name, _quietly():
        folder = Path(name)
        model = str(folder / "small")
        save_small(found, Path(model), stages.collect.seed)
        lines = (json.dumps(record, default=str) + "\n" for record in source.records)
        (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
        prompts = source.trial.format(folder=folder)
        collect.run(_small_collect(stages, model, prompts, folder))
        pack.run(
            replace(
                stages.pack,
                trajectories=str(folder / "trajectories"),
                out=str(folder / "packed"),
                max_length=2**15,  # a token per byte makes long prompts
                solved_only=False,
                finished_only=False,
                workers=1,
                html="",
                model="",
            )
        )
        config = _small_train(stages.trains[0], model, folder)
        train.run(config)
        record = read_json(folder / "model" / RECORD)
        trained = load_model(config.out, device="cpu")
        decoder = stages.evaluate.decoder if stages.evaluate is not None else None
        options = {"strategy": decoder.strategy} if decoder else {}
        fast = answer(trained, "Once", max_new_tokens=16, **options)
        plain = answer(trained, "Once", max_new_tokens=16, strategy="autoregressive")
        assert fast.ids == plain.ids
    losses = next(entry for entry in record["log"] if "ar_loss" in entry)
    shape = small(found.config)
    return (
        f"collected, packed, trained for a step (AR loss {losses['ar_loss']:.2f}, consistency "
        f"{losses['consistency_loss']:.2f}, gradient norm {losses['grad_norm']:.2g}) and decoded "
        f"as AR does, with {shape.num_hidden_layers} random layers of width {shape.hidden_size}"
    )


def _small_collect(stages: Round, model: str, prompts: str, folder: Path) -> CollectConfig:
    """Ask for short answers to a few prompts; no filter drops what is random anyway."""
    config = stages.collect
    tokens = _TRIED_BLOCKS * config.block_size
    return replace(
        config,
        model=model,
        prompts=prompts,
        out=str(folder / "trajectories"),
        max_new_tokens=min(config.max_new_tokens, tokens),
        batch_size=_TRIED,
        max_prompt_tokens=0,
        min_answer_tokens=0,
        min_distinct=0.0,
        finished_only=False,
        verifier="",
        shard="1/1",
        engine="local",
        device="cpu",
        dtype="float32",
    )


def _small_train(config: TrainConfig, model: str, folder: Path) -> TrainConfig:
    """Keep all that decides a step, but for what needs GPUs or several processes."""
    kind = config.eval_prompts.rpartition(":")[0]
    return replace(
        config,
        model=model,
        frozen_model=model if config.frozen_model else "",
        packed=str(folder / "packed"),
        out=str(folder / "model"),
        max_steps=1,
        batch_size=min(config.batch_size, _TRIED),
        gradient_accumulation=1,
        eval_prompts=f"{kind}:2",
        eval_steps=0,
        save_steps=1,  # and so a line in the log
        eval_max_new_tokens=16,
        patience=0,
        device="cpu",
        fsdp=False,
        deepspeed="",
        compile=False,
        quantize="",
        report_to="",
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep bars, tables and log lines of the small stages to themselves."""
    logger = logging.getLogger("jacobi_forcing")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _not_checked(recipe: Recipe, sources: Sequence[Source], found: Architecture) -> Iterator[str]:
    """Say what only the run itself can show."""
    name = recipe.rounds[0].collect.model
    yield f"weights of {name}: none were loaded"
    if not found.has_own_tokenizer:
        yield (
            f"tokenizer and chat template of {name}: not on this machine; a token per byte stood "
            "in for it"
        )
    for stages, source in zip(recipe.rounds, sources, strict=True):
        if source.unknown:
            yield source.unknown
        if _are_few(source, stages):
            visits = _visits(stages)
            yield (
                f"the other prompts: {source.count} are few for a training that visits "
                f"{visits:,}; the estimates are for as many as it visits"
            )
        if source.count > _LOOKED_AT and source.records:
            yield f"prompts: those behind the first {_LOOKED_AT} of {stages.collect.prompts}"
        if stages.collect.verifier:
            yield f"what {stages.collect.verifier} says of answers; it can be imported"
        for flag in ("fsdp", "deepspeed", "compile", "quantize"):
            if getattr(stages.trains[0], flag):
                yield f"--{flag}, which was left out on the CPU"


def _visits(stages: Round) -> int:
    """How many prompts a training sees, with repetitions; 0 where it goes by epochs."""
    config = stages.trains[0]
    return config.max_steps * config.batch_size * config.gradient_accumulation // stages.pack.copies


def _are_few(source: Source, stages: Round) -> bool:
    return 0 < _MANY_VISITS * source.count < _visits(stages)


def commands(recipe: Recipe, gpus: int) -> list[str]:
    """List what `jacobi force` does, stage by stage, for those who run the stages themselves.

    On several GPUs each collects its own part, and torchrun trains.
    """
    found = [] if recipe.start is None else [command("evaluate", recipe.start)]
    for stages in recipe.rounds:
        line = command("collect", stages.collect)
        if gpus > 1:
            line = (
                f"for i in $(seq {gpus}); do CUDA_VISIBLE_DEVICES=$((i-1)) {line} "
                f"--shard $i/{gpus} & done; wait"
            )
        found += [line, command("pack", stages.pack)]
        found += [command("train", config, gpus) for config in stages.trains]
        if stages.average is not None:
            found.append(command("average", stages.average))
        if stages.evaluate is not None:
            found.append(command("evaluate", stages.evaluate))
    if recipe.average is not None:
        found.append(command("average", recipe.average))
    if recipe.evaluate is not None:
        found.append(command("evaluate", recipe.evaluate))
    return found


def command(stage: str, config: Any, gpus: int = 1) -> str:
    """Write a stage's settings as a command line; those at their defaults are left out."""
    start = "jacobi" if gpus == 1 else f"torchrun --nproc-per-node {gpus} -m jacobi_forcing"
    words = [start, stage]
    for setting in fields(config):
        value = getattr(config, setting.name)
        flag = "--" + setting.name.replace("_", "-")
        if value == setting.default and setting.default is not MISSING:
            continue
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag[2:])
        else:
            words += [flag, quote(str(value))]
    return " ".join(words)


def show(report: Report, config: ForceConfig) -> None:
    """Print a report."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"Dry run of {config.recipe}\n{report.title}")
    for heading, lines in (("checked", report.checked), ("not checked", report.not_checked)):
        console.print(f"\n{heading}")
        for line in lines:
            console.print(f"  {line}")
    for number, found in enumerate(report.rounds, 1):
        console.print(f"\nround {number} on {config.gpus} x {config.gpu}, estimated")
        for line in described(found):
            console.print(f"  {line}")
    console.print("\nstage by stage, this recipe is")
    for line in report.commands:
        console.print(f"  {line}")


def described(found: RoundEstimate) -> list[str]:
    """Put a round's estimate into words."""
    memory = found.memory
    verdict = "fits" if found.fits else "does NOT fit"
    size = f"{memory.total / _GIB:.2g} of {found.gpu_bytes / _GIB:.0f} GiB: {verdict}"
    if found.longest_tokens < found.allowed_tokens:
        most = f"{found.memory_allowed.total / _GIB:.2g} GiB"
        size += f"; {most} if a sequence has the {found.allowed_tokens:,} tokens that pack allows"
    return [
        f"{_millions(found.parts['all'])} million parameters, {_millions(found.parts['trained'])} "
        f"of them trained; {found.num_prompts:,} prompts; {found.steps:,} steps over "
        f"{found.rows} sequences of about {found.sequence_tokens:,} tokens",
        f"memory of a training process at {found.longest_tokens:,} tokens, the longest sequence: "
        f"{memory}; {size}",
        f"disk: {_SAVED_AT_ONCE} checkpoints of {found.checkpoint_bytes / _GIB:.2g} GiB while it "
        "trains",
        "time: " + ", ".join(f"{name} {_span(*s)}" for name, s in found.seconds.items()),
    ]


def _millions(num: int) -> str:
    return f"{num / 1e6:,.0f}" if num >= 1e7 else f"{num / 1e6:.2f}"


def _span(fast: float, slow: float) -> str:
    if slow < 1.2 * fast:
        return duration(fast)
    return f"{duration(fast)} to {duration(slow)}"
