"""train: one packed forward for both losses, tested by our decoder, the best checkpoint kept."""

import copy
import dataclasses
import logging
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from transformers import EarlyStoppingCallback, PreTrainedModel, set_seed
from transformers.trainer_utils import TrainOutput

from jacobi_forcing.config import TrainConfig, check
from jacobi_forcing.data.files import locked, read_json, sha256, write_json
from jacobi_forcing.data.packed import Packed, num_tokens, read_packed, read_packed_manifest
from jacobi_forcing.data.record import RECORD, claim, run_record
from jacobi_forcing.data.trajectories import MANIFEST, tokenizer_fingerprint
from jacobi_forcing.drawing.training import PAGE, write_training_page
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.adapters import Base
from jacobi_forcing.models.causal_lm import wrap
from jacobi_forcing.progress import duration, progress_bar
from jacobi_forcing.stages.judge import keeps_limit, split
from jacobi_forcing.stages.machine import lasting_name, open_model, save_model
from jacobi_forcing.stop import Stopped, StopRequest, telling
from jacobi_forcing.training.adapters import WithoutAdapters, add_adapters
from jacobi_forcing.training.arguments import check_installed, num_steps, training_arguments
from jacobi_forcing.training.batch import Collator, PackedDataset
from jacobi_forcing.training.callbacks import StepReport, StopAfterStep, described
from jacobi_forcing.training.defaults import untuned
from jacobi_forcing.training.memory import estimate, explained
from jacobi_forcing.training.online import DraftCollator, OnlineDrafts
from jacobi_forcing.training.processes import join_processes, one_voice
from jacobi_forcing.training.trainer import JacobiTrainer, Metrics

logger = logging.getLogger(__name__)

# What may change while a run goes on: it decides nothing, or only how it is run.
_FREE = (
    *("out", "threads", "device", "nan_gradients", "report_to", "merge_adapters", "save_dtype"),
    *("gradient_checkpointing", "loss_chunk_tokens", "keep_checkpoints"),
)
_SPLIT = ("batch_size", "gradient_accumulation")  # free while their product is the same


def run(config: TrainConfig) -> Path:
    """Train `config.model` on `config.packed`; return `config.out`, a plain Hugging Face directory.

    Checkpoints lie in `out/steps` while it runs; a run that was stopped continues from the last.
    A first Ctrl-C, SIGTERM or SIGHUP ends it with a checkpoint of the step that is being made,
    a second one at once. One that has finished is left as it is, without checkpoints: each is
    several times the model, and nothing would continue from it. Processes that torchrun or
    accelerate started train together; the first one writes.

    Raises:
        JacobiForcingError: Bad settings, data that was made for another model or block size, a
            folder begun with other settings, NaN gradients, or too little memory.
        Stopped: A signal ended it; it says where the same command goes on.
    """
    processes = join_processes(config)
    with one_voice(processes), telling(lambda: _kept(Path(config.out))):
        return _run(config, processes)


def _run(config: TrainConfig, processes: PartialState) -> Path:
    out = Path(config.out)
    check_installed(config)
    manifest = read_packed_manifest(config.packed)  # before the model is loaded: a wrong path shows
    model = open_model(config)
    _check_fit(config, model, manifest)
    sequences = read_packed(config.packed, manifest["block_size"])
    weights = model.weights_fingerprint()
    num_parameters = sum(p.numel() for p in model.network.parameters())
    set_seed(config.seed)  # adapters begin at random
    network = add_adapters(model.network, config) if config.lora_rank else model.network
    original = _original(config, model, network)
    training, test = split(config, model, original, sequences, manifest)
    inputs = {f"{config.packed}/{MANIFEST}": sha256(Path(config.packed) / MANIFEST)}
    facts = dataclasses.asdict(config) | inputs | {"weights": weights}
    if config.frozen_model and original is not None:
        facts["frozen_weights"] = original.weights_fingerprint()
    # A checkpoint brings its learning rate and data order along: others would be ignored.
    with processes.main_process_first():
        claim(out, facts, free=_free(config))
    with locked(out / "settings.json") if processes.is_main_process else nullcontext():
        if (out / RECORD).exists():
            logger.info("%s: is trained already; nothing is left to do.", out)
            return out
        note = untuned(
            config,
            num_parameters=num_parameters,
            num_steps=num_steps(config, len(training)),
            block_size=manifest["block_size"],
        )
        if note:
            logger.info("%s", note)
        record = run_record(config, block_size=manifest["block_size"], inputs=inputs)
        trainer = _make_trainer(config, model, network, original, manifest, training, test)
        _train(config, processes, model, weights, training, trainer, record)
    return out


def _free(config: TrainConfig) -> tuple[str, ...]:
    """Name what may differ from what `config.out` was begun with."""
    path = Path(config.out) / "settings.json"
    if not path.exists():
        return _FREE
    begun_with = read_json(path)
    theirs = math.prod(begun_with.get(name, 0) for name in _SPLIT)
    return _FREE + (_SPLIT if math.prod(getattr(config, name) for name in _SPLIT) == theirs else ())


def _train(
    config: TrainConfig,
    processes: PartialState,
    model: CausalLM,
    weights: str,
    sequences: list[Packed],
    trainer: JacobiTrainer,
    record: dict,
) -> None:
    """Train, save what was trained, and `record` with what was found."""
    out = Path(config.out)
    shown = processes.is_main_process
    with progress_bar("test of the start", 0, shown=shown):
        start = trainer.measure()
    logger.info("before training: %s", described(start))
    # As it is collated: drafts made in training are longer than the noisy blocks they replace.
    longest = trainer.data_collator([max(sequences, key=num_tokens)])["input_ids"].shape[1]
    needed = estimate(trainer.model, config, longest, processes.num_processes)
    with explained(needed, config):
        result = _make_steps(config, processes, trainer)
    with progress_bar("test of what is saved", 0, shown=shown):
        final = trainer.measure()
    trained = trainer.whole_network()
    if processes.is_main_process:
        _save(config, model, trained, weights)
        record |= {
            "num_sequences": len(sequences),
            "num_processes": processes.num_processes,
            "steps": result.global_step,
            "before": start,
            "after": final,
            "best_checkpoint_step": trainer.state.best_global_step,
            "keeps_limit": keeps_limit(config, trainer, result.global_step, final),
            "log": trainer.state.log_history,
        }
        write_training_page(out / PAGE, record)
        write_json(out / RECORD, record)
        _say_what_came_out(config, record, result.metrics["train_runtime"])
        if not config.keep_checkpoints:
            for folder in (out / "steps").glob("checkpoint-*"):
                shutil.rmtree(folder)
            with suppress(OSError):  # what a tracker wrote beside them stays
                (out / "steps").rmdir()
    processes.wait_for_everyone()


def _make_steps(
    config: TrainConfig, processes: PartialState, trainer: JacobiTrainer
) -> TrainOutput:
    """Train, from the last checkpoint on; raises Stopped behind a step with one of its own."""

    def promise() -> str:
        step = trainer.state.global_step
        work = f"the test after step {step}" if trainer.is_testing else f"step {step + 1}"
        return f"{work} is finished first, and a checkpoint written."

    request = StopRequest(promise)
    total = num_steps(config, len(trainer.train_dataset))
    checkpoint = _last_checkpoint(Path(config.out))
    done = _step_of(checkpoint) if checkpoint else 0
    shown = processes.is_main_process
    with progress_bar("train", total, done, "steps", shown=shown) as bar, request.listening():
        trainer.add_callback(StepReport(bar, trainer))
        trainer.add_callback(StopAfterStep(request, trainer))
        result = trainer.train(resume_from_checkpoint=checkpoint)
    if request.number:
        raise Stopped(request.number, _kept(Path(config.out), trainer.state.max_steps))
    return result


def _kept(out: Path, num_steps: int = 0) -> str:
    """Say what a training that was stopped has kept."""
    checkpoint = _last_checkpoint(out)
    if checkpoint is None:
        return "No checkpoint was written yet, so the same command begins again."
    of_all = f" of {num_steps}" if num_steps else ""
    return f"Step {_step_of(checkpoint)}{of_all} is finished, and {checkpoint} written."


def _say_what_came_out(config: TrainConfig, record: dict, seconds: float) -> None:
    """Close a training with a summary: how the losses and the decoder's figures changed."""
    out, before, after = Path(config.out), record["before"], record["after"]
    losses = [line for line in record["log"] if "ar_loss" in line]
    logger.info("trained %d steps; this run took %s", record["steps"], duration(seconds))
    for name, title in (("ar_loss", "AR loss"), ("consistency_loss", "consistency loss")):
        if losses:
            logger.info("  %s %.4g -> %.4g", title, losses[0][name], losses[-1][name])
    logger.info("  before: %s", described(before))
    logger.info("  after:  %s", described(after))
    if record["best_checkpoint_step"]:
        logger.info("  kept: step %d, the best of the tests", record["best_checkpoint_step"])
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    what = "adapters" if config.lora_rank and not config.merge_adapters else "weights"
    logger.info("wrote %s: %s of %.4g MB; %s has the curves", out, what, size / 1e6, PAGE)


def _save(config: TrainConfig, model: CausalLM, trained: nn.Module, weights: str) -> None:
    """Save the trained model: its weights, or its adapters and the name of their base."""
    out = Path(config.out)
    if not config.lora_rank or config.merge_adapters:
        whole = trained.merge_and_unload() if config.lora_rank else trained
        if config.save_dtype:
            whole = whole.to(getattr(torch, config.save_dtype))
        save_model(out, model, whole)
    else:
        dtype = str(model.dtype).removeprefix("torch.")
        known = None if config.quantize else weights
        save_model(out, model, trained, Base(lasting_name(config.model), dtype, known))


def _check_fit(config: TrainConfig, model: CausalLM, manifest: dict) -> None:
    if manifest["tokenizer"] != tokenizer_fingerprint(model.tokenizer):
        raise DataError(
            f"{config.packed}: was made with another tokenizer than that of {config.model}, so its "
            "ids mean other text. Collect and pack again with this model."
        )
    if config.states == "recorded" and manifest.get("record") == "answers":
        raise ConfigError(
            f"{config.packed}: holds answers without Jacobi states. Train with --states online, or "
            "collect with --record states."
        )
    size = config.eval_block_size
    if size and size > model.context_tokens:
        raise ConfigError(f"--eval-block-size {size} is larger than the model's context.")


def _original(
    config: TrainConfig, model: CausalLM, network: nn.Module | None = None
) -> CausalLM | None:
    """Give the frozen teacher and judge of likelihood; None where nothing asks for either.

    Args:
        config: Of the training.
        model: What is trained.
        network: Its network, with adapters if they are trained: without them, it is the original.
    """
    if not config.needs_original:
        check(
            not config.frozen_model,
            f"--frozen-model is {config.frozen_model}, but no teacher is frozen and no likelihood "
            "is judged. Add --ar-teacher frozen or --teacher frozen, or leave it out.",
        )
        return None
    if not config.frozen_model and config.lora_rank:
        return wrap(config.model, WithoutAdapters(network), model.tokenizer)
    if not config.frozen_model:
        copied = copy.deepcopy(model.network)
        return wrap(config.model, copied.eval().requires_grad_(False), model.tokenizer)
    original = open_model(dataclasses.replace(config, model=config.frozen_model, quantize=""))
    if tokenizer_fingerprint(original.tokenizer) != tokenizer_fingerprint(model.tokenizer):
        raise ConfigError(
            f"--frozen-model {config.frozen_model} has another tokenizer than {config.model}, so "
            "it cannot teach it. Name the model that this one was made from."
        )
    original.network.requires_grad_(False)
    return original


def _make_trainer(
    config: TrainConfig,
    model: CausalLM,
    network: nn.Module,
    original: CausalLM | None,
    manifest: dict,
    sequences: list[Packed],
    test: Callable[[PreTrainedModel], Metrics],
) -> JacobiTrainer:
    set_seed(config.seed)
    check(
        not config.gradient_checkpointing or model.network.supports_gradient_checkpointing,
        f"--gradient-checkpointing: {model.config.model_type} does not support it. Leave it out.",
    )
    arguments = training_arguments(
        config,
        on_cpu=model.device.type == "cpu",
        num_processes=PartialState().num_processes,
        num_sequences=len(sequences),
        use_cache=getattr(model.network.config, "use_cache", True),
    )
    wants_frozen = "frozen" in (config.teacher, config.ar_teacher)
    patience = EarlyStoppingCallback(config.patience) if config.patience else None
    block_size = manifest["block_size"]
    options = {
        "ar_on_prompt": config.ar_on_prompt,
        "consistency_from": config.consistency_from,
        "consistency_reach": config.consistency_reach,
    }
    if config.states == "online":
        draft_tokens = config.consistency_reach or block_size
        collator = DraftCollator(
            block_size,
            model.pad_id,
            draft_tokens=draft_tokens,
            drafts_per_block=config.drafts_per_block,
            **options,
        )
        online = OnlineDrafts(
            draft_tokens,
            config.online_iterations,
            noise=config.noise,
            vocab_tokens=model.vocab_tokens,
            pad_id=model.pad_id,
            from_start=config.consistency_from == "start",
            seed=config.seed,
        )
    else:
        collator, online = Collator(block_size, model.pad_id, **options), None
    return JacobiTrainer(
        model=network,
        args=arguments,
        callbacks=[patience] if patience else None,
        train_dataset=PackedDataset(sequences),
        eval_dataset=PackedDataset(sequences[:1]),  # Trainer wants one; `evaluate` decodes instead
        data_collator=collator,
        mask=config.mask,
        window=manifest["window"],
        ar_weight=config.ar_weight,
        ar_weight_end=config.ar_weight_end if config.ar_weight_schedule == "linear" else None,
        consistency_weight=config.consistency_weight,
        consistency_per=config.consistency_per,
        consistency_decay=config.consistency_decay,
        teacher=config.teacher,
        ar_teacher=config.ar_teacher,
        frozen=original.network if wants_frozen and original is not None else None,
        online=online,
        nan_gradients=config.nan_gradients,
        bf16_autocast=config.bf16,
        chunk_tokens=config.loss_chunk_tokens,
        decoder_test=test,
    )


def _last_checkpoint(out: Path) -> str | None:
    """Find the newest checkpoint that is whole: its trainer_state.json is written last."""
    whole = [state.parent for state in (out / "steps").glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=_step_of, default=None)
    return newest and str(newest)


def _step_of(checkpoint: Path | str) -> int:
    return int(str(checkpoint).rpartition("-")[2])
