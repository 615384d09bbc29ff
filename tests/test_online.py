"""Drafts made while training: the states that decoding goes through, from seeded noise."""

import random

import pytest
import torch
from packs import interleave, joined, make_document, packed_logits, random_ids, random_packed
from toys import EOS, PAD, VOCAB, toy_model
from training import losses_of_logits as losses

from jacobi_forcing.decoding import Noise, decode_one
from jacobi_forcing.decoding.record import TrajectoryRecorder
from jacobi_forcing.decoding.strategies import Jacobi
from jacobi_forcing.training.batch import clean_part
from jacobi_forcing.training.layout import CLEAN, NOISY, PADDING, PROMPT
from jacobi_forcing.training.online import DraftCollator, Drafts, OnlineDrafts, next_state

BLOCK = 4


def collate(sequences, draft_tokens=BLOCK, drafts_per_block=1):
    return DraftCollator(
        BLOCK,
        PAD,
        ar_on_prompt=False,
        consistency_from="first-difference",
        draft_tokens=draft_tokens,
        drafts_per_block=drafts_per_block,
    )(sequences)


def online(draft_tokens=BLOCK, iterations=0, noise="text", seed=0, from_start=False):
    return OnlineDrafts(
        draft_tokens,
        iterations,
        noise=noise,
        vocab_tokens=VOCAB,
        pad_id=PAD,
        from_start=from_start,
        seed=seed,
    )


def logits(network, batch):
    return packed_logits(network, batch, "clean-context")


def never(batch):
    raise AssertionError("no iteration, no forward")


def recorded(model, rng, num_tokens):
    """Decode a random prompt with the shipped decoder; return the prompt and all block states."""
    prompt = random_ids(rng, rng.randint(1, 9))
    noise = Noise("text", VOCAB, rng.random())
    finished, forwards = decode_one(model, prompt, Jacobi(BLOCK, noise), num_tokens + 1)
    recorder = TrajectoryRecorder(BLOCK)
    for event in forwards:
        recorder.observe(event)
    blocks = recorder.finish(PAD, frozenset([EOS]))
    answer = finished.answer_ids[: len(blocks) * BLOCK]
    fixed = [states[-1] for states in blocks]
    ids, ratios = interleave(prompt, fixed, fixed), [0.0] * len(blocks)
    return (make_document(0, len(prompt), len(answer), ids, ratios),), blocks


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma2", "gpt2"])
def test_one_iteration_leads_from_each_recorded_state_to_the_next(family):
    model, rng, compared = toy_model(family), random.Random(0), 0
    for _ in range(12):
        packed, blocks = recorded(model, rng, 5 * BLOCK)
        batch = collate([packed])
        drafts = Drafts(batch, BLOCK, PAD)
        drafts.place(torch.arange(len(blocks)) * BLOCK)
        assert drafts.right.tolist() == [states[-1] for states in blocks]
        for number in range(max(map(len, blocks)) - 1):
            before = torch.tensor([states[min(number, len(states) - 1)] for states in blocks])
            choices = logits(model.network, drafts.batch(before)).argmax(-1).flatten()
            after = next_state(before, choices[drafts.index], drafts.right).tolist()
            for states, made in zip(blocks, after, strict=True):
                has_ended = PAD in states[-1]  # behind an EOS decoding makes no choices
                if number + 1 < len(states) and not has_ended:
                    compared += 1
                    assert made == states[number + 1]
    assert compared > 100


def test_a_draft_is_predicted_as_if_it_stood_alone_behind_the_text_before_it():
    model = toy_model("gemma2")
    sequences = random_packed(7, 5, BLOCK)
    made = online(6)
    batch = made.fill(collate(sequences, 6, 2), never, 0)
    found = logits(model.network, batch)
    seen = 0
    for row, [packed] in enumerate(sequences):
        text = batch["input_ids"][row][batch["stream"][row] != NOISY].tolist()
        for number in range(int(batch["block"][row].max()) + 1):
            draft = (batch["stream"][row] == NOISY) & (batch["block"][row] == number)
            places = [
                int(i)
                for i, p in zip(
                    draft.nonzero()[:, 0], batch["position_ids"][row][draft], strict=True
                )
                if p < packed.prompt_length + packed.answer_length - 1
            ]
            if not places:
                continue
            start = int(batch["start"][row][places[0]])
            ids = torch.tensor([text[:start] + batch["input_ids"][row][places].tolist()])
            alone = model.network(input_ids=ids, use_cache=False).logits[0, start:]
            assert torch.allclose(found[row, places], alone, atol=1e-4)
            seen += 1
    assert seen > 10


def test_every_place_of_an_answer_gets_drafts_and_noise_comes_from_the_text_before():
    sequences = random_packed(4, 6, BLOCK)
    batch = collate(sequences, 3, 1)
    # Ids that tell their own place.
    batch["input_ids"] = torch.arange(batch["input_ids"].numel()).view(batch["input_ids"].shape)
    made = online(3)
    starts = [set() for _ in sequences]
    for step in range(300):
        filled = made.fill(batch, never, step)
        drafts = (filled["stream"] == NOISY).nonzero()
        for row, column in drafts.tolist():
            [packed], start = sequences[row], int(filled["start"][row, column])
            starts[row].add(start - packed.prompt_length)
            drawn = int(filled["input_ids"][row, column]) - row * batch["input_ids"].shape[1]
            assert 0 <= drawn < start
            last = packed.prompt_length + packed.answer_length - 1
            assert start <= int(filled["position_ids"][row, column]) <= last
    for [packed], found in zip(sequences, starts, strict=True):
        assert found == set(range(max(packed.answer_length - 1, 1)))


def test_noise_from_the_vocabulary_is_any_real_token():
    batch, made = collate(random_packed(5, 8, BLOCK)), online(noise="vocabulary")
    drawn = set()
    for step in range(50):
        filled = made.fill(batch, never, step)
        drawn |= set(filled["input_ids"][filled["stream"] == NOISY].tolist())
    assert drawn == set(range(VOCAB))


@pytest.mark.parametrize("from_start", [False, True])
def test_a_draft_learns_from_its_first_wrong_token_to_the_end_of_the_answer(from_start):
    made = online(5, from_start=from_start)
    batch = made.fill(collate(random_packed(8, 8, BLOCK), 5, 2), never, 1)
    answer_end = (batch["prompt_length"] + batch["answer_length"])[:, 0]
    learning = 0
    for row, end in enumerate(answer_end.tolist()):
        ids = batch["input_ids"][row].tolist()
        index = batch["teacher_index"][row].tolist()
        columns = (batch["stream"][row] == NOISY).nonzero()[:, 0].tolist()
        for first in range(0, len(columns), 5):
            draft = columns[first : first + 5]
            start = int(batch["start"][row, draft[0]])
            right = [ids[p] if p < end else PAD for p in range(start, start + 5)]
            wrong = [i for i in range(5) if ids[draft[i]] != right[i]]
            for i, column in enumerate(draft):
                learns = bool(wrong) and (from_start or i >= wrong[0]) and start + i + 1 < end
                assert index[column] == (start + i if learns else -1)
                index[column] = -1
                learning += learns
        assert set(index) == {-1}
    assert learning > 50


def test_drafts_follow_seed_and_step_and_leave_the_text_alone():
    model = toy_model()
    batch = collate(random_packed(6, 6, BLOCK))

    def fresh(seed, step):
        made = online(iterations=2, seed=seed)
        return made.fill(batch, lambda b: logits(model.network, b).argmax(-1), step)

    found = fresh(0, 0)
    text = (batch["stream"] != NOISY) & (batch["stream"] != PADDING)
    for name in ("input_ids", "position_ids", "start"):
        assert torch.equal(found[name][text], batch[name][text])
        assert torch.equal(found[name], fresh(0, 0)[name])
    assert not torch.equal(found["input_ids"], fresh(0, 1)["input_ids"])
    assert not torch.equal(found["input_ids"], fresh(1, 0)["input_ids"])


# Several documents


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gpt2"])
def test_a_document_has_the_drafts_logits_and_losses_in_a_sequence_that_it_has_alone(family):
    """Drafts are put in the same places and filled with the same ids, then iterated on."""
    model, documents = toy_model(family), random_packed(6, 6, BLOCK)
    batch = collate(joined(documents, 3, 1, 2), 3, 2)
    together = Drafts(batch, 3, PAD)
    generator = torch.Generator().manual_seed(0)
    last = (together.answer_length - 1).clamp(min=1)
    starts = (torch.rand(len(last), generator=generator) * last).long().clamp(max=last - 1)
    together.place(starts)
    state = torch.randint(2, VOCAB, together.index.shape, generator=generator)

    def iterated(drafts, state):
        choices = logits(model.network, drafts.batch(state)).argmax(-1).flatten()
        return next_state(state, choices[drafts.index], drafts.right)

    def loss(batch, drafts, state):
        filled = drafts.batch(state)
        found = logits(model.network, filled)
        index = drafts.teacher_index(state, from_start=False)
        return found, losses(found, batch["ar_targets"], index, found)

    after = iterated(together, state)
    found, summed = loss(batch, together, after)
    parts = []
    for number, (row, place) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]):
        alone = collate([documents[number]], 3, 2)
        mine = (together.row == row) & (together.document == place)
        drafts = Drafts(alone, 3, PAD)
        drafts.place(starts[mine])
        assert torch.equal(drafts.right, together.right[mine])
        assert torch.equal(iterated(drafts, state[mine]), after[mine])
        expected, its_losses = loss(alone, drafts, after[mine])
        assert torch.allclose(found[row, batch["document"][row] == place], expected[0], atol=1e-4)
        parts.append(torch.tensor(its_losses))
    assert torch.allclose(torch.tensor(summed), torch.stack(parts).sum(0), rtol=1e-4)
    assert torch.stack(parts)[:, 1].count_nonzero() == 6


def test_noise_and_teachers_come_from_the_text_of_the_drafts_own_document():
    batch = collate(joined(random_packed(4, 9, BLOCK), 4, 2, 3), 3, 2)
    text, drafts = ((batch["stream"] == stream) for stream in (CLEAN, NOISY))
    text = text | (batch["stream"] == PROMPT)
    made, num_students = online(3), 0
    # Ids tell their document: noise from another one would show.
    own = batch["document"] + 10 * torch.arange(3)[:, None]
    told = batch | {"input_ids": torch.where(text, own, batch["input_ids"])}
    for step in range(30):
        noise = made.fill(told, never, step)["input_ids"]
        assert torch.equal(noise[drafts], own[drafts])
        filled = made.fill(batch, never, step)
        rows, students = (filled["teacher_index"] >= 0).nonzero(as_tuple=True)
        teachers = filled["teacher_index"][rows, students]
        assert text[rows, teachers].all()
        for field in ("document", "position_ids"):
            assert torch.equal(filled[field][rows, teachers], filled[field][rows, students])
        num_students += len(students)
    assert num_students > 1000


def test_the_clean_part_of_several_documents_is_all_their_texts():
    documents = random_packed(4, 5, BLOCK)
    batch = collate(joined(documents, 3, 2), 3, 2)
    texts = [documents[:3], documents[3:]]
    lengths = [sum(d.prompt_length + d.answer_length for [d] in text) for text in texts]
    assert clean_part(batch)["input_ids"].shape[1] == max(lengths)
    for stream, length in zip(batch["stream"], lengths, strict=True):
        assert NOISY not in stream[:length]
        assert set(stream[length:].tolist()) <= {NOISY, PADDING}
