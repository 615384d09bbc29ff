"""Settings of training, averaging, and whole recipes."""

from dataclasses import dataclass

from jacobi_forcing.config.base import (
    DTYPES,
    NOISE_SOURCES,
    Base,
    Machine,
    check,
    listing,
    needed,
    option,
    split,
)
from jacobi_forcing.config.decoding import STRATEGIES
from jacobi_forcing.config.hardware import GPUS
from jacobi_forcing.errors import ConfigError

MASKS = ("noise-conditioned", "clean-context", "windowed")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Machine):
    """Train a model on packed sequences: its own answers, clean and noisy side by side."""

    model: str = needed("what to start from: directory, hub id, tiny-base or tiny-forced")
    packed: str = needed("folder that `jacobi pack` wrote")
    out: str = needed("folder for the checkpoint; a run that was stopped there continues")
    dtype: str = option(
        "float32",
        "weights' type, in training and in the checkpoint; in bfloat16 the updates of a low "
        "learning rate are rounded away: take --bf16, and this only where memory forbids",
        DTYPES,
    )
    save_dtype: str = option(
        "",
        "type of the trained weights where they are written, rounded once, at the end; the "
        "weights' own by default",
        ("", *DTYPES[1:]),
    )
    learning_rate: float = option(1e-5, "peak learning rate")
    lr_schedule: str = option(
        "cosine", "learning rate after the warm-up", ("cosine", "linear", "constant")
    )
    warmup_ratio: float = option(0.03, "part of the steps over which the rate rises")
    weight_decay: float = option(0.0, "AdamW weight decay")
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm")
    max_steps: int = option(0, "optimizer steps; 0 trains for `epochs`")
    epochs: float = option(1.0, "passes over the data, where max_steps is 0")
    batch_size: int = option(8, "sequences per forward, of all processes together")
    gradient_accumulation: int = option(1, "forwards per optimizer step")
    gradient_checkpointing: bool = option(
        False, "keep each layer's input only, and run the layer again in the backward pass"
    )
    loss_chunk_tokens: int = option(
        512, "tokens whose logits exist at once; 0 for all of a batch's, tokens x vocabulary"
    )
    fsdp: bool = option(
        False, "of several processes: shard weights, gradients and optimizer state (FSDP2, GPUs)"
    )
    deepspeed: str = option("", "DeepSpeed's JSON file, ZeRO stage 1 or 2; needs deepspeed")
    lora_rank: int = option(0, "train LoRA adapters of this rank instead of the weights; 0 for no")
    lora_alpha: int = option(0, "... whose product is scaled by alpha / rank; 0 for twice the rank")
    lora_dropout: float = option(0.0, "... with this dropout on their inputs")
    lora_targets: str = listing(
        "all-linear",
        "... beside these layers, names separated by commas; all-linear leaves out the LM head",
    )
    merge_adapters: bool = option(
        False, "save the weights with the adapters in them, and not the adapters alone"
    )
    quantize: str = option(
        "", "hold the frozen weights in nf4, 4 bits (QLoRA); needs bitsandbytes, a GPU", ("", "nf4")
    )
    states: str = option(
        "recorded",
        "noisy tokens: recorded (the blocks in the packed data, the paper's way), or online "
        "(drafts anywhere in the answer, made anew at every visit by the model as it is by then)",
        ("recorded", "online"),
    )
    online_iterations: int = option(
        2, "online: a step's drafts are noise, decoded 0 to this many Jacobi iterations on"
    )
    drafts_per_block: int = option(4, "online: drafts for every block_size tokens of the answer")
    noise: str = option("text", "online: where noise tokens are drawn from", NOISE_SOURCES)
    mask: str = option("noise-conditioned", "what noisy blocks see before them", MASKS)
    ar_weight: float = option(10.0, "weight of the AR loss beside the consistency loss")
    ar_weight_schedule: str = option(
        "constant",
        "constant, or linear: from ar_weight at the first step to ar_weight_end at the last",
        ("constant", "linear"),
    )
    ar_weight_end: float = option(0.0, "linear: the AR weight at the last step")
    ar_on_prompt: bool = option(False, "count prompt tokens in the AR loss, as the reference does")
    ar_teacher: str = option(
        "fixed-point",
        "who the clean stream learns from: the bare tokens of the fixed point (the paper's way), "
        "or every token's whole distribution under the model as it was",
        ("fixed-point", "frozen"),
    )
    consistency_from: str = option(
        "first-difference",
        "which tokens of a noisy block learn: from its first wrong one on, or all",
        ("first-difference", "start"),
    )
    consistency_reach: int = option(
        0,
        "tokens of a noisy block that learn, counted from its first wrong one; 0 for all; online: "
        "tokens of a draft, 0 for the block size",
    )
    consistency_weight: float = option(
        1.0, "weight of the consistency loss; 0 for AR training only"
    )
    consistency_per: str = option(
        "token",
        "what the consistency loss is a mean over: tokens that learn, or pairs of blocks, each "
        "the mean over its own tokens",
        ("token", "pair"),
    )
    consistency_decay: float = option(
        1.0,
        "each token of a noisy block weighs this times the one before it: below 1, the tokens "
        "that are accepted first count most",
    )
    teacher: str = option(
        "self",
        "who the noisy stream learns from: the model itself, the model as it was, or the bare "
        "tokens of the fixed point",
        ("self", "frozen", "fixed-point"),
    )
    frozen_model: str = option(
        "",
        "the frozen teacher, and the judge of likelihood, where that is not the model that this "
        "training starts from: in later rounds `force` takes the first one's start",
    )
    bf16: bool = option(
        False, "compute in bfloat16 (autocast), the weights stay --dtype; pays on GPUs and AMX CPUs"
    )
    compile: bool = option(False, "torch.compile the model")
    nan_gradients: str = option(
        "stop",
        "on a non-finite gradient: stop and name the prompts, or skip the step",
        ("stop", "skip"),
    )
    eval_steps: int = option(0, "steps between decoder evaluations; 0 evaluates at the end only")
    eval_prompts: str = option(
        "packed:32",
        "packed:N (prompts kept out of training, judged by likelihood), or bundled:N, "
        "bundled:math:N or bundled:code:N (held-out problems)",
    )
    eval_strategy: str = option("window", "decoder of the evaluations", STRATEGIES)
    eval_block_size: int = option(0, "its block size; 0 takes the data's")
    eval_max_new_tokens: int = option(256, "longest answer of the evaluations, in tokens")
    max_accuracy_drop: float = option(0.01, "a best checkpoint loses at most this much accuracy")
    max_nll_rise: float = option(
        0.15,
        "... or, without problems, a text whose negative log-likelihood under the starting model "
        "is at most this part higher than before",
    )
    patience: int = option(
        0, "stop after so many evaluations in a row without a better score; 0 never does"
    )
    save_steps: int = option(
        0, "steps between checkpoints, a multiple of eval_steps; 0 takes eval_steps, or 500"
    )
    keep_checkpoints: bool = option(
        False, "leave them behind when the training has finished, as many as it keeps while it runs"
    )
    report_to: str = listing(
        "", "also log to these, separated by commas: tensorboard, wandb; each must be installed"
    )
    seed: int = option(0, "random seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.max_steps > 0 or self.epochs > 0,
            f"--epochs is {self.epochs} and --max-steps is {self.max_steps}; one must be above 0.",
        )
        check(self.learning_rate > 0, f"--learning-rate is {self.learning_rate}, must be above 0.")
        check(
            self.states == "recorded" or self.mask == "clean-context",
            f"--mask is {self.mask}, but the drafts of --states online see clean text, as decoding "
            "does. Add --mask clean-context.",
        )
        check(self.warmup_ratio < 1, f"--warmup-ratio is {self.warmup_ratio}, must be below 1.")
        check(
            0 < self.consistency_decay <= 1,
            f"--consistency-decay is {self.consistency_decay}, must be above 0 and at most 1.",
        )
        check(
            not self.patience or self.eval_steps > 0,
            f"--patience is {self.patience}, but without --eval-steps nothing is evaluated on the "
            "way. Add --eval-steps.",
        )
        check(
            not self.eval_steps or self.save_steps % self.eval_steps == 0,
            f"--save-steps {self.save_steps} is no multiple of --eval-steps {self.eval_steps}: the "
            "best checkpoint is one that was evaluated. Change one of them.",
        )
        check(
            not (self.fsdp and self.deepspeed),
            "--fsdp and --deepspeed both shard: take one of them.",
        )
        self._check_adapters()
        self._check_idle()

    @property
    def checks_answers(self) -> bool:
        """Whether evaluations ask a checker, and not the likelihood under the original."""
        return self.eval_prompts.partition(":")[0] == "bundled"

    @property
    def needs_original(self) -> bool:
        """Whether the model as it was teaches, or judges likelihood."""
        return not self.checks_answers or "frozen" in (self.teacher, self.ar_teacher)

    @property
    def keeps_original(self) -> bool:
        """Whether that is a second network in memory: without its adapters, one is the original."""
        return self.needs_original and (not self.lora_rank or bool(self.frozen_model))

    def _check_adapters(self) -> None:
        check(
            not self.save_dtype or not self.lora_rank or self.merge_adapters,
            f"--save-dtype is {self.save_dtype}, but adapters are saved alone, as they were "
            "trained. Add --merge-adapters, or leave it out.",
        )
        check(self.lora_dropout < 1, f"--lora-dropout is {self.lora_dropout}, must be below 1.")
        for name in ("lora_alpha", "lora_dropout", "merge_adapters", "quantize"):
            flag = "--" + name.replace("_", "-")
            check(
                not getattr(self, name) or self.lora_rank > 0,
                f"{flag} is for adapters, but --lora-rank is 0. Add --lora-rank 16, say.",
            )

    def _check_idle(self) -> None:
        """Refuse what was set and decides nothing; defaults stand for what was not set."""
        online = (self.states == "online", "--states is recorded", "--states online")
        linear = (
            self.ar_weight_schedule == "linear",
            "--ar-weight-schedule is constant",
            "--ar-weight-schedule linear",
        )
        needs = {
            "online_iterations": online,
            "drafts_per_block": online,
            "noise": online,
            "ar_weight_end": linear,
            "lora_targets": (self.lora_rank > 0, "--lora-rank is 0", "--lora-rank 16, say"),
        }
        for name, (is_used, found, wanted) in needs.items():
            value = getattr(self, name)
            check(
                is_used or value == getattr(TrainConfig, name),
                f"--{name.replace('_', '-')} is {value}, but {found}, so it would do nothing. Add "
                f"{wanted}, or leave it out.",
            )


@dataclass(frozen=True, kw_only=True)
class AverageConfig(Base):
    """Average models' weights: most of a forced model's speed, and accuracy back from its start."""

    models: str = needed(
        "two or more, separated by commas: the start, and what it was trained to; those that hold "
        "a comma between quotation marks",
        many=True,
    )
    weights: str = needed("as many numbers, separated by commas; together they make 1", many=True)
    out: str = needed("folder for the checkpoint")
    dtype: str = option("float32", "type of the saved weights", ("float32", "bfloat16", "float16"))

    def __post_init__(self) -> None:
        super().__post_init__()
        names, weights = self.names, self.numbers
        check(
            len(weights) == len(names) > 1 and all(names),
            f"--models names {len(names)} and --weights {len(weights)}; needed are two or more of "
            "both.",
        )
        check(
            all(0 <= w <= 1 for w in weights) and abs(sum(weights) - 1) < 1e-6,
            f"--weights is {self.weights!r}, must be from 0 to 1 and make 1 together.",
        )

    @property
    def names(self) -> list[str]:
        """Every model's name."""
        return split(self.models)

    @property
    def numbers(self) -> list[float]:
        """Every model's weight."""
        try:
            return [float(weight) for weight in split(self.weights)]
        except ValueError:
            raise ConfigError(
                f"--weights is {self.weights!r}, must be numbers separated by commas."
            ) from None


@dataclass(frozen=True, kw_only=True)
class ForceConfig(Base):
    """Run collect, pack, train and evaluate for one or more rounds from one recipe file."""

    recipe: str = needed("TOML file; see recipes/tiny/force.toml")
    model: str = option("", "start from this model instead of the recipe's")
    out: str = option("", "write to this folder instead of the recipe's")
    dry_run: bool = option(
        False,
        "only check: settings, prompts, every stage on a tiny random model of the same "
        "architecture; estimate memory and time, and list the commands; offline, on the CPU",
    )
    gpu: str = option("H200", "dry run: the GPU that the estimates are for", tuple(GPUS))
    gpus: int = option(1, "dry run: how many of them work together")
