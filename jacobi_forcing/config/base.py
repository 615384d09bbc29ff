"""What every stage's settings share: how they are declared, checked and read."""

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from jacobi_forcing.errors import ConfigError

DTYPES = ("auto", "float32", "bfloat16", "float16")
NOISE_SOURCES = ("text", "vocabulary")


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """Declare a setting; `help` is also its text in `jacobi STAGE --help`."""
    return field(default=default, metadata={"help": help, "choices": choices})


def needed(help: str, **more: Any) -> Any:
    """Declare a setting without a default; `more` is as in `listing`."""
    return field(metadata={"help": help, "choices": None, **more})


def listing(default: str, help: str) -> Any:
    """Declare a setting that is several texts, separated by commas; a list is taken too."""
    return field(default=default, metadata={"help": help, "choices": None, "many": True})


def joined(names: Iterable[Any]) -> str:
    """Write texts as one, separated by commas; `split` undoes it.

    A text that holds a comma or a quotation mark, or begins or ends with a space, is written
    between quotation marks, as in a CSV file.
    """
    texts = [str(name) for name in names]
    return ",".join(t if _is_plain(t) else '"' + t.replace('"', '""') + '"' for t in texts)


def split(text: str) -> list[str]:
    """Split a text at its commas, except those between quotation marks; strip each part.

    A text that names an existing path is one name, whatever it holds.
    """
    if os.path.exists(text):
        return [text]
    parts = re.findall(r'\s*("(?:[^"]|"")*"|[^,]*?)\s*,', text + ",")
    return [p[1:-1].replace('""', '"') if p[:1] == p[-1:] == '"' else p for p in parts]


def _is_plain(text: str) -> bool:
    return text == text.strip() and not any(mark in text for mark in ',"')


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
class Base:
    """Checks of every stage: types fit, choices are known, numbers are finite and in range."""

    _SEED_BITS = 32  # what every library underneath takes
    given: ClassVar[frozenset[str]]  # settings that were named, and not left at their default

    def __new__(cls, **settings: Any) -> Self:
        """Note which settings are given."""
        self = super().__new__(cls)
        object.__setattr__(self, "given", frozenset(settings))
        return self

    def changed(self, **settings: Any) -> Self:
        """Give the same settings but for these; what was left at its default still counts so."""
        new = replace(self, **settings)
        object.__setattr__(new, "given", self.given.union(settings))
        return new

    def __post_init__(self) -> None:
        self._join_lists()
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

    def _join_lists(self) -> None:
        """Write lists as the texts that records and command lines hold."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.metadata.get("many") and isinstance(value, list | tuple):
                object.__setattr__(self, setting.name, joined(value))


def _check_type(name: str, value: Any, expected: Any) -> None:
    if expected in (bool, int, float, str):
        fits = type(value) is expected or (expected is float and type(value) is int)
        check(fits, f"{name} is {value!r}, needs a value of type {expected.__name__}.")


_AT_LEAST_ONE = (
    *("max_new_tokens", "batch_size", "shard_prompts", "window", "copies"),
    *("max_length", "workers", "gradient_accumulation", "drafts_per_block", "max_blocks"),
    *("eval_max_new_tokens", "sort_prompts", "distinct_tokens", "verifier_workers", "gpus"),
    *("num_prompts", "self_prompt_tokens", "max_waiting", "max_body_kilobytes", "max_choices"),
    *("prefill_tokens", "replicas"),
)
_SIGNED = ("presence_penalty", "frequency_penalty")
_AT_MOST = {"threads": 1024, "pool_size": 1024, "branch_tokens": 4096}


@dataclass(frozen=True, kw_only=True)
class Machine(Base):
    """Where and how a model runs."""

    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    dtype: str = option(
        "auto", "weights' type; auto is float32 on a CPU, the checkpoint's own on a GPU", DTYPES
    )
    threads: int = option(0, "CPU threads; 0 leaves PyTorch's default")
    trust_remote_code: bool = option(False, "run model code that comes with the checkpoint")


@dataclass(frozen=True, kw_only=True)
class DecodingMachine(Machine):
    """Where and how a model decodes."""

    compile: bool = option(
        False,
        "compile the decoding step: a minute or so at first, then every step is faster; on a CPU "
        "weights take twice the memory",
    )
    quantize: str = option(
        "",
        "hold linear layers in int8 or int4, all but the LM head; needs torchao",
        ("", "int8", "int4"),
    )
