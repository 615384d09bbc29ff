"""Settings of decoding: what is guessed, how tokens are chosen, and the stages that only decode."""

from dataclasses import dataclass, fields, replace
from typing import Any

from jacobi_forcing.config.base import (
    NOISE_SOURCES,
    Base,
    DecodingMachine,
    check,
    listing,
    needed,
    option,
    split,
)

STRATEGIES = ("autoregressive", "jacobi", "window", "multiblock", "prompt-lookup")
POOLS = ("states", "text", "both")
MEASURED = {  # by `evaluate`, of each engine
    "jacobi": STRATEGIES,
    "transformers": ("autoregressive", "prompt-lookup", "assisted"),
    "vllm": ("autoregressive", "window"),
}
_OF_OUR_LOOP = ("max_blocks", "spawn_ratio", "pool_size", "pool", "branch_tokens", "noise")
_IDLE = {  # settings that mean nothing to an engine
    "jacobi": (),
    "transformers": ("strategy", "block_size", *_OF_OUR_LOOP, "tuning", "compile", "exact"),
    "vllm": ("strategy", *_OF_OUR_LOOP, "tuning", "compile", "exact", "quantize", "device"),
}


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Base):
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
class SamplingConfig(Base):
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
class TunedConfig(DecodingMachine, DecoderConfig):
    """A decoder whose settings, where they are not given, `jacobi tune` may have found."""

    tuning: str = option(
        "",
        "file of `jacobi tune`: the decoder's settings that are not given come from it; by default "
        "the one beside the model's weights, if it fits this machine; none ignores it",
    )


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(TunedConfig, SamplingConfig):
    """Continue a prompt, several tokens per forward pass."""

    model: str = option("tiny-forced", "directory, hub id, tiny-base or tiny-forced")
    prompt: str = needed("text; @FILE reads it from a file, - from standard input")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    chat: bool = option(
        False,
        "put the prompt through the model's chat template; the default where the model has one, so "
        "that this only refuses models without one",
    )
    raw: bool = option(False, "continue the text as it is, without the model's chat template")
    json: bool = option(False, "print one JSON object instead of the text")
    html: str = option("", "also write a page that draws the decode")
    seed: int = option(0, "random seed: of what is drawn, and of the noise in drafts")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not (self.chat and self.raw), "--chat and --raw ask for opposites: take one of them.")


@dataclass(frozen=True, kw_only=True)
class ChatConfig(TunedConfig, SamplingConfig):
    """Talk with a model in turns; each answer appears as its tokens settle."""

    model: str = needed("directory or hub id of a model with a chat template")
    system: str = option("", "system message that every conversation begins with")
    max_new_tokens: int = option(1024, "longest answer, in tokens")
    max_tokens: int = option(
        8192,
        "longest conversation in tokens, its last answer included, which sizes the cache; at most "
        "the model's context. Beyond it the oldest turns are dropped",
    )
    seed: int = option(0, "random seed: of what is drawn, and of the noise in drafts")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.max_tokens >= 2, f"--max-tokens is {self.max_tokens}, must be at least 2.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TunedConfig):
    """Measure accuracy, tokens per forward and speed on problems, beside the model's own AR."""

    model: str = option("tiny-forced", "directory, hub id, tiny-base or tiny-forced")
    problems: str = option(
        "bundled",
        "bundled, bundled:math, bundled:code, FILE.jsonl; humaneval, mbpp, gsm8k or math500, from "
        "the folder that JACOBI_DATA names, the hub, or NAME:FILE; or self:N, N beginnings sampled "
        "from the original, whose continuations it judges by their likelihood",
    )
    strategies: str = listing(
        "", "several decoders in one run, separated by commas, instead of --strategy"
    )
    engine: str = option(
        "jacobi",
        "what decodes: this project, or for comparison transformers' generate (autoregressive, "
        "prompt-lookup, assisted) or vLLM (autoregressive, window by our plugin)",
        tuple(MEASURED),
    )
    assistant: str = option(
        "",
        "transformers: the smaller model that drafts in assisted decoding; directory or hub id, "
        "with the same tokenizer",
    )
    original: str = option(
        "",
        "the model that this one was made from: its AR answers to the same problems are compared "
        "problem by problem; of self:N it is the judge, by default the model itself",
    )
    self_prompt_tokens: int = option(32, "self:N: longest beginning, in tokens")
    max_new_tokens: int = option(256, "longest answer, in tokens; 1024 for published benchmarks")
    limit: int = option(0, "problems to take; 0 takes all (1,000 bundled ones)")
    batch_size: int = option(1, "problems that are decoded together")
    out: str = option(
        "",
        "folder for every answer, summary.json and report.html; continued where it was stopped. "
        "Without it, figures are only printed, as JSON where the output is no terminal",
    )
    style: str = option(
        "auto",
        "how published benchmarks are asked: as a chat, or as a text to complete; auto is chat "
        "where the model has a chat template",
        ("auto", "completion", "chat"),
    )
    allow_code_execution: bool = option(
        False, "run model-written code (the bundled problems need no flag)"
    )
    sandbox: str = option(
        "auto",
        "what it runs in: bwrap or namespaces, where it sees nothing of the machine; or limits of "
        "time, memory and processes only. auto takes the first of bwrap and namespaces that works",
        ("auto", "bwrap", "namespaces", "limits"),
    )
    seed: int = option(
        0, "random seed: of the noise, which never changes an answer, and of self:N's beginnings"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.num_texts > 0 or not self.problems.startswith("self:"),
            f"--problems is {self.problems!r}; write self:N with a number of texts.",
        )
        names = split(self.strategies) if self.strategies else []
        known = MEASURED[self.engine]
        for name in names:
            check(
                name in known and names.count(name) == 1,
                f"--strategies names {name!r}; write some of {', '.join(known[1:])}, each once. "
                "Autoregressive is always measured.",
            )
        self._check_assistant()
        check(
            self.engine != "transformers" or self.batch_size == 1,
            f"--batch-size is {self.batch_size}, but --engine transformers is measured at 1: its "
            "prompt lookup and assisted decoding take one prompt at a time. Leave it out.",
        )

    def _check_assistant(self) -> None:
        check(
            self.engine == "transformers" or not self.assistant,
            f"--assistant is {self.assistant!r}, which needs --engine transformers.",
        )
        is_used = "assisted" in self.measured
        check(
            is_used or not self.assistant,
            f"--assistant is {self.assistant!r}, but --strategies does not name assisted.",
        )
        check(
            not is_used or bool(self.assistant),
            "--strategies names assisted, which needs --assistant: a smaller model with the same "
            "tokenizer.",
        )

    def refuse_idle(self) -> None:
        """Raise ConfigError for a setting that was given and means nothing to the engine."""
        for name in _IDLE[self.engine]:
            hint = "Name decoders with --strategies." if name == "strategy" else "Leave it out."
            check(
                name not in self.given,
                f"--{name.replace('_', '-')} is {getattr(self, name)!r}, which means nothing to "
                f"--engine {self.engine}. {hint}",
            )

    @property
    def measured(self) -> list[str]:
        """List what answers every problem, AR first."""
        if self.strategies:
            names = split(self.strategies)
        elif self.engine == "jacobi":
            names = [self.strategy]
        else:  # all that the engine has
            names = [n for n in MEASURED[self.engine] if n != "assisted" or self.assistant]
        return ["autoregressive", *(name for name in names if name != "autoregressive")]

    @property
    def decoders(self) -> list[DecoderConfig]:
        """List our own decoders that are measured beside AR."""
        return [replace(self.decoder, strategy=name) for name in self.measured[1:]]

    @property
    def num_texts(self) -> int:
        """N of self:N; 0 where the model is judged by problems."""
        count = self.problems.removeprefix("self:")
        return int(count) if count != self.problems and count.isdigit() else 0


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Base):
    """Set evaluations of the same problems beside each other."""

    reports: tuple[str, ...] = needed("folders of `jacobi evaluate --out`, or their summary.json")
    html: str = option("", "also write a page")


@dataclass(frozen=True, kw_only=True)
class TuneConfig(DecodingMachine):
    """Measure this machine, and find the fastest decoder for a model and your own prompts."""

    model: str = needed("directory, hub id, tiny-base or tiny-forced")
    prompts: str = option(
        "",
        "FILE.jsonl, .json or .parquet, packed too, - for standard input, a hub dataset, self:N "
        "(sampled from the model), bundled:N, bundled:math:N or bundled:code:N; by default "
        "bundled:24 for the bundled models, self:24 for all others. Take prompts like those that "
        "will be decoded",
    )
    out: str = option(
        "",
        "JSON file for the result, with a page beside it; by default tuning.json in the model's "
        "folder, from where it is used without asking; of bundled and hub models, in the user's "
        "cache",
    )
    batch_size: int = option(16, "most rows in flight: looked at are 1, 4, 16, ... up to this")
    widest: int = option(64, "widest draft that is looked at, in tokens per row")
    max_new_tokens: int = option(256, "longest answer, in tokens")
    num_prompts: int = option(64, "most prompts that are decoded")
    self_prompt_tokens: int = option(32, "longest prompt sampled by self:N")
    seconds: float = option(150.0, "about how long it may take, once the model is loaded")
    seed: int = option(0, "random seed: of self:N's prompts, and of the noise in drafts")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.seconds > 0, f"--seconds is {self.seconds}, must be above 0.")
        check(
            not self.out or self.out.endswith(".json"),
            f"--out is {self.out}, must end in .json: the page beside it is named .html.",
        )
        check(self.widest >= 4, f"--widest is {self.widest}, must be at least 4.")


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Base):
    """Decode held-out problems with the bundled pair, side by side, and draw one decode."""

    num_problems: int = option(40, "held-out problems in the table, half math and half code")
    block_size: int = option(16, "tokens that a forward verifies (n)")
    html: str = option("demo.html", "page to write")
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's default")
    seed: int = option(0, "which problems")
