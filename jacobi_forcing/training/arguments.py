"""From our settings to those of Hugging Face's Trainer."""

import math
import warnings
from importlib.util import find_spec
from pathlib import Path

from transformers import TrainingArguments

from jacobi_forcing.config import TrainConfig, check
from jacobi_forcing.data.files import read_json
from jacobi_forcing.training.processes import TIMEOUT

_LOGGED_LINES = 20  # of a short training, at least: a curve needs points
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}  # tracker -> what it needs


def training_arguments(
    config: TrainConfig, *, on_cpu: bool, num_processes: int = 1, num_sequences: int = 0
) -> TrainingArguments:
    """Make Trainer's arguments.

    Args:
        config: Of the training.
        on_cpu: Whether the model is there.
        num_processes: That train together.
        num_sequences: That are trained on.
    """
    periodic = config.eval_steps > 0
    save_steps = config.save_steps or config.eval_steps or 500
    steps = num_steps(config, num_sequences)
    options = {}
    if config.deepspeed:
        options["deepspeed"] = config.deepspeed
    if config.fsdp:
        # In checkpoints weights and optimizer lie as the shards do: gathered, they would be several
        # times the model, written by one process. The result is saved whole, by `save_model`.
        options |= {"fsdp": True}
        options["fsdp_config"] = {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
        # Without it, accumulated gradients are kept whole in every process.
        together = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
        options["accelerator_config"] = together
    with warnings.catch_warnings():
        # transformers 5.23 is renaming the setting; the older releases know this name only.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
        return TrainingArguments(
            output_dir=str(Path(config.out) / "steps"),
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_schedule,
            warmup_steps=config.warmup_ratio,
            weight_decay=config.weight_decay,
            adam_beta2=0.95,
            max_grad_norm=config.max_grad_norm,
            max_steps=config.max_steps or -1,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size // num_processes,
            gradient_accumulation_steps=config.gradient_accumulation,
            gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            torch_compile=config.compile,
            use_cpu=on_cpu,
            ddp_find_unused_parameters=False,
            ddp_timeout=int(TIMEOUT.total_seconds()),
            eval_strategy="steps" if periodic else "no",
            eval_steps=config.eval_steps or None,
            save_steps=save_steps,
            save_total_limit=2,
            load_best_model_at_end=periodic,
            metric_for_best_model="score",
            greater_is_better=True,
            logging_steps=max(1, min(25, save_steps, steps // _LOGGED_LINES)),
            disable_tqdm=True,
            # Early stopping counts on where it was.
            restore_callback_states_from_checkpoint=True,
            report_to=_trackers(config.report_to),
            remove_unused_columns=False,
            seed=config.seed,
            dataloader_pin_memory=not on_cpu,
            **options,
        )


def num_steps(config: TrainConfig, num_sequences: int) -> int:
    """Give the number of optimizer steps of a training, as Trainer counts them."""
    per_epoch = math.ceil(num_sequences / config.batch_size / config.gradient_accumulation)
    return config.max_steps or math.ceil(config.epochs * max(1, per_epoch))


def check_installed(config: TrainConfig) -> None:
    """Raise ConfigError for a tracker or DeepSpeed that is not there, or cannot work here."""
    for name in _trackers(config.report_to):
        check(
            name in _PACKAGES,
            f"--report-to names {name!r}; known are {', '.join(_PACKAGES)}.",
        )
        check(
            find_spec(_PACKAGES[name]) is not None,
            f"--report-to names {name}, which is not installed. Run: pip install {_PACKAGES[name]}",
        )
    if config.deepspeed:
        check(
            find_spec("deepspeed") is not None,
            f"--deepspeed is {config.deepspeed}, but DeepSpeed is not installed. Run: pip install "
            "deepspeed",
        )
        stage = read_json(Path(config.deepspeed)).get("zero_optimization", {}).get("stage", 0)
        check(
            stage in (0, 1, 2),
            f"--deepspeed: {config.deepspeed} asks for ZeRO stage {stage}, which leaves no process "
            "a whole model to decode with. Take stage 2, or --fsdp.",
        )


def _trackers(report_to: str) -> list[str]:
    return [name.strip() for name in report_to.split(",") if name.strip()]
