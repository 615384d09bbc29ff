"""Grammars: what comes out obeys them, and is the same with every decoder."""

import dataclasses
import json
import re

import pytest
from transformers import PreTrainedTokenizerFast

from jacobi_forcing import Sampling
from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.grammar import Grammar, json_schema, token_bytes
from jacobi_forcing.models import load_model

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "apples": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["math", "code"]},
        "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "apples", "kind", "parts"],
}
PROMPT = "Chloe picks 7 plums a minute. How many in 6 minutes?\n"
DECODERS = (
    {"strategy": "autoregressive"},
    {"strategy": "jacobi", "block_size": 8},
    {"strategy": "window", "block_size": 16},
    {"strategy": "multiblock", "block_size": 8, "pool_size": 4},
)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-forced")


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_answers_are_json_of_the_schema_and_the_same_with_every_decoder(model, temperature):
    constraint = json_schema(model.tokenizer, SCHEMA)
    for seed in range(3):
        sampling = Sampling(temperature=temperature, seed=seed, constraint=constraint)
        found = [answer(model, PROMPT, sampling=sampling, **decoder) for decoder in DECODERS]
        assert len({tuple(one.ids) for one in found}) == 1
        value = json.loads(found[0].text)
        assert list(value) == ["name", "apples", "kind", "parts"]
        assert isinstance(value["apples"], int)
        assert value["kind"] in ("math", "code")
        assert found[0].finished.reason == "eos"


@pytest.mark.parametrize(
    "regex", ["(ab|ba){3,5}", "[A-Z][a-z]{2,9}: [0-9]+\\.", "caf\u00e9 (\u65e5\u672c)+"]
)
def test_answers_match_the_expression(model, regex):
    for seed in range(4):
        sampling = Sampling(temperature=1.5, seed=seed, constraint=Grammar(model.tokenizer, regex))
        found = answer(model, PROMPT, sampling=sampling, max_new_tokens=60, block_size=8)
        if found.finished.reason == "eos":
            assert re.fullmatch(regex, found.text)


def test_one_grammar_serves_requests_in_any_order(model):
    regex = "(ab|ba){3,5}"
    shared = Grammar(model.tokenizer, regex)
    texts = [model.tokenizer.encode(text) for text in ("abab", "ab", "baab", "xx", "", "abab")]
    for ids in [prefix for text in texts for prefix in (text, text[:1], text[:2])]:
        assert shared(ids) == Grammar(model.tokenizer, regex)(ids)
    assert shared(model.tokenizer.encode("xx")) is None


def test_copies_of_a_grammar_do_not_make_each_other_begin_again(model, monkeypatch):
    """Answers in flight beside each other, each with a copy: a token is followed once."""
    first = Grammar(model.tokenizer, "[0-9]{1,40}")
    automaton, followed = first.index, []

    class Counted:
        def __getattr__(self, name):
            return getattr(automaton, name)

        def get_next_state(self, state, token):
            followed.append(token)
            return automaton.get_next_state(state, token)

    first.index = Counted()
    grammars = [first.copy() for _ in range(3)]
    digit = model.tokenizer.encode("7")[-1]
    for length in range(12):
        for grammar in grammars:
            assert grammar([digit] * length) == first.copy()([digit] * length)
    by_copies = 3 * sum(range(12))  # of the one that is asked anew every time
    assert len(followed) == by_copies + 3 * 11


def test_every_token_stands_for_its_bytes(model, stories):
    for tokenizer in (model.tokenizer, PreTrainedTokenizerFast.from_pretrained(stories)):
        found = token_bytes(tokenizer)
        of_id = {number: text for text, numbers in found.items() for number in numbers}
        assert len(of_id) == len(tokenizer.get_vocab()) - len(set(tokenizer.all_special_ids))
        text = "Once upon a time: 12 caf\u00e9 \U0001f34e"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(of_id[token] for token in ids).strip() == text.encode()


def test_what_cannot_be_followed_is_refused(model):
    with pytest.raises(ConfigError, match="the pattern '\\(' cannot be used"):
        Grammar(model.tokenizer, "(")
    with pytest.raises(ConfigError, match="the JSON schema cannot be used"):
        json_schema(model.tokenizer, {"type": "nonsense"})


def test_a_model_that_ends_with_another_id_is_refused(model):
    other = dataclasses.replace(model, eos_ids=frozenset({7}))
    constraint = Grammar(model.tokenizer, "yes|no")
    with pytest.raises(ConfigError, match="ends with id 0"):
        answer(other, PROMPT, sampling=Sampling(constraint=constraint))


def test_tokens_that_were_added_are_written_as_they_are(model, tmp_path):
    model.tokenizer.save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    tokenizer.add_tokens(["   ", "\uff5cUser\uff5c"])
    found = token_bytes(tokenizer)
    assert len(tokenizer) - 2 in found[b"   "]
    assert found["\uff5cUser\uff5c".encode()] == [len(tokenizer) - 1]


def test_a_schema_that_is_no_json_is_refused(model):
    with pytest.raises(ConfigError, match="JSON schema"):
        json_schema(model.tokenizer, "{")
