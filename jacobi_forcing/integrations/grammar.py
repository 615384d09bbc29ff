"""Constraints from regular expressions and JSON schemas, by outlines-core.

    pip install 'jacobi-forcing[grammar]'
    sampling = jf.Sampling(constraint=json_schema(model.tokenizer, {"type": "object", ...}))

A token is allowed where the text can still become one that matches; the end of sequence where it
does. As every constraint, these change what the model's choice is, and not how it is found: the
answer is the same with every decoder.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from jacobi_forcing.errors import ConfigError

_CHILD = Path(__file__).with_name("grammar_child.py")
_TOO_LARGE = "the JSON schema is too large for a grammar: allow shorter texts (maxLength), lists."


class Grammar:
    """A constraint: an automaton over tokens. It can serve any number of requests.

    Requests in flight beside each other had better have a `copy` each: it remembers where in the
    automaton the last answer was, and follows another one from its beginning.

    Args:
        tokenizer: A fast tokenizer, byte-level or SentencePiece.
        regex: What the whole answer must match, in the dialect of outlines-core.

    Raises:
        ConfigError: outlines-core is missing, or refuses the expression or the tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, regex: str):
        core = _outlines_core()
        self.eos_id = tokenizer.eos_token_id  # the loop refuses a model that ends with another
        vocabulary = core.Vocabulary(self.eos_id, token_bytes(tokenizer))
        try:
            self.index = core.Index(regex, vocabulary)
        except ValueError as error:
            raise ConfigError(f"the pattern {regex!r} cannot be used: {error}") from error
        self._answer: list[int] = []  # the last answer asked about
        # The automaton's state before its first token and behind each; None once it broke a rule.
        self._states: list[int | None] = [self.index.get_initial_state()]

    def copy(self) -> "Grammar":
        """Make another one over the same automaton, which takes no time."""
        twin = copy.copy(self)
        twin._answer, twin._states = [], self._states[:1]
        return twin

    def __call__(self, answer: Sequence[int]) -> list[int] | None:
        """List the ids allowed behind an answer; None for one that breaks the rules already."""
        state = self._state(list(answer))
        return None if state is None else self.index.get_allowed_tokens(state)

    def _state(self, answer: list[int]) -> int | None:
        """Follow the answer from where it leaves the one before: mostly its last token only."""
        pairs = enumerate(zip(answer, self._answer, strict=False))
        shorter = min(len(answer), len(self._answer))
        known = next((place for place, (one, other) in pairs if one != other), shorter)
        states = self._states[: known + 1]
        for token in answer[known:]:
            state = states[-1]
            states.append(None if state is None else self.index.get_next_state(state, token))
        self._answer, self._states = answer, states
        return states[-1]


def json_schema(tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any] | str) -> Grammar:
    """Make the constraint that an answer is JSON of this schema.

    Raises:
        ConfigError: See Grammar; or the schema uses what outlines-core does not know.
    """
    text = schema if isinstance(schema, str) else json.dumps(schema)
    core = _outlines_core()
    try:
        regex = core.json_schema.build_regex_from_schema(text)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the JSON schema cannot be used: {error}") from error
    return Grammar(tokenizer, regex)


def check_size(
    tokenizer: PreTrainedTokenizerFast, schema: str, *, seconds: float, megabytes: int = 2048
) -> None:
    """Refuse a schema whose automaton takes too much to build.

    Its size can double with every character that a text may have. So it is built in a process of
    its own first, which can be stopped.

    Raises:
        ConfigError: It is too large, or cannot be used at all.
    """
    core = _outlines_core()
    try:
        regex = core.json_schema.build_regex_from_schema(schema)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the JSON schema cannot be used: {error}") from error
    vocabulary = [[text.hex(), ids] for text, ids in token_bytes(tokenizer).items()]
    question = json.dumps([regex, tokenizer.eos_token_id, vocabulary, megabytes])
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_CHILD)],
            input=question,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(_TOO_LARGE) from error
    if done.returncode != 0:  # out of memory ends it in several ways
        raise ConfigError(_TOO_LARGE)


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> dict[bytes, list[int]]:
    """Give the bytes that every token stands for, but the special ones, and the ids that do.

    Raises:
        ConfigError: The tokenizer is neither byte-level nor SentencePiece-like.
    """
    decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder") or {}
    kinds = {part.get("type") for part in [decoder, *decoder.get("decoders", [])]}
    if "ByteLevel" in kinds:
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    elif kinds & {"Replace", "Metaspace"}:
        byte_of = None
    else:
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path} is neither byte-level nor SentencePiece: its "
            "tokens' bytes are not known, so no grammar can be followed."
        )
    found: dict[bytes, list[int]] = {}
    for token, number in tokenizer.get_vocab().items():
        if number in tokenizer.all_special_ids:
            continue
        if number in tokenizer.added_tokens_decoder:  # these are written as they are
            text = token.encode()
        elif byte_of is not None:
            text = bytes(byte_of[character] for character in token)
        elif len(token) == 6 and token.startswith("<0x"):
            text = bytes([int(token[3:5], 16)])
        else:
            text = token.replace("\u2581", " ").encode()
        found.setdefault(text, []).append(number)
    return found


def _outlines_core() -> Any:
    try:
        import outlines_core
        import outlines_core.json_schema
    except ImportError as error:
        raise ConfigError(
            "grammars need outlines-core: pip install 'jacobi-forcing[grammar]'."
        ) from error
    return outlines_core
