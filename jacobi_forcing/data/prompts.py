"""Prompts from a file, a hub dataset, or the bundled problems, as text and as token ids."""

import hashlib
import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from jacobi_forcing import problems
from jacobi_forcing.data.chats import check_unicode, find_chat, render, split_answer
from jacobi_forcing.data.files import sha256
from jacobi_forcing.data.sources import kind_of, read_records
from jacobi_forcing.errors import DataError
from jacobi_forcing.models.prompt_text import encode_prompt, with_one_bos
from jacobi_forcing.problems.problem import Problem

logger = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """What a model is asked to continue."""

    ids: list[int]
    problem: Problem | None = None  # how to check the answer, where it is a bundled problem
    answer: list[int] | None = None  # a likely answer, where one is known; EOS included
    id: str | None = None  # what its source calls it
    record: dict | None = None  # all that its source says of it, where a verifier needs it
    is_chat: bool = False  # whether it went through the chat template


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
        source: What `data.sources` reads, `bundled:N`, `bundled:math:N` or `bundled:code:N`.
        tokenizer: Encodes `prompt` as it is, and a chat through its chat template.
        context_tokens: A prompt this long leaves no room for an answer and is refused; None takes
            prompts of any length.
        seed: Which bundled problems are dealt.
        held_out: Deal them from the held-out split.
        keep_records: Keep every prompt's whole record.

    Raises:
        DataError: A record is broken, empty or too long, or has the id of another one; it is named
            by file and line.
    """
    if kind_of(source) == "bundled":
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
    said: dict[str, str] = {}  # once for every kind of thing that is read otherwise than it stands
    for where, record in read_records(source):
        prompt, notes = read_prompt(record, tokenizer, where, context_tokens)
        for kind, note in notes.items():
            said.setdefault(kind, f"{where}: {note}")
        name = _prompt_id(record, where, seen)
        prompts.append(prompt._replace(id=name, record=record if keep_records else None))
    if not prompts:
        raise DataError(f"{source}: no prompts found; needed is at least one.")
    for note in said.values():
        logger.info("%s (said once)", note)
    return prompts


def read_prompt(
    record: Any, tokenizer: PreTrainedTokenizerBase, where: str, context_tokens: int | None
) -> tuple[Prompt, dict[str, str]]:
    """Turn a record with `prompt` or a chat into a prompt without a name.

    A chat that ends with an assistant's turn brings its answer with it, as `answer` does.

    Returns:
        The prompt, and by kind what was read otherwise than it stands.

    Raises:
        DataError: As `encode`; the chat has an answer and the record another one.
    """
    fields = record if isinstance(record, dict) else {}
    chat, text, notes = find_chat(fields, where), fields.get("answer"), {}
    if chat is not None:
        turns, said = split_answer(chat.turns, where)
        fields = {"messages": turns}
        if chat.converted:
            notes["roles"] = chat.converted
        if said is not None:
            if text not in (None, said):
                raise DataError(f"{where}: the chat ends with another answer than `answer`.")
            notes["answer"] = "the last turn is the assistant's: it is the answer, not the prompt"
            text = said
    ids = encode(fields, tokenizer, where, context_tokens)
    answer = encode_answer({"answer": text}, tokenizer, where)
    return Prompt(ids, answer=answer, is_chat=chat is not None), notes


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
    """Turn a record with `prompt` or a chat into ids; a `context_tokens` of None is endless.

    All of the chat is the prompt, whoever spoke last.

    Raises:
        DataError: It has neither, is empty, or leaves no room in the context; it names `where`.
    """
    fields = record if isinstance(record, dict) else {}
    chat, text = find_chat(fields, where), fields.get("prompt")
    if chat is not None:
        ids = with_one_bos(tokenizer, render(chat.turns, tokenizer, where))
    elif text is not None:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: the prompt is {text!r}; it must be a text and not empty.")
        check_unicode(text, where)
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
    check_unicode(text, where)
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
