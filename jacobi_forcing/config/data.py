"""Settings of collecting and packing."""

import re
from dataclasses import dataclass

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
from jacobi_forcing.config.decoding import SamplingConfig

RECORDS = ("states", "answers")
ENGINES = ("local", "ray")
SCHEDULES = ("progressive", "random", "reverse")


@dataclass(frozen=True, kw_only=True)
class CollectConfig(SamplingConfig, DecodingMachine):
    """Decode prompts with the current model and record its answers, with every Jacobi state."""

    _SEED_BITS = 32  # other libraries take it here too

    model: str = needed("directory, hub id, tiny-base or tiny-forced")
    prompts: str = needed(
        "FILE.jsonl, .json or .parquet, packed too, - for standard input, a hub dataset, self:N "
        "(sampled from the model), bundled:N, bundled:math:N or bundled:code:N"
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
        for name in ("top_k", "top_p", "min_p"):
            check(
                self.temperature > 0 or getattr(self, name) == getattr(SamplingConfig, name),
                f"--{name.replace('_', '-')} is {getattr(self, name)}, but at --temperature 0 "
                "nothing is drawn. Add --temperature 1.0, say, or leave it out.",
            )
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
class PackConfig(Base):
    """Turn trajectories into training sequences: noisy states laid out beside clean blocks."""

    trajectories: str = listing(
        "",
        "folder that `jacobi collect` wrote; several of one model, separated by commas, those that "
        "hold a comma between quotation marks: '\"a, b/traj\",c/traj'",
    )
    mix: bool = option(
        False,
        "the folders may be of several models with one tokenizer, each with an answer to the same "
        "prompt: rounds of `jacobi force`",
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
            twice = [name for name in self.folders if self.folders.count(name) > 1]
            check(not twice, f"--trajectories names {', '.join(twice[:1])} twice.")
        check(
            self.min_noise_ratio <= self.max_noise_ratio <= 1,
            f"noise ratios go from {self.min_noise_ratio} to {self.max_noise_ratio}; needed is "
            "0 <= --min-noise-ratio <= --max-noise-ratio <= 1.",
        )
        check(
            self.copies == 1 or "random" in (self.phase, self.schedule),
            f"--copies is {self.copies}, but with --phase {self.phase} and --schedule "
            f"{self.schedule} all copies are the same. Add --phase random, or leave it out.",
        )

    @property
    def folders(self) -> list[str]:
        """Every folder of trajectories."""
        return split(self.trajectories)
