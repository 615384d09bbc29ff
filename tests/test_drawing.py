"""Properties of the grid and of its page: complete, and safe whatever a token says."""

import json
import random
import re
from html.parser import HTMLParser

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toys import EOS, VOCAB, toy_model, toy_tokenizer
from transformers import PreTrainedTokenizerFast

from jacobi_forcing.config import STRATEGIES, DecoderConfig
from jacobi_forcing.decoding import Finished, Forward, decode_one, make_strategy
from jacobi_forcing.decoding.draft import settle
from jacobi_forcing.drawing.grid import ACCEPTED, COMMITTED, EMPTY, STATIONARY, WRONG, grid
from jacobi_forcing.drawing.page import write_page
from jacobi_forcing.drawing.text import pieces, token_text
from jacobi_forcing.errors import DataError

PROMPT = [5, 6, 7]


def fake_decode(strategy, seed=0, num_tokens=40, block_size=8):
    """Decode with a made-up model that is often right behind wrong tokens, as a forced one is."""
    words = random.Random(seed).sample(range(2, VOCAB), VOCAB - 2) * 4
    answer = [*words[: num_tokens - 1], EOS]
    config = DecoderConfig(strategy=strategy, block_size=block_size)
    machine = make_strategy(config, VOCAB, seed)
    ids, forwards = [], []
    while len(ids) < len(answer):
        offset = len(ids)
        draft = machine.propose(PROMPT + ids, offset, num_tokens - offset - 1)
        choices = [answer[offset]]
        for guess, depth in zip(draft.tokens, draft.depths(), strict=True):
            place = offset + depth + 1
            is_right = guess == answer[place - 1] or (place * place + seed) % 4
            choices.append(answer[place] if is_right else guess)
        path, accepted, tail = settle(draft, choices)
        machine.observe(accepted, tail)
        forwards.append(Forward(0, len(forwards), offset, draft, path, accepted, tail))
        ids += accepted
    return forwards, Finished(0, answer, "eos", len(forwards))


def toy_decode(strategy, seed):
    model = toy_model(seed=seed)
    config = DecoderConfig(strategy=strategy, block_size=8)
    machine = make_strategy(config, model.vocab_tokens, seed)
    finished, forwards = decode_one(model, PROMPT, machine, 40)
    return forwards, finished


DECODES = [
    *(fake_decode(strategy, seed) for strategy in STRATEGIES for seed in range(5)),
    *(toy_decode(strategy, seed) for strategy in STRATEGIES for seed in range(2)),
]


def test_decodes_are_worth_drawing():
    states = {cell.state for decode in DECODES for row in grid(*decode) for cell in row}
    assert states == {COMMITTED, ACCEPTED, STATIONARY, WRONG, EMPTY}
    assert max(len(forward.accepted) for forwards, _ in DECODES for forward in forwards) > 4


@pytest.mark.parametrize("decode", DECODES)
def test_last_row_is_the_answer(decode):
    forwards, finished = decode
    rows = grid(forwards, finished)
    assert len(rows) == finished.num_forwards
    assert [cell.token for cell in rows[-1]] == finished.answer_ids
    assert {cell.state for cell in rows[-1]} <= {COMMITTED, ACCEPTED}


@pytest.mark.parametrize("decode", DECODES)
def test_every_position_is_accepted_once_with_its_final_token_and_stays(decode):
    rows = grid(*decode)
    for place, final in enumerate(decode[1].answer_ids):
        column = [row[place] for row in rows]
        states = [cell.state for cell in column]
        assert states.count(ACCEPTED) == 1
        settled = states.index(ACCEPTED)
        assert set(states[settled + 1 :]) <= {COMMITTED}
        assert not {COMMITTED, ACCEPTED} & set(states[:settled])
        assert {cell.token for cell in column[settled:]} == {final}


@pytest.mark.parametrize("decode", DECODES)
def test_drafts_are_told_right_from_wrong(decode):
    for row in grid(*decode):
        for cell, final in zip(row, decode[1].answer_ids, strict=True):
            assert (cell.token is None) == (cell.state == EMPTY)
            if cell.state == STATIONARY:
                assert cell.token == final
            if cell.state == WRONG:
                assert cell.token != final


def test_a_drafted_token_is_what_the_next_forward_verifies():
    forwards, finished = fake_decode("window")
    for forward, row in zip(forwards[1:], grid(forwards, finished), strict=False):
        held = [c.token for c in row[forward.offset :] if c.state in (STATIONARY, WRONG)]
        # Near the end a forward verifies fewer, and a window adds noise behind what was held.
        assert held[: len(forward.guesses)] == forward.guesses[: len(held)]


def test_forwards_of_another_answer_are_refused():
    forwards, finished = fake_decode("window")
    with pytest.raises(AssertionError):
        grid(forwards[:-1], finished)


class Tags(HTMLParser):
    """Collects a page's elements as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.starts, self.ends, self.attributes = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.starts.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        self.ends.append(tag)


HOSTILE = [
    "</script><b>",
    "<!--<script>",
    "{{data}}",
    "</pre><img/src=x/onerror=alert(1)>",
    '"\\u003c&lt;',
    "\u2028]]>",
    "\x1b[31m",
]


def hostile_tokenizer():
    names = ["<eos>", "<pad>", *HOSTILE]
    names += [f"w{i}" for i in range(len(names), VOCAB)]
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<pad>"
    )


def draw(path, tokenizer, decode, model_name="toy", **times):
    write_page(
        path,
        tokenizer,
        list(range(2, 10)),
        *decode,
        model_name=model_name,
        strategy="window",
        block_size=8,
        **times,
    )
    return path.read_text(encoding="utf-8")


def data_of(page):
    return json.loads(re.search(r"^const decode = (.*);$", page, re.MULTILINE)[1])


def test_token_text_cannot_become_markup(tmp_path):
    decode = fake_decode("window", num_tokens=64)
    assert set(range(2, 2 + len(HOSTILE))) <= set(decode[1].answer_ids)
    plain = Tags(draw(tmp_path / "plain.html", toy_tokenizer(), decode))
    page = draw(tmp_path / "hostile.html", hostile_tokenizer(), decode, "</title><b>toy")
    hostile = Tags(page)
    assert hostile.starts == plain.starts
    assert hostile.ends == plain.ends
    assert page.count("<script") == page.count("</script") == 1
    assert page.rindex("</script>") > page.index("const decode")
    assert "\x1b" not in page
    assert "\u2028" not in page[page.index("<script") :]


def test_page_holds_the_texts_and_every_cell(tmp_path):
    decode = fake_decode("window", num_tokens=64)
    tokenizer = hostile_tokenizer()
    data = data_of(draw(tmp_path / "page.html", tokenizer, decode, seconds=0.5, ar_seconds=1.0))
    texts = [text for text, _ in data["tokens"]]
    assert {f" {name}" for name in HOSTILE[:5]} <= set(texts)
    assert (data["seconds"], data["arSeconds"]) == (0.5, 1.0)
    for row, cells in zip(data["rows"], grid(*decode), strict=True):
        drawn = [[texts[number], state] for number, state in row["cells"]]
        held = [c for c in cells if c.state not in (COMMITTED, EMPTY)]
        assert [state for _, state in drawn] == [c.state for c in held]
        expected = ["⟨end⟩" if c.token == EOS else token_text(tokenizer, c.token) for c in held]
        assert [text for text, _ in drawn] == expected
        assert row["offset"] == sum(c.state == COMMITTED for c in cells)
        assert row["accepted"] == sum(c.state == ACCEPTED for c in cells)


def test_page_needs_nothing_from_outside(tmp_path):
    page = draw(tmp_path / "page.html", toy_tokenizer(), fake_decode("jacobi"))
    tags = Tags(page)
    assert not [value for name, value in tags.attributes if name in ("src", "href", "srcset")]
    assert not re.search(r"https?://|@import|url\(|fetch\(|\blink\b", page)
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_page_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"page\.html"):
        draw(tmp_path / "file" / "page.html", toy_tokenizer(), fake_decode("jacobi"))


def byte_tokenizer():
    """Make a tokenizer whose tokens are single bytes, so that characters are split between them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("text", ["plain text\n", "héé ✓ 日本", "日"])
def test_pieces_are_the_text_and_never_half_a_character(text):
    tokenizer = byte_tokenizer()
    found = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_text_that_ends_within_a_character_says_so():
    tokenizer = byte_tokenizer()
    assert "".join(pieces(tokenizer, tokenizer.encode("a日")[:-1])) == "a\ufffd"


def test_a_token_keeps_the_space_it_begins_with(stories):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(stories)
    ids = tokenizer.encode("Once upon a time", add_special_tokens=False)
    assert "".join(token_text(tokenizer, i) for i in ids).strip() == "Once upon a time"
    assert token_text(tokenizer, ids[-1]).startswith(" ")
