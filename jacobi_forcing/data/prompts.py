"""Prompts from a file, a hub dataset, or the bundled problems, as text and as token ids."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from jacobi_forcing import problems
from jacobi_forcing.data.files import read_rows, sha256
from jacobi_forcing.errors import DataError
from jacobi_forcing.models.prompt_text import encode_prompt, with_one_bos
from jacobi_forcing.problems.problem import Problem


class Prompt(NamedTuple):
    """What a model is asked to continue."""

    ids: list[int]
    problem: Problem | None = None  # how to check the answer, where it is a bundled problem
    answer: list[int] | None = None  # a likely answer, where one is known; EOS included
    id: str | None = None  # what its source calls it
    record: dict | None = None  # all that its source says of it, where a verifier needs it


def read_prompts(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    context_tokens: int | None,
    seed: int = 0,
    held_out: bool = False,
    keep_records: bool = False,
) -> list[Prompt]:
    """Read and tokenize prompts; `self:N` is not one of them, because it needs the model.

    Args:
        source: A .jsonl or .parquet file, a hub dataset or a folder of data files, `bundled:N`,
            `bundled:math:N` or `bundled:code:N`.
        tokenizer: Encodes `prompt` as it is, and `messages` through its chat template.
        context_tokens: A prompt this long leaves no room for an answer and is refused; None takes
            prompts of any length.
        seed: Which bundled problems are dealt.
        held_out: Deal them from the held-out split.
        keep_records: Keep every prompt's whole record.

    Raises:
        DataError: A record is broken, empty or too long, or has the id of another one; it is named
            by file and line.
    """
    if source.startswith("bundled"):
        return [
            Prompt(
                encode({"prompt": p.prompt}, tokenizer, f"{source}:{n}", context_tokens),
                p,
                encode_answer({"answer": p.answer}, tokenizer, f"{source}:{n}"),
                record=asdict(p) if keep_records else None,
            )
            for n, p in enumerate(bundled_problems(source, seed=seed, held_out=held_out), 1)
        ]
    prompts, seen = [], {}
    for where, record in read_records(source):
        ids = encode(record, tokenizer, where, context_tokens)
        answer = encode_answer(record, tokenizer, where)
        name = _prompt_id(record, where, seen)
        prompts.append(Prompt(ids, None, answer, name, record if keep_records else None))
    if not prompts:
        raise DataError(f"{source}: no prompts found; needed is at least one.")
    return prompts


def prompts_fingerprint(prompts: Sequence[Prompt]) -> str:
    """Hash prompts, their ids where they have some, and their order."""
    entries = [p.ids if p.id is None else [p.id, p.ids] for p in prompts]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]


def file_hashes(source: str) -> dict[str, str]:
    """Give the hash of a source that is a file, by its path; nothing for any other source."""
    path = Path(source)
    return {source: sha256(path)} if path.is_file() else {}


def _prompt_id(record: dict, where: str, seen: dict[str, str]) -> str | None:
    """Give a record's `id`, if it has one; `seen` maps earlier ids to their places.

    Raises:
        DataError: It is neither a text nor a whole number, or an earlier record has it too.
    """
    found = record.get("id")
    if found is None:
        return None
    if type(found) not in (str, int):
        raise DataError(f"{where}: the id is {found!r}; it must be a text or a whole number.")
    first = seen.setdefault(str(found), where)
    if first != where:
        raise DataError(
            f"{where}: the id {str(found)!r} is that of {first} too. Remove one of the two prompts "
            "or give it another id."
        )
    return str(found)


def bundled_problems(source: str, *, seed: int, held_out: bool) -> list[Problem]:
    """Deal the problems that `bundled[:KIND]:N` names; `all` kinds in turn where none is given."""
    *_, kind, count = ["all", *source.split(":")[1:]] if ":" in source else ["", "", ""]
    if kind not in ("all", *problems.KINDS) or not count.isdigit() or int(count) == 0:
        raise DataError(
            f"{source}: not a set of bundled problems. Write bundled:N, bundled:math:N or "
            "bundled:code:N with the number of problems."
        )
    if held_out:
        return problems.held_out(kind, int(count), seed)
    return list(itertools.islice(problems.stream(kind, seed=seed), int(count)))


def encode(
    record: Any, tokenizer: PreTrainedTokenizerBase, where: str, context_tokens: int | None
) -> list[int]:
    """Turn a record with `prompt` or `messages` into ids; a `context_tokens` of None is endless.

    Raises:
        DataError: It has neither, is empty, or leaves no room in the context; it names `where`.
    """
    fields = record if isinstance(record, dict) else {}
    messages, text = fields.get("messages"), fields.get("prompt")
    if messages is not None:
        ids = _encode_messages(messages, tokenizer, where)
    elif text is not None:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: the prompt is {text!r}; it must be a text and not empty.")
        _check_unicode(text, where)
        ids = encode_prompt(tokenizer, text)
    else:
        raise DataError(f'{where}: needs an object with "prompt" or "messages".')
    if not ids:
        raise DataError(f"{where}: the prompt has no tokens, so there is nothing to continue.")
    if context_tokens is not None and len(ids) >= context_tokens:
        raise DataError(
            f"{where}: this prompt has {len(ids)} tokens, but the model's context of "
            f"{context_tokens} has to hold the answer too. Shorten or remove it."
        )
    return ids


def encode_answer(record: dict, tokenizer: PreTrainedTokenizerBase, where: str) -> list[int] | None:
    """Turn a record's `answer` into ids with the EOS behind it; None where it has none.

    Raises:
        DataError: It is not a text; it names `where`.
    """
    text = record.get("answer")
    if text is None:
        return None
    if not isinstance(text, str):
        raise DataError(f"{where}: the answer is {text!r}; it must be a text.")
    _check_unicode(text, where)
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, or bytes that were not UTF-8
        raise DataError(
            f"{where}: {text[error.start]!r} at character {error.start} is not valid Unicode. Give "
            "UTF-8 text."
        ) from error


def _encode_messages(messages: Any, tokenizer: PreTrainedTokenizerBase, where: str) -> list[int]:
    if tokenizer.chat_template is None:
        raise DataError(
            f"{where}: has messages, but this model's tokenizer has no chat template. "
            'Give "prompt" instead.'
        )
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    except Exception as error:  # whatever the template makes of messages that it does not expect
        raise DataError(
            f"{where}: the chat template refuses these messages: {error}. Needed is a list of "
            '{"role": ..., "content": ...}.'
        ) from error
    return with_one_bos(tokenizer, ids)


def read_records(source: str) -> Iterator[tuple[str, Any]]:
    """Yield every record of a file, a folder or a hub dataset with its place.

    Raises:
        DataError: It cannot be read, or a line is broken.
    """
    path = Path(source)
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
    elif path.suffix == ".parquet":
        for number, record in enumerate(read_rows(path), 1):
            yield f"{path}:row {number}", record
    else:
        yield from _hub_records(source)


def count_records(source: str) -> int:
    """Count the records of a source without looking into them."""
    path = Path(source)
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            return sum(bool(line.strip()) for line in lines)
    return sum(1 for _ in read_records(source))


def read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield every line of a JSONL file with its place.

    Raises:
        DataError: The file cannot be read, or a line is broken.
    """
    try:
        lines = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield f"{path}:{number}", json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not valid JSON: {error}.") from error


def _hub_records(name: str) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        dataset = datasets.load_dataset(name, split="train")
    except Exception as error:  # the hub raises many kinds; all mean that there are no prompts
        raise DataError(
            f"{name}: neither a .jsonl or .parquet file nor a dataset that can be loaded: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    for number, record in enumerate(dataset, 1):
        yield f"{name}:row {number}", record
