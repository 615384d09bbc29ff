"""Settings: one frozen dataclass per stage, the only place where a default is written.

Command-line flags and recipe files derive from these, and every stage saves its resolved settings
beside its output. This module imports neither torch nor transformers, so that `--help` is quick.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from jacobi_forcing.errors import ConfigError

STRATEGIES = ("autoregressive", "jacobi", "window", "multiblock", "prompt-lookup")
POOLS = ("states", "text", "both")
NOISE_SOURCES = ("text", "vocabulary")
SCHEDULES = ("progressive", "random", "reverse")
RECORDS = ("states", "answers")
ENGINES = ("local", "ray")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MASKS = ("noise-conditioned", "clean-context", "windowed")


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """Declare a setting; `help` is also its text in `jacobi STAGE --help`."""
    return field(default=default, metadata={"help": help, "choices": choices})


def needed(help: str) -> Any:
    """Declare a setting without a default."""
    return field(metadata={"help": help, "choices": None})


def check(ok: bool, message: str) -> None:
    """Raise ConfigError with `message` unless `ok`."""
    if not ok:
        raise ConfigError(message)


def refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ConfigError for the first name that is not known, with the nearest one that is."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
            raise ConfigError(f"{where}: unknown setting {name!r}. {hint}")


def from_mapping(config_type: type, settings: Mapping[str, Any], where: str) -> Any:
    """Make a stage's config; raises ConfigError that names `where` and the setting."""
    known = {f.name: f for f in fields(config_type)}
    refuse_unknown(settings, known, where)
    missing = [name for name, f in known.items() if name not in settings and f.default is MISSING]
    check(not missing, f"{where}: missing setting {', '.join(missing)}.")
    try:
        return config_type(**settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class _Base:
    """Checks of every stage: types fit, choices are known, numbers are finite and in range."""

    _SEED_BITS = 32  # what every library underneath takes

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, choices = getattr(self, setting.name), setting.metadata.get("choices")
            _check_type(setting.name, value, setting.type)
            found = f"--{setting.name.replace('_', '-')} is {value!r}"
            if choices is not None:
                check(value in choices, f"{found}, must be one of {', '.join(choices)}.")
            elif setting.type is str:
                check(value.strip() != "" or setting.default == "", f"{found}, must not be empty.")
            elif setting.name in ("block_size", "eval_block_size"):
                check(
                    value >= 2 or value == setting.default,
                    f"{found}, must be at least 2: one token per block is plain autoregressive "
                    "decoding.",
                )
            elif setting.name in _AT_LEAST_ONE:
                check(value >= 1, f"{found}, must be at least 1.")
            elif setting.name == "seed":
                check(
                    0 <= value < 2**self._SEED_BITS,
                    f"{found}, must be from 0 to 2**{self._SEED_BITS} - 1.",
                )
            elif setting.name in _AT_MOST:
                most = _AT_MOST[setting.name]
                check(0 <= value <= most, f"{found}, must be from 0 to {most}.")
            elif setting.name in _SIGNED:
                check(math.isfinite(value), f"{found}, must be a finite number.")
            elif isinstance(value, int | float):
                check(value >= 0 and math.isfinite(value), f"{found}, must be 0 or more.")


def _check_type(name: str, value: Any, expected: Any) -> None:
    if expected in (bool, int, float, str):
        fits = type(value) is expected or (expected is float and type(value) is int)
        check(fits, f"{name} is {value!r}, needs a value of type {expected.__name__}.")


_AT_LEAST_ONE = (
    *("max_new_tokens", "batch_size", "shard_prompts", "self_prompt_tokens", "window", "copies"),
    *("max_length", "workers", "gradient_accumulation", "drafts_per_block", "max_blocks"),
    *("eval_max_new_tokens", "sort_prompts", "distinct_tokens", "verifier_workers"),
)
_SIGNED = ("presence_penalty", "frequency_penalty")
_AT_MOST = {"threads": 1024, "pool_size": 1024, "branch_tokens": 4096}


@dataclass(frozen=True, kw_only=True)
class _Machine(_Base):
    """Where and how a model runs."""

    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    dtype: str = option(
        "auto", "weights' type; auto is float32 on a CPU, the checkpoint's own on a GPU", DTYPES
    )
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's default")
    trust_remote_code: bool = option(False, "run model code that comes with the checkpoint")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(_Base):
    """What a decoder guesses with. It decides how many forwards an answer takes, never the answer.

    Fields:
        strategy: `autoregressive`, `jacobi` (fixed blocks), `window` (streaming), `multiblock`,
            or `prompt-lookup` (the rival that needs no training).
        block_size: n.
        max_blocks: K, of multiblock.
        spawn_ratio: r, of multiblock.
        pool_size: States kept, and branches per forward; 0 turns recycling off.
        pool: `states`, `text` or `both`.
        branch_tokens: Tokens that branches may add to a forward.
        noise: `text` or `vocabulary`.
    """

    strategy: str = option("window", "decoder", STRATEGIES)
    block_size: int = option(16, "tokens per block (n); window verifies as many in every forward")
    max_blocks: int = option(2, "multiblock: blocks in flight, the verified one included (K)")
    spawn_ratio: float = option(
        0.5, "multiblock: accepted part of the last block that opens the next one (r)"
    )
    pool_size: int = option(
        4, "recycling: old states that are kept, and most branches of a forward; 0 for none"
    )
    pool: str = option(
        "states", "where n-grams come from: old states, the prompt and text so far, or both", POOLS
    )
    branch_tokens: int = option(8, "tokens that branches may add to a forward")
    noise: str = option("text", "what fills a draft before the model has spoken", NOISE_SOURCES)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.spawn_ratio <= 1,
            f"--spawn-ratio is {self.spawn_ratio}, must be from 0 to 1.",
        )

    @property
    def decoder(self) -> "DecoderConfig":
        """The decoder's settings alone, whatever stage they came with."""
        return DecoderConfig(**{f.name: getattr(self, f.name) for f in fields(DecoderConfig)})


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(_Base):
    """How tokens are chosen. Order and meaning follow transformers' generate; default: greedy.

    Fields:
        temperature: 0 takes the likeliest token.
        top_k, top_p, min_p: Which tokens can be drawn.
        repetition_penalty: Divides the logits of tokens that the text holds.
        presence_penalty, frequency_penalty: As OpenAI's: of tokens that the answer holds; below 0
            these tokens are favoured.
        min_new_tokens: No end-of-sequence token before so many.
    """

    _SEED_BITS = 64

    temperature: float = option(
        0.0,
        "0 takes the likeliest token; above 0 tokens are drawn, the more evenly the higher",
    )
    top_k: int = option(0, "draw from the k likeliest tokens; 0 for all")
    top_p: float = option(1.0, "draw from the likeliest tokens that hold this much probability")
    min_p: float = option(0.0, "draw from tokens at least this part as likely as the likeliest")
    repetition_penalty: float = option(1.0, "divides the logits of tokens that the text holds")
    presence_penalty: float = option(0.0, "taken off the logits of tokens that the answer holds")
    frequency_penalty: float = option(
        0.0, "taken off a token's logit once for every time that the answer holds it"
    )
    min_new_tokens: int = option(0, "shortest answer, in tokens")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.top_p <= 1, f"--top-p is {self.top_p}, must be above 0 and at most 1.")
        check(self.min_p <= 1, f"--min-p is {self.min_p}, must be from 0 to 1.")
        penalty = self.repetition_penalty
        check(penalty > 0, f"--repetition-penalty is {penalty}, must be above 0.")

    @property
    def sampling(self) -> dict[str, Any]:
        """These settings alone, whatever stage they came with."""
        return {f.name: getattr(self, f.name) for f in fields(SamplingConfig)}


@dataclass(frozen=True, kw_only=True)
class CollectConfig(_Machine):
    """Decode prompts with the current model and record its answers, with every Jacobi state."""

    model: str = needed("directory, hub id, tiny-base or tiny-forced")
    prompts: str = needed(
        "FILE.jsonl, FILE.parquet, a hub dataset, self:N (sampled from the model), "
        "bundled:N, bundled:math:N or bundled:code:N"
    )
    out: str = needed("folder for the trajectories; a run that was stopped there continues")
    record: str = option(
        "states",
        "states: every Jacobi state (the paper's way); answers: fixed points only, for `jacobi "
        "train --states online`, many times faster where prompts bring an `answer` to check",
        RECORDS,
    )
    block_size: int = option(16, "tokens per block (n)")
    max_new_tokens: int = option(256, "longest answer, in tokens; rounded up to whole blocks")
    noise: str = option("text", "where a block's first guess is drawn from", NOISE_SOURCES)
    batch_size: int = option(64, "prompts decoded together")
    sort_prompts: int = option(
        1024,
        "prompts that are decoded in order of their lengths, so that little is padded; 1 keeps the "
        "source's order; it changes nothing in the files",
    )
    shard_prompts: int = option(256, "prompts per file")
    shard: str = option(
        "1/1",
        "i/N: collect only the i-th of N parts of the work, into OUT/shard-i-of-N",
    )
    engine: str = option(
        "local", "local: decode in this process; ray: in a pool of Ray actors", ENGINES
    )
    num_engines: int = option(
        0, "ray: actors; 0 takes one per GPU of the cluster, or one where there is none"
    )
    self_prompt_tokens: int = option(32, "longest prompt sampled by self:N")
    max_prompt_tokens: int = option(
        0, "drop longer prompts, undecoded; 0 takes all and refuses those beyond the context"
    )
    min_answer_tokens: int = option(0, "drop shorter answers; the EOS counts")
    finished_only: bool = option(False, "drop answers that ended without EOS")
    min_distinct: float = option(
        0.0,
        "drop answers of whose n-grams less than this part is distinct: they go round in circles; "
        "0 keeps all",
    )
    distinct_tokens: int = option(8, "n of those n-grams")
    verifier: str = option(
        "",
        "MODULE:FUNCTION, called with (prompt, answer, record) in a child process, must return "
        "True for an answer to be kept. It may do whatever you may: if it runs what the model "
        "wrote, it does so without a sandbox, so that naming it is your permission",
    )
    verifier_seconds: float = option(10.0, "time that the verifier has for an answer")
    verifier_workers: int = option(2, "processes that run the verifier")
    seed: int = option(0, "random seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.min_distinct <= 1, f"--min-distinct is {self.min_distinct}, must be from 0 to 1."
        )
        module, _, function = self.verifier.partition(":")
        check(
            self.verifier == "" or (module != "" and function.isidentifier()),
            f"--verifier is {self.verifier!r}, must be MODULE:FUNCTION.",
        )
        check(
            self.verifier_seconds > 0,
            f"--verifier-seconds is {self.verifier_seconds}, must be above 0.",
        )
        number, num_parts = self.part
        check(
            1 <= number <= num_parts,
            f"--shard is {self.shard!r}, must be i/N with i from 1 to N.",
        )
        check(
            self.engine == "local" or self.device in ("auto", "cpu", "cuda"),
            f"--device is {self.device!r}, but Ray chooses the GPUs. Take auto, cpu or cuda.",
        )

    @property
    def part(self) -> tuple[int, int]:
        """Which part of the work this is, from 1, and how many there are."""
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass(frozen=True, kw_only=True)
class PackConfig(_Base):
    """Turn trajectories into training sequences: noisy states laid out beside clean blocks."""

    trajectories: str = option(
        "", "folder that `jacobi collect` wrote; several of one model, separated by commas"
    )
    out: str = option("", "folder for the packed sequences")
    schedule: str = option("progressive", "how noise rises from block to block", SCHEDULES)
    window: int = option(8, "blocks over which the noise schedule climbs once (w)")
    phase: str = option("zero", "where in the window a sequence starts", ("zero", "random"))
    min_noise_ratio: float = option(0.0, "noise ratio at the window's clean end")
    max_noise_ratio: float = option(1.0, "noise ratio at the window's noisy end")
    copies: int = option(
        1, "times that a trajectory is packed, each with its own phase or random ratios"
    )
    max_length: int = option(
        2048,
        "longest sequence in tokens; a prompt takes its own and twice its answer's (noisy and "
        "clean), and blocks beyond it are left out",
    )
    sequence_prompts: int = option(
        1, "most prompts that share a sequence, unseen by each other; 0 for as many as fit"
    )
    solved_only: bool = option(True, "leave out answers that failed their problem's check")
    finished_only: bool = option(False, "leave out answers that ended without EOS")
    workers: int = option(1, "processes")
    seed: int = option(0, "random seed")
    check: str = option(
        "", "pack nothing: look through this packed folder, and say what is wrong with it"
    )
    html: str = option("", "also write a page that draws the first sequence")
    model: str = option(
        "", "whose ids they are: --html shows its tokens as text, --check asks for ids that it has"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check:
            check(
                not self.trajectories and not self.out,
                f"--check looks through {self.check} and packs nothing. Leave out --trajectories "
                "and --out.",
            )
        else:
            check(
                bool(self.trajectories and self.out and all(self.folders)),
                "--trajectories and --out must name folders, or --check one that is packed.",
            )
        check(
            self.min_noise_ratio <= self.max_noise_ratio <= 1,
            f"noise ratios go from {self.min_noise_ratio} to {self.max_noise_ratio}; needed is "
            "0 <= --min-noise-ratio <= --max-noise-ratio <= 1.",
        )

    @property
    def folders(self) -> list[str]:
        """Every folder of trajectories."""
        return [name.strip() for name in self.trajectories.split(",")]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Machine):
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
    lora_targets: str = option(
        "all-linear",
        "... beside these layers, names separated by commas; all-linear leaves out the LM head",
    )
    merge_adapters: bool = option(
        False, "save the weights with the adapters in them, and not the adapters alone"
    )
    quantize: str = option(
        "", "hold the frozen weights in 4 bits (QLoRA); needs bitsandbytes and a GPU", ("", "4bit")
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
    save_steps: int = option(0, "steps between checkpoints; 0 takes eval_steps, or 500")
    report_to: str = option(
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
            not (self.fsdp and self.deepspeed),
            "--fsdp and --deepspeed both shard: take one of them.",
        )
        self._check_adapters()

    def _check_adapters(self) -> None:
        check(self.lora_dropout < 1, f"--lora-dropout is {self.lora_dropout}, must be below 1.")
        for name in ("lora_alpha", "lora_dropout", "merge_adapters", "quantize"):
            flag = "--" + name.replace("_", "-")
            check(
                not getattr(self, name) or self.lora_rank > 0,
                f"{flag} is for adapters, but --lora-rank is 0. Add --lora-rank 16, say.",
            )


@dataclass(frozen=True, kw_only=True)
class AverageConfig(_Base):
    """Average models' weights: most of a forced model's speed, and accuracy back from its start."""

    models: str = needed("two or more, separated by commas: the start, and what it was trained to")
    weights: str = needed("as many numbers, separated by commas; together they make 1")
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
        return [name.strip() for name in self.models.split(",")]

    @property
    def numbers(self) -> list[float]:
        """Every model's weight."""
        try:
            return [float(weight) for weight in self.weights.split(",")]
        except ValueError:
            raise ConfigError(
                f"--weights is {self.weights!r}, must be numbers separated by commas."
            ) from None


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(_Machine, DecoderConfig, SamplingConfig):
    """Continue a prompt, several tokens per forward pass."""

    model: str = option("tiny-forced", "directory, hub id, tiny-base or tiny-forced")
    prompt: str = needed("text to continue; @FILE reads it from a file")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    chat: bool = option(False, "put the prompt through the model's chat template")
    json: bool = option(False, "print one JSON object instead of the text")
    html: str = option("", "also write a page that draws the decode")
    seed: int = option(0, "random seed: of what is drawn, and of the noise in drafts")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(_Machine, DecoderConfig):
    """Measure accuracy, tokens per forward and speed on problems, beside the model's own AR."""

    model: str = option("tiny-forced", "directory, hub id, tiny-base or tiny-forced")
    problems: str = option("bundled", "bundled, bundled:math, bundled:code, or FILE.jsonl")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    num_problems: int = option(0, "problems to take; 0 takes all (1,000 bundled ones)")
    report: str = option("", "JSON file for the result; without it, it is printed")
    allow_code_execution: bool = option(
        False, "run model-written code for problems from a file (the bundled ones need no flag)"
    )
    seed: int = option(0, "random seed of the noise; it never changes an answer")


@dataclass(frozen=True, kw_only=True)
class ForceConfig(_Base):
    """Run collect, pack, train and evaluate for one or more rounds from one recipe file."""

    recipe: str = needed("TOML file; see recipes/tiny/force.toml")
    model: str = option("", "start from this model instead of the recipe's")
    out: str = option("", "write to this folder instead of the recipe's")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(_Base):
    """Decode held-out problems with the bundled pair, side by side, and draw one decode."""

    num_problems: int = option(40, "held-out problems in the table, half math and half code")
    block_size: int = option(16, "tokens that a forward verifies (n)")
    html: str = option("demo.html", "page to write")
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's default")
    seed: int = option(0, "which problems")
