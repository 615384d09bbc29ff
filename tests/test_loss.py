"""The two losses, against a loop over tokens."""

import pytest
import torch
from training import losses_of_logits as losses

from jacobi_forcing.training.layout import IGNORED
from jacobi_forcing.training.loss import consistency_weights, token_counts

NUM_ROWS, NUM_TOKENS, VOCAB = 3, 9, 11


@pytest.fixture
def example():
    """Logits, AR targets, teacher indices, teacher logits: tokens from 5 on teach those before."""
    generator = torch.Generator().manual_seed(0)
    logits, teacher = 3 * torch.randn(2, NUM_ROWS, NUM_TOKENS, VOCAB, generator=generator)
    targets = torch.randint(VOCAB, (NUM_ROWS, NUM_TOKENS), generator=generator)
    targets[:, :4] = IGNORED
    targets[1, 6] = targets[2] = IGNORED
    index = torch.full((NUM_ROWS, NUM_TOKENS), -1)
    index[0, 1:5] = torch.tensor([5, 6, 7, 8])
    index[1, 3] = 7
    return logits, targets, index, teacher


def slow_losses(logits, targets, index, teacher):
    ar = consistency = agreement = 0.0
    for row in range(NUM_ROWS):
        for place in range(NUM_TOKENS):
            log_probs = logits[row, place].log_softmax(-1)
            if targets[row, place] != IGNORED:
                ar -= float(log_probs[targets[row, place]])
            if index[row, place] >= 0:
                taught = teacher[row, index[row, place]]
                probs = taught.softmax(-1)
                consistency -= sum(float(probs[v] * log_probs[v]) for v in range(VOCAB))
                agreement += int(taught.argmax()) == int(logits[row, place].argmax())
    return ar, consistency, agreement


def test_losses_are_the_sums_of_a_loop_over_tokens(example):
    found = losses(*example)
    assert [float(value) for value in found] == pytest.approx(slow_losses(*example), rel=1e-5)
    assert token_counts(example[1], example[2]).tolist() == [9, 5]
    # The loop tells rows, streams and directions apart.
    logits, targets, index, teacher = example
    assert float(losses(teacher, targets, index, logits).consistency) != pytest.approx(
        float(found.consistency), rel=1e-2
    )


def test_agreement_counts_the_noisy_tokens_whose_choice_is_the_teachers(example):
    logits, targets, index, _ = example
    teacher = logits.clone()
    teacher[0, 5:9] = logits[0, 1:5]
    teacher[1, 7] = -logits[1, 3]
    assert int(losses(logits, targets, index, teacher).agreement) == 4


def test_no_gradient_reaches_the_teacher(example):
    logits, targets, index, _ = example
    logits.requires_grad_()
    found = losses(logits, targets, index, logits)  # the model teaches itself
    (gradient,) = torch.autograd.grad(found.consistency, logits, retain_graph=True)
    students = index >= 0
    assert (gradient[~students] == 0).all()
    assert (gradient[students].abs().amax(-1) > 1e-3).all()
    # The AR loss does reach the same clean tokens, so the zeros above are the detached teacher's.
    (gradient,) = torch.autograd.grad(found.ar, logits)
    assert (gradient[0, 5:9].abs().amax(-1) > 1e-3).all()


def test_no_gradient_reaches_a_teacher_of_its_own(example):
    logits, targets, index, teacher = example
    logits.requires_grad_()
    teacher.requires_grad_()
    sum(losses(logits, targets, index, teacher)[:2]).backward()
    assert teacher.grad is None
    assert logits.grad.abs().max() > 0


@pytest.mark.parametrize("empty", ["ar", "consistency", "both"])
def test_no_tokens_give_zero_and_finite_gradients(example, empty):
    logits, targets, index, teacher = example
    if empty != "consistency":
        targets = torch.full_like(targets, IGNORED)
    if empty != "ar":
        index = torch.full_like(index, -1)
    logits.requires_grad_()
    found = losses(logits, targets, index, teacher)
    assert bool(found.ar == 0) == (empty != "consistency")
    assert bool(found.consistency == 0) == (empty != "ar")
    (found.ar + found.consistency).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().max() == 0) == (empty == "both")


def test_consistency_is_least_where_student_and_teacher_agree(example):
    logits, targets, index, teacher = example
    rows, places = (index >= 0).nonzero(as_tuple=True)
    equal = logits.clone()
    # Any constant may be added to logits.
    equal[rows, places] = teacher[rows, index[rows, places]] + 5
    log_probs = teacher[rows, index[rows, places]].log_softmax(-1)
    entropy = -float((log_probs.exp() * log_probs).sum())
    least = float(losses(equal, targets, index, teacher).consistency)
    assert least == pytest.approx(entropy, rel=1e-5)
    generator = torch.Generator().manual_seed(1)
    for size in (0.1, 0.3, 1.0, 3.0):
        for _ in range(20):
            moved = equal + size * torch.randn(equal.shape, generator=generator)
            assert float(losses(moved, targets, index, teacher).consistency) > least + 1e-4
    equal.requires_grad_()
    losses(equal, targets, index, teacher).consistency.backward()
    assert equal.grad.abs().max() < 1e-5


def test_bfloat16_logits_are_summed_in_float32(example):
    logits, targets, index, teacher = example
    low = losses(logits.bfloat16(), targets, index, teacher.bfloat16())
    high = losses(logits.bfloat16().float(), targets, index, teacher.bfloat16().float())
    assert low.ar.dtype == low.consistency.dtype == torch.float32
    assert torch.equal(low.ar, high.ar)
    assert torch.equal(low.consistency, high.consistency)


def test_without_a_teacher_the_tokens_of_the_fixed_point_are_the_targets(example):
    logits, targets, index, _ = example
    found = losses(logits, targets, index, None)
    expected, agreement = 0.0, 0
    for row, student in (index >= 0).nonzero().tolist():
        target = int(targets[row, index[row, student]])
        if target == IGNORED:
            continue
        log_probs = logits[row, student].log_softmax(-1)
        expected -= float(log_probs[target])
        agreement += int(logits[row, student].argmax()) == target
    assert float(found.consistency) == pytest.approx(expected, rel=1e-5)
    assert int(found.agreement) == agreement
    assert expected > 0


def test_a_teacher_of_the_clean_stream_gives_whole_distributions_as_targets(example):
    logits, targets, index, teacher = example
    found = losses(logits, targets, index, teacher, teacher)
    expected = 0.0
    for row, place in (targets != IGNORED).nonzero().tolist():
        probs, log_probs = teacher[row, place].softmax(-1), logits[row, place].log_softmax(-1)
        expected -= sum(float(probs[v] * log_probs[v]) for v in range(VOCAB))
    assert float(found.ar) == pytest.approx(expected, rel=1e-5)
    same = losses(logits, targets, index, teacher)
    assert torch.equal(found.consistency, same.consistency)
    assert float(same.ar) != pytest.approx(expected, rel=1e-2)
    # A model that has not moved yet has nothing to learn from itself.
    still = logits.clone().requires_grad_()
    losses(still, targets, index, teacher, logits).ar.backward()
    assert still.grad.abs().max() < 1e-6


@pytest.mark.parametrize("chunk_tokens", [1, 2, 4, 100])
def test_chunks_change_nothing(example, chunk_tokens):
    logits, *rest = example
    found = []
    for size in (chunk_tokens, 0):
        leaf = logits.clone().requires_grad_()
        losses_ = losses(leaf, *rest, rest[-1], chunk_tokens=size)
        (3 * losses_.ar + losses_.consistency).backward()
        found.append([*(x.detach() for x in losses_), leaf.grad])
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(*found, strict=True))


# Weights of the consistency loss


def runs():
    """Two rows of blocks that learn from different tokens on, and each block's learning tokens.

    The second row's last two blocks are each the only one of a document.
    """
    index = torch.full((2, 12), -1)
    block = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [0] * 12])
    document = torch.tensor([[0] * 12, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]])
    found = [(0, [1, 2, 3]), (0, [4, 5, 6, 7]), (0, [11]), (1, [1, 2, 3]), (1, [4, 5]), (1, [9])]
    for row, places in found:
        index[row, places] = 5
    return {"teacher_index": index, "block": block, "document": document}, found


@pytest.mark.parametrize("per", ["token", "pair"])
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_weights_are_those_of_a_loop_over_blocks(per, decay):
    batch, found = runs()
    expected = torch.zeros(2, 12)
    for row, places in found:
        weights = [decay**i for i in range(len(places))]
        total = sum(weights) if per == "pair" else 1.0
        for place, weight in zip(places, weights, strict=True):
            expected[row, place] = weight / total
    assert torch.allclose(consistency_weights(batch, per=per, decay=decay), expected)
    if per == "pair":
        assert float(expected.sum()) == pytest.approx(len(found))


def test_nothing_learned_weighs_nothing():
    batch, _ = runs()
    batch["teacher_index"].fill_(-1)
    assert consistency_weights(batch, per="pair", decay=0.5).eq(0).all()


def test_the_weighted_loss_is_a_weighted_sum_over_tokens(example):
    logits, targets, index, teacher = example
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(index.shape, generator=generator) * (index >= 0)
    expected = 0.0
    for row, place in (index >= 0).nonzero().tolist():
        alone = torch.full_like(index, -1)
        alone[row, place] = index[row, place]
        loss = losses(logits, targets, alone, teacher).consistency
        expected += float(weights[row, place] * loss)
    found = losses(logits, targets, index, teacher, weights=weights)
    assert float(found.consistency) == pytest.approx(expected, rel=1e-5)
    assert int(found.agreement) == int(losses(*example).agreement)  # counts tokens all the same
