"""tune: measure this machine, predict every decoder's speed on the user's prompts, try the best."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from rich.console import Console

from jacobi_forcing.config import DecoderConfig, TuneConfig
from jacobi_forcing.data.files import refuse_folder, write_json
from jacobi_forcing.data.prompts import read_prompts
from jacobi_forcing.data.record import run_record
from jacobi_forcing.decoding import Finished, Forward, Request, decode, make_strategy
from jacobi_forcing.decoding.cost import Clock, Curve, Shape, measure_curve, sizes
from jacobi_forcing.decoding.imitation import Imitation, Text, acceptance, imitate
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.plan import (
    MEASURE,
    READ,
    Costs,
    Plan,
    left_out,
    planned,
    trial_tokens,
)
from jacobi_forcing.decoding.predict import Prediction, Predictor
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.decoding.trials import Runner, Tried, best_of, calibrating
from jacobi_forcing.drawing.tuning import chosen_table, why, write_tuning_page
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.bundled import BUNDLED
from jacobi_forcing.models.tuning import default_place, machine_of
from jacobi_forcing.progress import Bar, progress_bar
from jacobi_forcing.stages.machine import lasting_name, open_model

logger = logging.getLogger(__name__)

_LEAST_FORWARDS = 4  # of an answer that is cut
_PLACES = 16  # of a draft, whose acceptance is shown


@dataclass
class _Stopwatch:
    """Divides the seconds that a tuning may take, and moves its bar along with them."""

    seconds: float
    bar: Bar
    note: str = ""
    start: float = field(default_factory=time.monotonic)

    def left(self, part: float) -> float:
        """Give the seconds until this part of the time, 0..1, is used; at least none."""
        used = time.monotonic() - self.start
        left = max(0.0, self.seconds - used)
        self.bar.show(min(99, int(100 * used / self.seconds)), left=left, note=self.note)
        return max(0.0, part * self.seconds - used)


class _Read(NamedTuple):
    """What one wide decode of the prompts told."""

    texts: list[Text]
    forwards: list[list[Forward]]  # per text
    max_new_tokens: int
    is_cut: bool  # the time ended before the answers did


def run(config: TuneConfig) -> dict[str, Any]:
    """Tune, and write the result with its page; return the result.

    Raises:
        JacobiForcingError: Bad prompts or settings, or nowhere to write to.
    """
    refuse_folder(config.out, "--out")
    place = Path(config.out) if config.out else default_place(config.model)
    _check_writable(place, config)
    model = open_model(config)
    prompts = load_prompts(config, model)
    if model.step is not None:
        _compile(config, model, prompts[0])
    with progress_bar("tune", 100, unit="%") as bar:
        watch = _Stopwatch(config.seconds, bar)
        plan = _plan(config, model, prompts)
        read = _read(config, model, prompts, plan, watch)
        curve = _measure(model, read, plan, watch)
        found = _choose(config, model, read, curve, plan, watch)
        bar.show(100)
    missing = left_out(plan, _rows(config), _widest(config, model))
    longest = min(found["trial_tokens"].values())
    if read.is_cut or longest < read.max_new_tokens:
        missing.append(f"answers beyond {longest} tokens")
    if missing:
        logger.info(
            "--seconds %g is short for this model here, so these were left out: %s. More seconds "
            "make the choice surer.",
            config.seconds,
            "; ".join(missing),
        )
    result = {
        "model": lasting_name(config.model),
        "machine": machine_of(model),
        "num_prompts": len(read.texts),
        "num_tokens": sum(len(text.answer) for text in read.texts),
        "acceptance": acceptance((f for one in read.forwards for f in one), _PLACES),
        "curve": _as_rows(curve.seconds),
        "prefill_curve": _as_rows(curve.prefill_seconds),
        "left_out": missing,
        **found,
        **run_record(config),
    }
    write_json(place, result)
    write_tuning_page(place.with_suffix(".html"), result)
    _show(place, result)
    return result


def _check_writable(place: Path, config: TuneConfig) -> None:
    """Raise ConfigError where the result could not be written: before the work, not after."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        hint = "Give another file." if config.out else "Say with --out FILE.json where it goes."
        raise ConfigError(
            f"{place}: {place.parent} cannot be written to: {error.strerror}. {hint}"
        ) from error


def load_prompts(config: TuneConfig, model: CausalLM) -> list[list[int]]:
    """Read prompts, or sample them from the model."""
    source = config.prompts or ("bundled:24" if config.model in BUNDLED else "self:24")
    if source.startswith("self:"):
        num = source.removeprefix("self:")
        if not num.isdigit() or int(num) == 0:
            raise ConfigError(f"--prompts is {source!r}; write self:N with the number of prompts.")
        found = sample_prompts(
            model,
            min(int(num), config.num_prompts),
            max_tokens=min(config.self_prompt_tokens, model.context_tokens - 1),
            seed=config.seed,
        )
    else:
        context = model.context_tokens
        read = read_prompts(source, model.tokenizer, context_tokens=context, seed=config.seed)
        found = [prompt.ids for prompt in read]
    return found[: config.num_prompts]


def _widest(config: TuneConfig, model: CausalLM) -> int:
    return min(config.widest, max(model.context_tokens // 2, 1))


def _compile(config: TuneConfig, model: CausalLM, prompt: list[int]) -> None:
    """Decode a little, so that compiling is not inside the time; one row is a graph of its own."""
    widest = _widest(config, model)
    most = min(widest + 1, model.context_tokens - len(prompt))  # a draft fits into its budget
    for num_rows in {1, config.batch_size}:
        for decoder in calibrating(widest):
            prompts = [prompt] * num_rows
            decode_all(model, prompts, decoder, max_new_tokens=most, batch_size=num_rows)


def _plan(config: TuneConfig, model: CausalLM, prompts: Sequence[list[int]]) -> Plan:
    """Choose what fits into the time; a few forwards tell."""
    widest, rows = _widest(config, model), _rows(config)
    room = model.context_tokens - widest
    length = min(sum(map(len, prompts)) // len(prompts), room)
    clock = Clock(model, num_rows=1, max_tokens=length + widest)
    return planned(Costs(clock, length, widest), config.seconds, rows, widest)


def _read(
    config: TuneConfig,
    model: CausalLM,
    prompts: Sequence[list[int]],
    plan: Plan,
    watch: _Stopwatch,
) -> _Read:
    """Decode prompts with one wide draft until a fifth of the time is used.

    Answers that are under way by then are cut; if no answer was finished, all are.
    """
    most = min(config.max_new_tokens, model.context_tokens - max(map(len, prompts)))
    wide = DecoderConfig(strategy="window", block_size=plan.widest, pool_size=0)
    rows = min(plan.read_rows, len(prompts))

    def requests() -> Iterator[Request]:
        for index, ids in enumerate(prompts):
            if index >= rows and not watch.left(READ):
                return
            yield Request(index, ids, most)

    watch.note = "decode prompts"
    forwards: dict[int, list[Forward]] = {}
    answers: dict[int, list[int]] = {}
    events = decode(
        model,
        requests(),
        lambda request: make_strategy(wide, model.vocab_tokens, f"{config.seed}/{request.index}"),
        batch_size=rows,
        max_tokens=max(map(len, prompts)) + most,
    )
    with closing(events):
        for event in events:
            if isinstance(event, Finished):
                answers[event.request] = event.answer_ids
            else:
                forwards.setdefault(event.request, []).append(event)
            if not watch.left(READ) and _is_enough(forwards):
                break
    cut = {i: [t for f in forwards[i] for t in f.accepted] for i in forwards.keys() - answers}
    if not answers:  # else the whole ones say how long answers are
        answers, most = cut, max(map(len, cut.values()))
    order = sorted(answers)
    texts = [Text(prompts[index], answers[index]) for index in order]
    return _Read(texts, [forwards[index] for index in order], most, bool(cut) and answers is cut)


def _is_enough(forwards: dict[int, list[Forward]]) -> bool:
    """Tell whether some answer has more than its first forward."""
    return any(len(some) > _LEAST_FORWARDS for some in forwards.values())


def _measure(model: CausalLM, read: _Read, plan: Plan, watch: _Stopwatch) -> Curve:
    """Measure seconds per forward over rows, context and width, for a quarter of the time."""
    watch.note, widest = "time forwards", plan.widest
    prompts = [len(text.prompt) for text in read.texts]
    totals = [len(text.prompt) + len(text.answer) for text in read.texts]
    room = model.context_tokens - widest
    low, high = min(min(prompts), room), min(max(totals), room)
    first, last = min(prompts), min(max(prompts) + widest, model.context_tokens)
    contexts, lengths = (_spread(*ends, plan.num_contexts) for ends in ((low, high), (first, last)))
    clock, rows = _clock(model, plan.rows, high + widest + last)
    shapes = [Shape(n, c, w) for n in rows for c in contexts for w in sizes(widest)]
    prefills = [Shape(n, 0, length) for n in rows for length in lengths]
    return measure_curve(
        clock,
        shapes,
        prefills,
        seconds=max(watch.left(READ + MEASURE), min(1.0, MEASURE * watch.seconds)),
        on_turn=watch.left,  # moves the bar
        is_quick=plan.is_quick,
    )


def _spread(low: int, high: int, num: int) -> list[int]:
    """Give both ends and the middle, or only the middle."""
    middle = (low + high) // 2
    return sorted({low, middle, high}) if num > 1 else [middle]


def _rows(config: TuneConfig) -> list[int]:
    """Give 1, 4, 16, ... and the largest number of rows."""
    grown = [4**i for i in range(config.batch_size.bit_length()) if 4**i < config.batch_size]
    return [*grown, config.batch_size]


def _clock(model: CausalLM, rows: list[int], num_slots: int) -> tuple[Clock, list[int]]:
    """Make room for the most rows that fit into memory."""
    while True:
        try:
            return Clock(model, num_rows=rows[-1], max_tokens=num_slots), rows
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or "memory" not in (str(error) or "memory"):
                raise
            Console(stderr=True).print(f"out of memory at {rows[-1]} rows: left out.")
            rows = rows[:-1]


def _choose(
    config: TuneConfig,
    model: CausalLM,
    read: _Read,
    curve: Curve,
    plan: Plan,
    watch: _Stopwatch,
) -> dict[str, Any]:
    """Predict, try and choose for every number of rows."""
    imitation: Imitation = imitate(
        (forwards, text.answer) for forwards, text in zip(read.forwards, read.texts, strict=True)
    )
    predictor = Predictor(
        imitation,
        read.texts,
        curve,
        vocab_tokens=model.vocab_tokens,
        most_tokens=read.max_new_tokens,
        seed=config.seed,
    )
    every_rows = [num for num in plan.rows if curve.widest(num)]
    length = sum(len(text.prompt) for text in read.texts) / len(read.texts)
    found: dict[str, Any] = {"free_width": {}, "loop": {}, "predictions": {}, "chosen": {}}
    found["trial_tokens"] = {}
    for number, num_rows in enumerate(every_rows):
        begin, end = (0.45 + 0.55 * (number + part) / len(every_rows) for part in (0, 1))
        watch.note = f"try decoders, {num_rows} in flight"
        most = trial_tokens(
            curve.prefill(num_rows, length),
            curve(num_rows, length, 1),
            watch.left(end),
            read.max_new_tokens,
        )
        texts = [Text(text.prompt, text.answer[:most]) for text in read.texts]
        runner = Runner(model, texts, num_rows, most_tokens=most, seed=config.seed)
        cost = runner.loop_cost(curve, partial(watch.left, begin + 0.1 * (end - begin)))
        predictions = predictor.all(num_rows, plan.widest, cost)
        tried = runner.tried(predictions, partial(watch.left, end))
        key = str(num_rows)
        found["free_width"][key] = curve.free_width(num_rows)
        found["trial_tokens"][key] = most
        found["loop"][key] = cost._asdict()
        found["predictions"][key] = [_described(one) for one in _best_of_size(predictions)]
        found["chosen"][key] = _chosen(best_of(tried), tried)
    return found


def _described(one: Prediction) -> dict[str, Any]:
    return {
        "decoder": asdict(one.decoder),
        "tokens_per_forward": one.tokens_per_forward,
        "tokens_per_second": one.tokens_per_second,
    }


def _best_of_size(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Keep the fastest of every kind and block size; they come fastest first."""
    kept: dict[tuple, Prediction] = {}
    for one in predictions:
        kind = (one.decoder.strategy, one.has_branches, one.decoder.block_size)
        kept.setdefault(kind, one)
    return list(kept.values())


def _chosen(best: Tried, tried: Sequence[Tried]) -> dict[str, Any]:
    """Describe a choice beside all that was tried, AR first."""
    rows = [
        {
            **_described(one.prediction),
            "measured_tokens_per_second": one.tokens_per_second,
            "measured_tokens_per_forward": one.tokens_per_forward,
            "times_ar": one.times_ar,
            "times_ar_low": one.times_ar_low,
            "num_mismatches": one.num_mismatches,
            "is_final": one.is_final,
        }
        for one in tried
    ]
    return {**rows[list(tried).index(best)], "tried": rows}


def _as_rows(table: dict[Shape, float]) -> list[dict[str, Any]]:
    return [shape._asdict() | {"seconds": seconds} for shape, seconds in table.items()]


def _show(place: Path, result: dict[str, Any]) -> None:
    console = Console()
    console.print(chosen_table(result))
    for rows in result["chosen"]:
        console.print(why(result, rows), highlight=False, soft_wrap=True)
    console.print(f"wrote {place} and {place.with_suffix('.html').name}", highlight=False)
