"""Text as it settles: pieces of whole characters that add up to the text."""

import pytest
from transformers import PreTrainedTokenizerFast

from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.decoding.stream import TextStream
from jacobi_forcing.models import load_model

TEXTS = [
    "Mina has 12 apples, and buys 9 more.\n\n  She shares them.",
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \U0001f34e\U0001f350 e\u0301",
    " leading blank, trailing blank ",
    "",
]


@pytest.fixture(scope="module", params=["tiny-base", "stories260K"])
def tokenizer(request):
    if request.param == "tiny-base":
        return load_model("tiny-base").tokenizer
    return PreTrainedTokenizerFast.from_pretrained(request.getfixturevalue("stories"))


@pytest.mark.parametrize("portion", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_add_up_to_the_text_and_never_break_a_character(tokenizer, text, portion):
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = TextStream(tokenizer)
    pieces = [stream.push(ids[i : i + portion]) for i in range(0, len(ids), portion)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids)


def settled(tokenizer, ids):
    """The text that no later token can change: a run of fallback bytes is decoded as a whole."""
    while ids and tokenizer.convert_ids_to_tokens(ids[-1]).startswith("<0x"):
        ids = ids[:-1]
    return tokenizer.decode(ids).split("\ufffd")[0]


def test_every_piece_comes_as_soon_as_its_characters_are_whole(tokenizer):
    ids = tokenizer.encode("ab \U0001f34e\U0001f350.", add_special_tokens=False)
    assert len(ids) > 8  # the emoji take several tokens
    stream = TextStream(tokenizer)
    pieces = [stream.push([token]) for token in ids]
    for number, piece in enumerate(pieces):
        assert "".join(pieces[: number + 1]) == settled(tokenizer, ids[: number + 1]), piece
    assert "".join(pieces) == tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["x\U0001f34e", "x\U0001f34e\U0001f350"])
def test_a_character_that_is_never_finished_comes_out_at_the_end(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)[:-1]
    stream = TextStream(tokenizer)
    pieces = [stream.push([token]) for token in ids] + [stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert all("\ufffd" not in piece for piece in pieces[:-1])
    assert stream.finish() == ""


def test_special_tokens_are_left_out_unless_asked_for(tokenizer):
    ids = [*tokenizer.encode("done", add_special_tokens=False), tokenizer.eos_token_id]
    assert TextStream(tokenizer).push(ids) == "done"
    shown = TextStream(tokenizer, skip_special_tokens=False).push(ids)
    assert shown == "done" + tokenizer.eos_token


@pytest.mark.parametrize("stop", [[], ["nswer"]])
def test_an_answer_comes_in_pieces_as_it_settles(stop):
    pieces = []
    prompt = "Chloe picks 7 plums a minute and Karl picks 5. How many in 6 minutes?\n"
    found = answer(
        load_model("tiny-forced"), prompt, max_new_tokens=40, stop=stop, on_text=pieces.append
    )
    assert "".join(pieces) == found.text
    assert len(pieces) == len(found.forwards) + 1
