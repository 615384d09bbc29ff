"""What a training is judged by: prompts kept out of it, our decoder on them, and two limits."""

import hashlib
import logging
from collections.abc import Callable

from transformers import PreTrainedModel

from jacobi_forcing.config import DecoderConfig, TrainConfig
from jacobi_forcing.data.packed import Document, Packed
from jacobi_forcing.data.prompts import read_prompts
from jacobi_forcing.decoding.measure import (
    Decoded,
    decode_all,
    distinct_ngrams,
    negative_log_likelihood,
)
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.causal_lm import wrap
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.training.adapters import WithoutAdapters
from jacobi_forcing.training.trainer import JacobiTrainer, Metrics

logger = logging.getLogger(__name__)

_MOST_HELD_OUT = 4  # one prompt in so many, at most, is kept for tests


def split(
    config: TrainConfig,
    model: CausalLM,
    original: CausalLM | None,
    sequences: list[Packed],
    manifest: dict,
) -> tuple[list[Packed], Callable[[PreTrainedModel], Metrics]]:
    """Choose the training sequences, and make the test that `eval_prompts` asks for.

    Args:
        config: Of the training.
        model: What is trained.
        original: Judges likelihood; None where nothing asks for it.
        sequences: All that `config.packed` holds.
        manifest: Of `config.packed`.

    Returns:
        The sequences to train on, and the test; its first call is taken for the start's.

    Raises:
        JacobiForcingError: `eval_prompts` names nothing, or there is no prompt to spare.
    """
    kind, _, count = config.eval_prompts.partition(":")
    block_size = config.eval_block_size or manifest["block_size"]
    if kind == "packed" and count.isdigit() and int(count):
        training, prompts = _hold_out(config, sequences, int(count))
        return training, _likelihood_test(config, model, original, prompts, block_size)
    if config.checks_answers:
        return sequences, _accuracy_test(config, model, block_size)
    raise ConfigError(
        f"--eval-prompts is {config.eval_prompts!r}; write bundled:N, bundled:math:N, "
        "bundled:code:N or packed:N."
    )


def _hold_out(
    config: TrainConfig, sequences: list[Packed], num_prompts: int
) -> tuple[list[Packed], list[list[int]]]:
    """Keep the prompts of the highest indices out of training; return the rest, and them.

    What is kept out is a text, whatever its index: of mixed rounds several may answer it.
    """
    last = {_hash(d): d for sequence in sequences for d in sequence}
    found = sorted(last, key=lambda key: last[key].prompt_index)
    if len(found) < 2:
        raise DataError(
            f"{config.packed}: holds the sequences of one prompt; needed are two, one to train "
            "on and one to evaluate with. Collect more prompts."
        )
    most = max(1, len(found) // _MOST_HELD_OUT)
    kept = found[-min(num_prompts, most) :]
    asked = "" if num_prompts <= most else f"; {config.eval_prompts} asks for {num_prompts}"
    logger.info(
        "%d of %d prompts are kept out of training, for tests (at most one in %d%s).",
        len(kept),
        len(found),
        _MOST_HELD_OUT,
        asked,
    )
    held = set(kept)
    training = [tuple(d for d in sequence if _hash(d) not in held) for sequence in sequences]
    return [one for one in training if one], [last[key].prompt.tolist() for key in kept]


def _hash(document: Document) -> bytes:
    """Name a prompt's text in a few bytes."""
    return hashlib.blake2b(document.prompt.tobytes(), digest_size=16).digest()


def _accuracy_test(
    config: TrainConfig, start: CausalLM, block_size: int
) -> Callable[[PreTrainedModel], Metrics]:
    """Score held-out problems; what lost at most `max_accuracy_drop` is judged by its speed."""
    prompts = read_prompts(
        config.eval_prompts,
        start.tokenizer,
        context_tokens=start.context_tokens,
        seed=1,
        held_out=True,
    )
    floor: list[float] = []
    drift = _drift_of([p.ids for p in prompts])

    def test(network: PreTrainedModel) -> Metrics:
        model = wrap(config.model, network, start.tokenizer)
        decoded = _decode(config, model, [p.ids for p in prompts], block_size)
        texts = [model.tokenizer.decode(a, skip_special_tokens=True) for a in decoded.answers]
        verdicts = check_answers([(p.problem, t) for p, t in zip(prompts, texts, strict=True)])
        accuracy = sum(verdicts) / len(verdicts)
        if not floor:
            floor.append(accuracy - config.max_accuracy_drop)
        speed = decoded.tokens_per_forward
        # Below the floor no speed makes up for it: such checkpoints rank by accuracy, under 0.
        score = speed if accuracy >= floor[0] else accuracy - 1
        found = {"accuracy": accuracy, "tokens_per_forward": speed, "score": score}
        return found | _acceptance(decoded) | drift(model, decoded.answers)

    return test


def _likelihood_test(
    config: TrainConfig,
    start: CausalLM,
    original: CausalLM,
    prompts: list[list[int]],
    block_size: int,
) -> Callable[[PreTrainedModel], Metrics]:
    """Judge text without a checker: by how likely the original finds it."""
    ceiling: list[float] = []
    drift = _drift_of(prompts)

    def test(network: PreTrainedModel) -> Metrics:
        model = wrap(config.model, network, start.tokenizer)
        decoded = _decode(config, model, prompts, block_size)
        judge = original
        if isinstance(original.network, WithoutAdapters):
            # Where the trained network is sharded, this process alone could not run it.
            judge = wrap(config.model, WithoutAdapters(network), start.tokenizer)
        nll = negative_log_likelihood(judge, prompts, decoded.answers)
        if not ceiling:
            ceiling.append(nll * (1 + config.max_nll_rise))
        speed = decoded.tokens_per_forward
        score = speed if nll <= ceiling[0] else -nll
        return {
            "nll": nll,
            "distinct_8grams": distinct_ngrams(decoded.answers),
            "tokens_per_forward": speed,
            "score": score,
            **_acceptance(decoded),
            **drift(model, decoded.answers),
        }

    return test


def _acceptance(decoded: Decoded) -> Metrics:
    """Measure how often guesses at some places behind the text are accepted."""
    return {f"accepted_at_{place}": decoded.acceptance(place) for place in (1, 2, 4, 8)}


def _drift_of(prompts: list[list[int]]) -> Callable[[CausalLM, list[list[int]]], Metrics]:
    """Measure how far a model has moved from its start, on the start's own greedy answers.

    Returns:
        A function of a model and its answers; its first call is taken for the start's.
    """
    start: list[tuple[list[list[int]], float]] = []

    def drift(model: CausalLM, answers: list[list[int]]) -> Metrics:
        if not start:
            start.append((answers, negative_log_likelihood(model, prompts, answers)))
        before, nll = start[0]
        return {"drift": negative_log_likelihood(model, prompts, before) - nll}

    return drift


def _decode(config: TrainConfig, model: CausalLM, prompts: list[list[int]], block_size: int):
    room = model.context_tokens - max(map(len, prompts))
    return decode_all(
        model,
        prompts,
        DecoderConfig(strategy=config.eval_strategy, block_size=block_size),
        max_new_tokens=min(config.eval_max_new_tokens, room),
        batch_size=32,
    )


def keeps_limit(
    config: TrainConfig, trainer: JacobiTrainer, num_steps: int, final: Metrics
) -> bool:
    """Tell whether what is saved has lost little enough, and warn where it has not.

    Args:
        config: Of the training.
        trainer: Which has trained.
        num_steps: That it made.
        final: What it measured of what is saved.
    """
    if final["score"] >= 0:  # see `_accuracy_test` and `_likelihood_test`
        return True
    limit = f"--max-nll-rise {config.max_nll_rise}"
    if config.checks_answers:
        limit = f"--max-accuracy-drop {config.max_accuracy_drop}"
    logger.warning(
        "%s: no evaluated checkpoint kept %s; that of step %d of %d was taken. Lower "
        "--learning-rate, or evaluate more often (--eval-steps), in another --out.",
        config.out,
        limit,
        trainer.state.best_global_step or num_steps,
        num_steps,
    )
    return False
