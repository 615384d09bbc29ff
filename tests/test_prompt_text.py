"""What a tokenizer adds to a prompt: a beginning stays, an end does not, and nothing twice."""

import json

import pytest
from tokenizers.processors import TemplateProcessing
from toys import EOS, save_toy, toy_model, toy_tokenizer

import jacobi_forcing as jf
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.models.prompt_text import encode_prompt
from jacobi_forcing.serving.asked import Limits, Reader
from jacobi_forcing.serving.facts import facts_of
from jacobi_forcing.serving.schema import CompletionBody

BOS, SEP = 2, 3
TEMPLATE = "{{ bos_token }}{% for m in messages %} {{ m.content }} {% endfor %} w9"


def tokenizer_that_adds(before="", behind="", **more):
    """A toy tokenizer whose post-processor puts tokens around every text."""
    tokenizer = toy_tokenizer(bos_token="w2", sep_token="w3", **more)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{before} $A {behind}".strip(),
        special_tokens=[("<eos>", EOS), ("w2", BOS), ("w3", SEP)],
    )
    return tokenizer


@pytest.mark.parametrize("before", ["", "w2"])
@pytest.mark.parametrize("behind", ["", "<eos>", "w3", "w3 <eos>"])
def test_a_prompt_keeps_what_begins_it_and_loses_what_ends_it(before, behind, caplog):
    tokenizer = tokenizer_that_adds(before, behind)
    start = [BOS] if before else []
    for text, ids in [("w5", [5]), ("w7 <eos>", [7, EOS]), ("w7 w3 <eos> w3", [7, SEP, EOS, SEP])]:
        assert encode_prompt(tokenizer, text) == start + ids
        whole = tokenizer.encode(text)
        assert len(whole) == len(start) + len(ids) + len(behind.split())
    lines = [r for r in caplog.records if "appends" in r.message]
    assert len(lines) == bool(behind)


def test_a_text_that_names_its_bos_gets_no_second_one(caplog):
    tokenizer = tokenizer_that_adds("w2", "<eos>")
    assert tokenizer.encode("w2 w7") == [BOS, BOS, 7, EOS]
    assert encode_prompt(tokenizer, "w2 w7") == [BOS, 7]
    assert encode_prompt(tokenizer, "w7 w2 w2") == [BOS, 7, BOS, BOS]
    assert sum("begins with two" in r.message for r in caplog.records) == 1
    own = toy_tokenizer(bos_token="w2")  # adds none: both are the user's
    assert encode_prompt(own, "w2 w2 w7") == [BOS, BOS, 7]


@pytest.mark.parametrize("template", [TEMPLATE, "{{ bos_token }} " + TEMPLATE])
def test_a_chat_has_one_bos_and_no_end(template):
    tokenizer = tokenizer_that_adds("w2", "<eos>", chat_template=template)
    record = {"messages": [{"role": "user", "content": "w7"}]}
    assert encode(record, tokenizer, "here", None) == [BOS, 7, 9]


def test_all_that_tokenizes_a_prompt_agrees(tmp_path, capsys):
    from jacobi_forcing import cli

    model = toy_model()
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", EOS)]
    )
    text, ids = "w5 w6 w7", [5, 6, 7]
    right = jf.answer(model, ids, max_new_tokens=9).ids
    assert jf.answer(model, text, max_new_tokens=9).ids == right
    assert jf.answer(model, [*ids, EOS], max_new_tokens=9).ids != right
    assert encode({"prompt": text}, model.tokenizer, "here", 99) == ids
    reader = Reader(facts_of(model), jf.DecoderConfig(), Limits(99, 9, 1))
    (request,) = reader.read(CompletionBody(model="toy", prompt=text)).requests
    assert request.prompt_ids == ids
    folder = save_toy(tmp_path / "model")
    model.tokenizer.save_pretrained(folder)
    arguments = ["decode", "--model", str(folder), "--prompt", text, "--max-new-tokens", "9"]
    cli.main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out)["ids"] == right
