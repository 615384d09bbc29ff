"""Who sees whom: the drawing in the module's docstring, and what follows from it in real models."""

import inspect

import pytest
import torch
from packs import flat, joined, packed_logits, random_packed
from torch.nn.attention.flex_attention import create_mask
from toys import FAMILIES, PAD, VOCAB, tiny_network
from training import losses_of_logits as losses

from jacobi_forcing.config import MASKS
from jacobi_forcing.training import mask as mask_module
from jacobi_forcing.training.batch import Collator, columns_of, layout_of
from jacobi_forcing.training.layout import (
    CLEAN,
    NOISY,
    PADDING,
    PROMPT,
    Layout,
    deinterleave,
    make_layout,
)
from jacobi_forcing.training.loss import Losses
from jacobi_forcing.training.mask import dense_mask, flex_predicate

WINDOW = 2


def parse_drawings() -> dict[str, tuple[list[str], list[list[str]]]]:
    """Read `names` and the grid of cells of every variant out of the module's docstring."""
    drawings = {}
    for line in inspect.cleandoc(mask_module.__doc__).splitlines():
        words = line.split()
        if words and words[0].rstrip(":") in MASKS:
            names, grid = drawings.setdefault(words[0].rstrip(":"), ([], []))
        elif words[:2] == ["prompt", "noisy0"]:
            names += words
        elif drawings and words and words[0] in names:
            assert words[0] == names[len(grid)]
            grid.append(words[1:])
    return drawings


def expand(names: list[str], grid: list[list[str]], sizes: dict[str, int]) -> torch.Tensor:
    """Draw every cell as tokens; `sizes` says how many a name stands for."""
    rows = []
    for name, cells in zip(names, grid, strict=True):
        row = []
        for other, cell in zip(names, cells, strict=True):
            whole = torch.ones(sizes[name], sizes[other])
            row.append({"#": whole, "\\": whole.tril(), ".": 0 * whole}[cell])
        rows.append(torch.cat(row, 1))
    return torch.cat(rows).bool()


def batched(layout: Layout) -> Layout:
    return Layout(*(field[None] for field in layout))


@pytest.mark.parametrize("variant", MASKS)
@pytest.mark.parametrize(("num_prompt", "block_size"), [(3, 3), (5, 2), (1, 4)])
def test_the_dense_mask_is_the_drawing_in_the_docstring(variant, num_prompt, block_size):
    names, grid = parse_drawings()[variant]
    assert names == ["prompt", *(f"{s}{i}" for i in range(4) for s in ("noisy", "clean"))]
    sizes = {name: num_prompt if name == "prompt" else block_size for name in names}
    layout = make_layout(num_prompt, 4, block_size)
    found = dense_mask(batched(layout), variant, WINDOW)[0]
    assert torch.equal(found, expand(names, grid, sizes))


def test_the_drawings_differ():
    grids = [str(grid) for _, grid in parse_drawings().values()]
    assert len(set(grids)) == len(MASKS) == 3


def test_a_window_makes_the_windowed_variant_lie_between_the_other_two():
    layout = batched(make_layout(3, 4, 3))
    masks = {w: dense_mask(layout, "windowed", w) for w in (1, 2, 3, 4)}
    assert torch.equal(masks[1], dense_mask(layout, "clean-context", 1))
    assert torch.equal(masks[4], dense_mask(layout, "noise-conditioned", 1))
    assert len({str(m.int().tolist()) for m in masks.values()}) == 4


def collator(block_size, **options):
    options = {"ar_on_prompt": False, "consistency_from": "start"} | options
    return Collator(block_size, PAD, **options)


def ragged_batch(*sizes, block_size=4, seed=5):
    """Sequences of so many documents each, not all of the same length."""
    documents = random_packed(seed, sum(sizes), block_size)
    batch = collator(block_size)(joined(documents, *sizes))
    assert (batch["stream"] == PADDING).any()
    assert int(batch["document"].max()) == max(sizes) - 1
    return batch


SIZES = [(1, 1, 1, 1), (3, 1, 2)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("variant", MASKS)
def test_the_flex_predicate_gives_the_dense_mask(variant, sizes):
    layout = layout_of(ragged_batch(*sizes))
    rows, tokens = layout.stream.shape
    predicate = flex_predicate(layout, variant, WINDOW)
    found = create_mask(predicate, rows, 2, tokens, tokens, device="cpu")
    dense = dense_mask(layout, variant, WINDOW)
    assert torch.equal(found, dense[:, None].expand(-1, 2, -1, -1))
    assert 0 < dense.float().mean() < 0.5


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("variant", MASKS)
def test_padding_sees_and_is_seen_by_nothing(variant, sizes):
    layout = layout_of(ragged_batch(*sizes))
    dense = dense_mask(layout, variant, WINDOW)
    padding = layout.stream == PADDING
    assert not dense[padding].any()
    assert not dense.transpose(1, 2)[padding].any()
    assert dense[~padding].any(-1).all()


# Several documents


def parse_documents() -> list[list[str]]:
    """Read the drawing of documents out of the module's docstring."""
    lines = [line.split() for line in inspect.cleandoc(mask_module.__doc__).splitlines()]
    start = lines.index(["document0", "document1", "document2"])
    return [words[1:] for words in lines[start + 1 : start + 4]]


@pytest.mark.parametrize("variant", MASKS)
def test_documents_do_not_see_each_other_as_the_drawing_says(variant):
    sequences = random_packed(6, 3, 4)
    layout = layout_of(collator(4)(joined(sequences, 3)))
    dense = dense_mask(layout, variant, WINDOW)[0]
    parts = [dense_mask(layout_of(collator(4)([s])), variant, WINDOW)[0] for s in sequences]
    drawing = parse_documents()
    assert drawing == [["D" if i == j else "." for j in range(3)] for i in range(3)]
    assert torch.equal(dense, torch.block_diag(*(part.int() for part in parts)).bool())
    # Positions begin again, so that by position alone documents would see each other.
    assert (layout.position == 0).sum() == 3


@pytest.mark.parametrize("variant", MASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_has_the_logits_and_losses_in_a_sequence_that_it_has_alone(family, variant):
    network, collate = tiny_network(family), collator(4, ar_on_prompt=True)
    documents = random_packed(5, 6, 4, schedule="random")
    batch = collate(joined(documents, 3, 1, 2))
    logits = packed_logits(network, batch, variant, WINDOW)
    together = losses(logits, batch["ar_targets"], batch["teacher_index"], logits)
    summed, places = Losses(0, 0, 0), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    for document, (row, number) in zip(documents, places, strict=True):
        alone = collate([document])
        expected = packed_logits(network, alone, variant, WINDOW)
        found = logits[row, batch["document"][row] == number]
        assert torch.allclose(found, expected[0], atol=1e-5)
        its_losses = losses(expected, alone["ar_targets"], alone["teacher_index"], expected)
        summed = Losses(*(a + b for a, b in zip(summed, its_losses, strict=True)))
    assert torch.allclose(torch.tensor(together), torch.tensor(summed), rtol=1e-5)
    assert min(together) > 1


def test_a_token_of_another_document_cannot_change_a_logit():
    network = tiny_network()
    batch = collator(4)(joined(random_packed(5, 3, 4), 3))
    logits = packed_logits(network, batch, MASKS[0])
    own = batch["document"][0]
    for number in range(3):
        ids = torch.where(own == number, (batch["input_ids"] + 7) % VOCAB, batch["input_ids"])
        changed = packed_logits(network, batch | {"input_ids": ids}, MASKS[0])
        differs = (changed - logits).abs().amax(-1)[0] > 1e-6
        assert torch.equal(differs, own == number)


# In real models


def plain_logits(network, ids):
    """A plain causal forward of one text, [S, V]; masks are the library's own."""
    with torch.no_grad():
        return network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("variant", MASKS)
def test_a_token_that_the_mask_hides_cannot_change_a_logit(variant):
    network = tiny_network("qwen2")
    layout = make_layout(3, 4, 3)
    num_tokens = len(layout.stream)
    seen = dense_mask(batched(layout), variant, WINDOW)[0]
    reach = torch.eye(num_tokens).bool()
    for _ in range(network.config.num_hidden_layers):
        reach = reach | (seen.float() @ reach.float() > 0)
    # Row 0 is the text, row i + 1 the text with token i changed.
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(2, VOCAB, (num_tokens,), generator=generator)
    texts = text.repeat(num_tokens + 1, 1)
    changed = torch.arange(num_tokens)
    texts[changed + 1, changed] = (text + 7) % VOCAB
    columns = columns_of(layout)
    batch = {"input_ids": texts} | {n: f.expand_as(texts) for n, f in columns.items()}
    logits = packed_logits(network, batch, variant, WINDOW)
    difference = (logits[1:] - logits[:1]).abs().amax(-1)  # [changed token, row]
    assert difference[~reach.T].max() <= 1e-6
    # A token does change every row that sees it, and all but the first are hidden from some row.
    assert difference[seen.T].min() > 1e-3
    assert (~reach).any(0).sum() == num_tokens - 1
    # Nor does attending through other rows show what the mask hides.
    assert torch.equal(reach, seen)


def family_batch(block_size=6):
    """Two sequences longer than any of the families' windows, one of them padded."""
    sequences = random_packed(1, 200, block_size, schedule="random")
    sequences = [s for s in sequences if len(s[0].noise_ratios) >= 4 and s[0].prompt_length >= 5]
    chosen = [sequences[0], next(s for s in sequences if len(s[0].noise_ratios) > 5)]
    batch = collator(block_size)(chosen)
    assert (batch["stream"] == PADDING).any()
    return chosen, batch


def contexts(variant, prompt, noisy, clean):
    """The texts whose plain forwards each noisy block must give, as (block, text)."""
    for block in range(len(noisy)):
        first_noisy = {
            "noise-conditioned": 0,
            "clean-context": block,
            "windowed": block - block % WINDOW,
        }[variant]
        yield block, flat([prompt, *clean[:first_noisy], *noisy[first_noisy : block + 1]])


def assert_packed_equals_plain(network, variant, block_size=6):
    sequences, batch = family_batch(block_size)
    logits = packed_logits(network, batch, variant, WINDOW)
    num_noisy_differences = 0
    for row, [packed] in enumerate(sequences):
        prompt, noisy, clean = deinterleave(packed.input_ids, packed.prompt_length, block_size)
        stream, block = batch["stream"][row], batch["block"][row]
        text = (stream == PROMPT) | (stream == CLEAN)
        expected = plain_logits(network, flat([prompt, *clean]))
        assert torch.allclose(logits[row, text], expected, atol=1e-5)
        assert torch.equal(logits[row, text].argmax(-1), expected.argmax(-1))
        for number, context in contexts(variant, prompt, noisy, clean):
            found = logits[row, (stream == NOISY) & (block == number)]
            expected = plain_logits(network, context)[-block_size:]
            assert torch.allclose(found, expected, atol=1e-5)
            twin = logits[row, (stream == CLEAN) & (block == number)]
            num_noisy_differences += int(((found - twin).abs().amax(-1) > 0.1).sum())
    assert num_noisy_differences > 10


@pytest.mark.parametrize("variant", MASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_forward_gives_the_logits_of_plain_causal_forwards(family, variant):
    assert_packed_equals_plain(tiny_network(family), variant)


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text"])
def test_the_same_holds_for_eager_attention(family):
    network = tiny_network(family)
    network.set_attn_implementation("eager")
    assert_packed_equals_plain(network, "noise-conditioned")


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_the_sliding_windows_of_the_toys_are_shorter_than_the_texts(family):
    ids = torch.randint(2, VOCAB, (30,), generator=torch.Generator().manual_seed(0)).tolist()
    narrow = plain_logits(tiny_network(family), ids)
    wide = plain_logits(tiny_network(family, sliding_window=1000), ids)
    assert torch.allclose(narrow[:8], wide[:8], atol=1e-4)
    assert (narrow[-1] - wide[-1]).abs().max() > 0.1
