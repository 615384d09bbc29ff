"""The page of a packed sequence shows what training sees, and no token can become markup."""

import json
import re

import pytest
import torch
from packs import pack_config, random_trajectories, write_trajectories
from test_drawing import HOSTILE, Tags, hostile_tokenizer
from toys import PAD, save_toy, toy_tokenizer

from jacobi_forcing.config import PackConfig
from jacobi_forcing.data.packed import num_tokens, read_packed
from jacobi_forcing.data.trajectories import tokenizer_fingerprint
from jacobi_forcing.drawing.text import token_text
from jacobi_forcing.stages import pack
from jacobi_forcing.training.batch import Collator, layout_of
from jacobi_forcing.training.layout import CLEAN, IGNORED, NOISY, PROMPT
from jacobi_forcing.training.mask import dense_mask

BLOCK = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    made = random_trajectories(0, 40, BLOCK)
    return write_trajectories(tmp_path_factory.mktemp("trajectories"), made, BLOCK, per_shard=40)


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    return pack.run(pack_config(source, out, sequence_prompts=0, max_length=200, window=3))


def draw(folder, path, **settings):
    pack.run(PackConfig(check=str(folder), html=str(path), **settings))
    return path.read_text(encoding="utf-8")


def data_of(page):
    return json.loads(re.search(r"^const data = (.*);$", page, re.MULTILINE)[1])


def flags(runs, length):
    """Undo the runs: start, length, start, length, ..."""
    found = torch.zeros(length, dtype=torch.bool)
    for start, count in zip(runs[::2], runs[1::2], strict=True):
        found[start : start + count] = True
    return found


def test_the_page_has_the_mask_and_the_losses_of_the_trainers_own_batch(packed, tmp_path):
    page = draw(packed, tmp_path / "page.html")
    assert f"PROMPT = {PROMPT}, NOISY = {NOISY}, CLEAN = {CLEAN}" in page
    data = data_of(page)
    sequence = read_packed(packed, BLOCK)[0]
    assert len(sequence) > 2
    collate = Collator(BLOCK, PAD, ar_on_prompt=False, consistency_from="first-difference")
    batch = collate([sequence])
    length = num_tokens(sequence)
    seen = torch.stack([flags(runs, length) for runs in data["seen"]])
    assert torch.equal(seen, dense_mask(layout_of(batch), "noise-conditioned", 3)[0])
    assert torch.equal(flags(data["ar"], length), batch["ar_targets"][0] != IGNORED)
    assert torch.equal(flags(data["consistency"], length), batch["teacher_index"][0] >= 0)
    assert 0 < flags(data["consistency"], length).sum() < flags(data["ar"], length).sum()


def test_the_page_has_every_document_with_its_ids_and_noise(packed, tmp_path):
    data = data_of(draw(packed, tmp_path / "page.html"))
    for drawn, document in zip(data["documents"], read_packed(packed, BLOCK)[0], strict=True):
        assert drawn["prompt"] == document.prompt_index
        assert (drawn["promptLength"], drawn["answerLength"]) == document[1:3]
        ids = [int(data["texts"][i][0]) for i in drawn["tokens"]]  # without a model, ids
        assert ids == document.input_ids.tolist()
        assert drawn["aims"] == pytest.approx(document.noise_ratios, abs=1e-4)
        pairs = document.input_ids[document.prompt_length :].reshape(-1, 2, BLOCK)
        for right, (noisy, clean) in zip(drawn["right"], pairs, strict=True):
            assert (noisy[:right] == clean[:right]).all()
            assert right == BLOCK or noisy[right] != clean[right]


def test_token_text_cannot_become_markup(source, tmp_path):
    tokenizer = hostile_tokenizer()
    model = save_toy(tmp_path / "model")
    tokenizer.save_pretrained(model)
    made = random_trajectories(0, 40, BLOCK)
    facts = {"tokenizer": tokenizer_fingerprint(tokenizer)}
    folder = write_trajectories(tmp_path / "hostile", made, BLOCK, per_shard=40, facts=facts)
    options = {"sequence_prompts": 0, "max_length": 1000}
    pack.run(pack_config(folder, tmp_path / "p", **options))
    page = draw(tmp_path / "p", tmp_path / "</title><b>.html".replace("/", "_"), model=str(model))
    texts = [text for text, _ in data_of(page)["texts"]]
    assert {token_text(tokenizer, 2 + i) for i in range(len(HOSTILE))} <= set(texts)
    plain = Tags(
        draw(pack.run(pack_config(source, tmp_path / "q", **options)), tmp_path / "q.html")
    )
    hostile = Tags(page)
    assert hostile.starts == plain.starts
    assert hostile.ends == plain.ends
    assert page.count("<script") == page.count("</script") == 1
    assert "\x1b" not in page
    assert "\u2028" not in page[page.index("<script") :]


def test_the_page_needs_nothing_from_outside(packed, tmp_path):
    page = draw(packed, tmp_path / "page.html")
    tags = Tags(page)
    assert not [value for name, value in tags.attributes if name in ("src", "href", "srcset")]
    assert not re.search(r"https?://|@import|url\(|fetch\(|\blink\b", page)
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_with_a_model_the_page_has_text_and_packing_draws_at_once(source, tmp_path):
    toy = save_toy(tmp_path / "toy")
    path = tmp_path / "page.html"
    pack.run(pack_config(source, tmp_path / "out", html=str(path), model=str(toy)))
    data = data_of(path.read_text())
    assert data["hasText"]
    assert {text.strip() for text, _ in data["texts"]} <= set(toy_tokenizer().get_vocab())
    assert len(data["documents"]) == 1


def test_answers_are_drawn_with_the_mask_of_online_drafts(tmp_path):
    made = [t._replace(states=[b[-1:] for b in t.states]) for t in random_trajectories(0, 9, BLOCK)]
    facts = {"record": "answers"}
    folder = write_trajectories(tmp_path / "in", made, BLOCK, facts=facts)
    out = pack.run(pack_config(folder, tmp_path / "out"))
    data = data_of(draw(out, tmp_path / "page.html"))
    assert (data["record"], data["mask"]) == ("answers", "clean-context")
    assert data["consistency"] == []
    assert data["ar"] != []


def test_a_page_that_cannot_be_written_is_refused_before_the_work(source, tmp_path, refused):
    arguments = ("--trajectories", source, "--out", tmp_path / "out", "--html", tmp_path)
    assert "--html: " in refused("pack", *arguments)
    assert not (tmp_path / "out").exists()
