"""From a request's body to what the engine decodes: prompts, budgets, sampling, decoders."""

import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.decoding import Request, Sampling
from jacobi_forcing.decoding.generation import sampling_defaults, stop_strings
from jacobi_forcing.errors import ConfigError, DataError, JacobiForcingError
from jacobi_forcing.integrations.grammar import Grammar
from jacobi_forcing.serving.facts import Facts
from jacobi_forcing.serving.grammars import Grammars
from jacobi_forcing.serving.schema import ChatBody, CompletionBody

_SEEDS = 1 << 64
_APART = 0x9E3779B97F4A7C15  # between the seeds of one request's answers: 2**64 / golden ratio
_LARGEST_SCHEMA = 1 << 14  # characters: what a schema compiles to can be far larger than itself


class RefusedError(JacobiForcingError):
    """A request cannot be done as asked."""

    def __init__(self, message: str, field: str | None = None, code: str | None = None):
        super().__init__(message)
        self.field = field
        self.code = code


@dataclass(frozen=True)
class Limits:
    """What the server allows."""

    max_tokens: int  # prompt plus answer
    max_new_tokens: int  # where none are asked for
    max_choices: int


@dataclass(frozen=True)
class Asked:
    """What one body asks for: one request per choice, the prompts in order, n of each."""

    requests: list[Request]
    decoder: DecoderConfig
    stop: list[str]
    num_prompt: int  # tokens of all prompts, each counted once
    prompts: list[list[int]]  # their ids, one per choice
    show_forwards: bool
    is_chat: bool
    wants_usage: bool
    echo: bool = False


class Reader:
    """Reads bodies for one model.

    Args:
        facts: Of the model whose tokenizer and defaults apply.
        decoder: As the server was started: requests may ask for narrower drafts.
        limits: What is allowed.
    """

    def __init__(self, facts: Facts, decoder: DecoderConfig, limits: Limits):
        self.facts = facts
        self.decoder = decoder
        self.limits = limits
        self.defaults = sampling_defaults(facts.generation, draws=True)
        self.encoding = threading.Lock()  # a tokenizer that encodes may change its own settings
        self.grammars = Grammars(facts.tokenizer)

    def read(self, body: CompletionBody | ChatBody) -> Asked:
        """Turn a body into requests.

        Raises:
            RefusedError: It cannot be done; the message says why, for the client.
        """
        if body.stream_options is not None and not body.stream:
            raise RefusedError("stream_options need stream: true.", "stream_options")
        if isinstance(body, CompletionBody) and body.echo and body.logprobs is not None:
            raise RefusedError("echo: the prompt's logprobs are not told here.", "logprobs")
        prompts = self._prompts(body)
        num_choices = body.n or 1
        if num_choices > self.limits.max_choices:
            raise RefusedError(
                f"n is {num_choices}, but this server gives at most {self.limits.max_choices} "
                "answers to one prompt.",
                "n",
            )
        stop = [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
        stop += stop_strings(self.facts.generation)
        is_chat = isinstance(body, ChatBody)
        end_ids = self.facts.chat_eos_ids - self.facts.eos_ids if is_chat else frozenset()
        sampling = self._sampling(body)
        first = secrets.randbits(64) if body.seed is None else body.seed % _SEEDS
        num_alternatives = _num_alternatives(body)
        requests = [
            Request(
                index=-1,
                prompt_ids=prompt,
                max_new_tokens=self._budget(body, prompt),
                sampling=_own(sampling, seed=(first + choice * _APART) % _SEEDS),
                stop=stop,
                wants_logprobs=num_alternatives is not None,
                num_alternatives=num_alternatives or 0,
                end_ids=end_ids,
            )
            for prompt in prompts
            for choice in range(num_choices)
        ]
        return Asked(
            requests,
            self._decoder(body),
            stop,
            num_prompt=sum(map(len, prompts)),
            prompts=[list(request.prompt_ids) for request in requests],
            show_forwards=body.jacobi is not None and body.jacobi.show_forwards,
            is_chat=is_chat,
            wants_usage=body.stream_options is not None and body.stream_options.include_usage,
            echo=isinstance(body, CompletionBody) and body.echo,
        )

    def _prompts(self, body: CompletionBody | ChatBody) -> list[list[int]]:
        if isinstance(body, ChatBody):
            field, records = "messages", [{"messages": [_message(m) for m in body.messages]}]
        else:
            field, prompt = "prompt", body.prompt
            several = isinstance(prompt, list) and not isinstance(prompt[0], int)
            records = [
                {"prompt": one} if isinstance(one, str) else one
                for one in (prompt if several else [prompt])
            ]
        prompts = []
        for record in records:
            try:
                is_ids = isinstance(record, list)
                with self.encoding:
                    ids = record if is_ids else encode(record, self.facts.tokenizer, field, None)
            except DataError as error:
                raise RefusedError(str(error), field) from error
            self._check_prompt(ids, field)
            prompts.append(ids)
        return prompts

    def _check_prompt(self, ids: Sequence[int], field: str) -> None:
        wrong = next((token for token in ids if token >= self.facts.vocab_size), None)
        if wrong is not None:
            last = self.facts.vocab_size - 1
            raise RefusedError(f"{field} holds {wrong}, but token ids are 0 to {last}.", field)
        if len(ids) >= self.limits.max_tokens:
            raise RefusedError(
                f"{field} has {len(ids)} tokens, but this server holds {self.limits.max_tokens} "
                "with the answer. Shorten it.",
                field,
                "context_length_exceeded",
            )

    def _budget(self, body: CompletionBody | ChatBody, prompt: Sequence[int]) -> int:
        asked = body.max_tokens
        if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
            asked = body.max_completion_tokens
        return min(asked or self.limits.max_new_tokens, self.limits.max_tokens - len(prompt))

    def _sampling(self, body: CompletionBody | ChatBody) -> Sampling:
        asked = {
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": None if body.top_k is None else max(body.top_k, 0),
            "min_p": body.min_p,
            "repetition_penalty": body.repetition_penalty,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
            "min_new_tokens": body.min_tokens,
        }
        asked = {name: value for name, value in asked.items() if value is not None}
        return Sampling(
            **(self.defaults | asked),
            logit_bias=self._bias(body.logit_bias or {}),
            constraint=self._constraint(body),
        )

    def _bias(self, asked: Mapping[str, float]) -> dict[int, float]:
        size, found = self.facts.vocab_size, {}
        for name, value in asked.items():
            if not (name.isascii() and name.isdigit()) or int(name) >= size:
                raise RefusedError(
                    f"logit_bias names {name[:40]!r}, but token ids are 0 to {size - 1}.",
                    "logit_bias",
                )
            found[int(name)] = value
        return found

    def takes_long(self, body: CompletionBody | ChatBody) -> bool:
        """Tell whether `read` has to make a grammar, which takes seconds."""
        schema = _schema(body)
        return bool(schema) and len(schema) <= _LARGEST_SCHEMA and not self.grammars.knows(schema)

    def _constraint(self, body: CompletionBody | ChatBody) -> Grammar | None:
        schema = _schema(body)
        if schema is None:
            return None
        if not schema:
            raise RefusedError("response_format needs a json_schema.", "response_format")
        if len(schema) > _LARGEST_SCHEMA:
            raise RefusedError(
                f"the JSON schema has {len(schema)} characters, at most are {_LARGEST_SCHEMA}.",
                "response_format",
            )
        try:
            return self.grammars.get(schema)
        except ConfigError as error:
            raise RefusedError(str(error), "response_format") from error

    def _decoder(self, body: CompletionBody | ChatBody) -> DecoderConfig:
        if body.jacobi is None:
            return self.decoder
        asked = body.jacobi.model_dump(exclude={"show_forwards"}, exclude_none=True)
        if asked.get("block_size", 0) > self.decoder.block_size:
            raise RefusedError(
                f"jacobi.block_size is {asked['block_size']}, but this server drafts up to "
                f"{self.decoder.block_size} tokens.",
                "jacobi.block_size",
            )
        if asked.get("max_blocks", 0) > self.decoder.max_blocks:
            raise RefusedError(
                f"jacobi.max_blocks is {asked['max_blocks']}, but this server has up to "
                f"{self.decoder.max_blocks} blocks in flight.",
                "jacobi.max_blocks",
            )
        if self.decoder.pool_size == 0 and asked.get("pool_size"):
            raise RefusedError(
                "jacobi.pool_size: this server was started without recycling.", "jacobi.pool_size"
            )
        return replace(self.decoder, **asked)


def _schema(body: CompletionBody | ChatBody) -> str | None:
    """Give the JSON schema that an answer follows; empty where it is missing, None if none is."""
    form = body.response_format
    if form is None or form.type == "text":
        return None
    return "" if form.json_schema is None else json.dumps(form.json_schema.schema_)


def _own(sampling: Sampling, seed: int) -> Sampling:
    """Give a request what it shares with none: its seed, and its place in a grammar."""
    grammar = sampling.constraint
    return replace(sampling, seed=seed, constraint=None if grammar is None else grammar.copy())


def _message(message: Any) -> dict[str, str]:
    """Make what chat templates take of a message."""
    content = message.content
    if not isinstance(content, str):
        content = "".join(part.text for part in content)
    named = {} if message.name is None else {"name": message.name}
    return {"role": message.role, "content": content, **named}


def _num_alternatives(body: CompletionBody | ChatBody) -> int | None:
    """Give how many alternatives go with every logprob; None where none is asked for."""
    if isinstance(body, CompletionBody):
        return body.logprobs
    if body.top_logprobs is not None and not body.logprobs:
        raise RefusedError("top_logprobs need logprobs: true.", "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None
