"""Where the tokens of a packed sequence lie, and which of them learn what."""

import random
from typing import NamedTuple

import pytest
import torch
from packs import flat, interleave, random_ids, random_packed

from jacobi_forcing.training.layout import (
    CLEAN,
    IGNORED,
    NOISY,
    PROMPT,
    ar_targets,
    deinterleave,
    join,
    make_layout,
    teacher_index,
)


def random_sequence(rng):
    block_size = rng.randint(2, 5)
    num_blocks = rng.randint(1, 5)
    blocks = [[random_ids(rng, block_size) for _ in range(num_blocks)] for _ in range(2)]
    return random_ids(rng, rng.randint(1, 6)), *blocks, block_size


def test_deinterleave_undoes_interleave():
    rng = random.Random(0)
    for _ in range(200):
        prompt, noisy, clean, block_size = random_sequence(rng)
        ids = interleave(prompt, noisy, clean)
        assert len(ids) == len(prompt) + 2 * len(noisy) * block_size
        assert deinterleave(ids, len(prompt), block_size) == (prompt, noisy, clean)
        assert interleave(*deinterleave(ids, len(prompt), block_size)) == ids


def test_every_index_belongs_to_the_one_block_that_interleave_put_there():
    rng = random.Random(1)
    for _ in range(50):
        prompt, noisy, clean, block_size = random_sequence(rng)
        num_prompt = len(prompt)
        labels = interleave(
            [(0, PROMPT, -1, i, 0) for i in range(num_prompt)],
            *(
                [
                    [(0, stream, b, start + o, start) for o in range(block_size)]
                    for b, start in enumerate(
                        range(num_prompt, num_prompt + len(noisy) * block_size, block_size)
                    )
                ]
                for stream in (NOISY, CLEAN)
            ),
        )
        layout = make_layout(num_prompt, len(noisy), block_size)
        assert list(zip(*(field.tolist() for field in layout), strict=True)) == labels
        assert len(set(labels)) == len(labels) == len(interleave(prompt, noisy, clean))


def test_paired_blocks_share_positions_and_each_stream_continues_the_prompt():
    layout = make_layout(prompt_length=5, num_blocks=4, block_size=3)
    by_stream = {
        stream: layout.position[layout.stream == stream].tolist()
        for stream in (PROMPT, NOISY, CLEAN)
    }
    assert by_stream[NOISY] == by_stream[CLEAN]
    assert by_stream[PROMPT] + by_stream[CLEAN] == list(range(5 + 4 * 3))


class Case(NamedTuple):
    """A packed sequence and what it was made of."""

    ids: torch.Tensor
    layout: tuple
    prompt_length: int
    answer_length: int
    block_size: int
    noisy: list[list[int]]
    clean: list[list[int]]

    def index(self, stream, answer_position):
        """Index in the sequence of an answer position of one stream."""
        block, offset = divmod(answer_position, self.block_size)
        shift = 0 if stream == NOISY else self.block_size
        return self.prompt_length + 2 * block * self.block_size + shift + offset


def cases():
    made = []
    for block_size in (2, 4):
        for [packed] in random_packed(block_size, 60, block_size, schedule="random"):
            ids = torch.tensor(packed.input_ids, dtype=torch.long)
            parts = deinterleave(packed.input_ids, packed.prompt_length, block_size)
            layout = make_layout(packed.prompt_length, len(parts[1]), block_size)
            made.append(
                Case(
                    ids, layout, packed.prompt_length, packed.answer_length, block_size, *parts[1:]
                )
            )
    # Answers of one token, and answers that fill their last block.
    rests = {(case.answer_length - 1) % case.block_size for case in made}
    assert {0, 1} < rests
    assert any(case.answer_length == case.block_size * len(case.clean) for case in made)
    return made


@pytest.mark.parametrize("on_prompt", [False, True])
def test_ar_targets_are_the_next_tokens_of_prompt_and_answer_and_nothing_else(on_prompt):
    num_bridges = 0
    for case in cases():
        found = ar_targets(case.ids, case.layout, case.answer_length, on_prompt=on_prompt)
        prompt = case.ids[: case.prompt_length].tolist()
        answer = flat(case.clean)[: case.answer_length]
        text = prompt + answer
        where = [*range(case.prompt_length)]
        where += [case.index(CLEAN, p) for p in range(case.answer_length)]
        expected = [IGNORED] * len(case.ids)
        first = 0 if on_prompt else case.prompt_length - 1
        for place in range(first, len(text) - 1):
            expected[where[place]] = text[place + 1]
        assert found.tolist() == expected
        # prompt -> clean 0, and clean j -> clean j + 1
        assert found[case.prompt_length - 1] == answer[0]
        for block in range(1, -(-case.answer_length // case.block_size)):
            bridge = case.index(CLEAN, block * case.block_size - 1)
            assert found[bridge] == answer[block * case.block_size]
            num_bridges += 1
        assert (found[case.layout.stream == NOISY] == IGNORED).all()
    assert num_bridges > 50


def slow_teacher_index(case, from_start, reach):
    """Written out position by position."""
    index = [-1] * len(case.ids)
    for block, (noisy, clean) in enumerate(zip(case.noisy, case.clean, strict=True)):
        if noisy == clean:
            continue
        first = next(i for i in range(case.block_size) if noisy[i] != clean[i])
        last = min(first + reach, case.block_size) if reach else case.block_size
        for offset in range(0 if from_start else first, last):
            place = block * case.block_size + offset
            if place + 1 < case.answer_length:
                index[case.index(NOISY, place)] = case.index(CLEAN, place)
    return index


@pytest.mark.parametrize("reach", [0, 1, 2])
@pytest.mark.parametrize("from_start", [False, True])
def test_teacher_index_agrees_with_brute_force(from_start, reach):
    for case in cases():
        arguments = (case.ids, case.layout, case.block_size, case.answer_length)
        found = teacher_index(*arguments, from_start=from_start, reach=reach)
        assert found.tolist() == slow_teacher_index(case, from_start, reach)


@pytest.mark.parametrize("from_start", [False, True])
def test_every_student_is_noisy_and_its_teacher_is_the_clean_token_at_its_position(from_start):
    num_students = 0
    for case in cases():
        found = teacher_index(
            case.ids, case.layout, case.block_size, case.answer_length, from_start=from_start
        )
        students = (found >= 0).nonzero()[:, 0]
        teachers = found[students]
        assert (case.layout.stream[students] == NOISY).all()
        assert (case.layout.stream[teachers] == CLEAN).all()
        for field in ("position", "block"):
            values = getattr(case.layout, field)
            assert torch.equal(values[students], values[teachers])
        num_students += len(students)
    assert num_students > 200


def test_nothing_learns_before_the_first_difference_unless_asked_to():
    num_before = 0
    for case in cases():
        arguments = (case.ids, case.layout, case.block_size, case.answer_length)
        late = teacher_index(*arguments, from_start=False)
        early = teacher_index(*arguments, from_start=True)
        for block, (noisy, clean) in enumerate(zip(case.noisy, case.clean, strict=True)):
            for offset in range(case.block_size):
                if noisy[: offset + 1] != clean[: offset + 1]:
                    break
                place = case.index(NOISY, block * case.block_size + offset)
                assert late[place] == -1
                num_before += int(early[place] >= 0)
        assert torch.equal(early[late >= 0], late[late >= 0])
    assert num_before > 20


def test_nothing_is_learnt_behind_the_end_of_the_answer():
    """The reference's consistency loss goes on behind the EOS."""
    num_behind = 0
    for case in cases():
        for from_start in (False, True):
            found = teacher_index(
                case.ids, case.layout, case.block_size, case.answer_length, from_start=from_start
            )
            last = case.prompt_length + case.answer_length - 1  # predicts what follows the EOS
            behind = (case.layout.position >= last) & (case.layout.stream == NOISY)
            assert (found[behind] == -1).all()
            noisy, clean = case.noisy[-1], case.clean[-1]
            num_behind += int(behind.sum()) * (noisy != clean)
            # What the EOS itself is predicted from does learn, where its block is noisy there.
            if case.answer_length > 1 and noisy[0] != clean[0]:
                before = case.index(NOISY, case.answer_length - 2)
                same_block = (case.answer_length - 2) // case.block_size == len(case.clean) - 1
                assert found[before] >= 0 or not same_block
    assert num_behind > 50


def test_pairs_that_have_converged_learn_nothing():
    ids = torch.tensor([9, *[2, 3, 4] * 2, *[5, 6, 7], *[5, 8, 7]])
    layout = make_layout(prompt_length=1, num_blocks=2, block_size=3)
    first, start = (
        teacher_index(ids, layout, 3, answer_length=7, from_start=start) for start in (False, True)
    )
    assert first.tolist() == [-1] * 8 + [11, 12] + [-1] * 3
    assert start.tolist() == [-1] * 7 + [10, 11, 12] + [-1] * 3


def document_columns(packed, block_size):
    """The tensors of one document, from the functions above."""
    ids = torch.tensor(packed.input_ids, dtype=torch.long)
    layout = make_layout(packed.prompt_length, len(packed.noise_ratios), block_size)
    length = packed.answer_length
    return layout._asdict() | {
        "input_ids": ids,
        "ar_targets": ar_targets(ids, layout, length, on_prompt=True),
        "teacher_index": teacher_index(ids, layout, block_size, length, from_start=False),
    }


def test_joining_documents_shifts_nothing_but_their_number_and_the_places_of_their_teachers():
    documents = [document_columns(packed, 4) for [packed] in random_packed(4, 12, 4)]
    found, first, num_students = join(documents), 0, 0
    for number, document in enumerate(documents):
        length = len(document["input_ids"])
        part = {name: values[first : first + length] for name, values in found.items()}
        assert (part.pop("document") == number).all()
        teachers, expected = part.pop("teacher_index"), document["teacher_index"]
        assert torch.equal(teachers >= 0, expected >= 0)
        assert torch.equal(teachers[teachers >= 0] - first, expected[expected >= 0])
        # The teacher is in the student's own document, at its position.
        students = (teachers >= 0).nonzero()[:, 0] + first
        for field in ("position", "document"):
            assert torch.equal(found[field][students], found[field][teachers[teachers >= 0]])
        for name, values in part.items():
            assert torch.equal(values, document[name])
        # The last token of the text predicts nothing: the next document's first is not its own.
        assert part["ar_targets"][-1] == IGNORED
        first += length
        num_students += len(students)
    assert first == len(found["input_ids"])
    assert num_students > 20
