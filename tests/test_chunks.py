"""Losses from hidden states, chunk by chunk: the same as from whole logits, in less memory."""

import logging

import pytest
import torch
from packs import random_packed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import tiny_network
from training import BLOCK, collator, make_trainer, parameters, uneven_sequences

from jacobi_forcing.training.head import find_head

# Families that change their logits behind the head, each in its own way, and others.
POSTPROCESSED = {
    "gemma2": {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 7.0},
}
FAMILIES = ["qwen2", "gpt2", "bloom", "falcon", "stablelm", *POSTPROCESSED]
TEACHERS = {
    "self": {},
    "frozen": {"teacher": "frozen", "ar_teacher": "frozen"},
    "fixed-point": {"teacher": "fixed-point"},
}


def loss_and_gradients(tmp_path, network, sequences, chunk_tokens, **options):
    trainer = make_trainer(tmp_path, network, sequences, chunk_tokens=chunk_tokens, **options)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(network, collator()(sequences))
    loss.backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return trainer, loss.detach(), found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_the_same_in_chunks(tmp_path, family):
    network = tiny_network(family, **POSTPROCESSED.get(family, {}))
    sequences = uneven_sequences()
    trainer, loss, gradients = loss_and_gradients(tmp_path, network, sequences, 7)
    assert trainer._head is not None
    whole, expected_loss, expected = loss_and_gradients(tmp_path, network, sequences, 0)
    assert whole._head is None
    assert torch.allclose(loss, expected_loss, rtol=1e-6)
    assert gradients.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    for name in expected:
        assert (gradients[name] - expected[name]).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("tied", [False, True])
def test_every_teacher_teaches_the_same_in_chunks(tmp_path, teacher, tied):
    network = tiny_network(tie_word_embeddings=tied)
    frozen = tiny_network(seed=1).requires_grad_(False) if teacher == "frozen" else None
    options = {"frozen": frozen, **TEACHERS[teacher]}
    sequences = uneven_sequences()
    _, loss, gradients = loss_and_gradients(tmp_path, network, sequences, 5, **options)
    _, expected_loss, expected = loss_and_gradients(tmp_path, network, sequences, 0, **options)
    assert torch.allclose(loss, expected_loss, rtol=1e-6)
    for name in expected:
        assert torch.allclose(gradients[name], expected[name], atol=2e-5), name


def test_a_family_whose_logits_are_changed_unknown_to_us_takes_them_whole(tmp_path, caplog):
    network = tiny_network()
    network.register_forward_hook(lambda _, __, output: output | {"logits": 1.01 * output.logits})
    with caplog.at_level(logging.INFO, logger="jacobi_forcing"):
        assert find_head(network) is None
    assert "memory grows with tokens x vocabulary" in caplog.text
    sequences = uneven_sequences()
    _, loss, _ = loss_and_gradients(tmp_path, network, sequences, 7)
    _, plain, _ = loss_and_gradients(tmp_path, tiny_network(), sequences, 7)
    assert not torch.allclose(loss, plain, rtol=1e-4)  # the change is not lost


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.num_elements = max(self.num_elements, leaf.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.parametrize("teacher", ["self", "frozen"])
def test_at_a_vocabulary_of_150_000_nothing_is_as_large_as_tokens_x_vocabulary(tmp_path, teacher):
    vocabulary, chunk = 150_000, 16
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    network = tiny_network(vocab_size=vocabulary, num_hidden_layers=1, **sizes)
    sequences = random_packed(3, 8, BLOCK)
    options = {"frozen": network if teacher == "frozen" else None, **TEACHERS[teacher]}
    found = {}
    for chunk_tokens in (chunk, 0):
        trainer = make_trainer(tmp_path, network, sequences, chunk_tokens=chunk_tokens, **options)
        trainer.current_gradient_accumulation_steps = 1
        batch = collator()(sequences)
        num_tokens = batch["input_ids"].numel()
        with Largest() as largest:
            trainer.compute_loss(network, batch).backward()
        found[chunk_tokens] = largest.num_elements
    # The largest is one chunk's logits, or the head's weights; whole logits are far above both.
    assert found[chunk] == max(chunk, sizes["hidden_size"]) * vocabulary
    assert found[0] == num_tokens * vocabulary > 20 * found[chunk]


def test_drafts_are_made_without_whole_logits_and_of_the_same_choices(tmp_path):
    network = tiny_network()
    sequences = uneven_sequences()
    batch = collator()(sequences)
    choices = [
        make_trainer(tmp_path, network, sequences, chunk_tokens=size)._choices(batch)
        for size in (3, 0)
    ]
    assert torch.equal(*choices)
    noisy = batch["stream"] == 1
    assert len(choices[0][noisy].unique()) > 5


@pytest.mark.parametrize("chunk_tokens", [0, 16])
def test_in_bfloat16_autocast_the_loss_is_near_that_of_float32(tmp_path, chunk_tokens):
    sequences = uneven_sequences()
    network = tiny_network()
    options = {"bf16_autocast": True}
    _, loss, gradients = loss_and_gradients(tmp_path, network, sequences, chunk_tokens, **options)
    _, exact, expected = loss_and_gradients(tmp_path, network, sequences, chunk_tokens)
    assert torch.allclose(loss, exact, rtol=0.02)
    assert not torch.equal(loss, exact)
    assert all(g.dtype == torch.float32 for g in gradients.values())
    flat, right = (torch.cat([g.flatten() for g in x.values()]) for x in (gradients, expected))
    assert torch.cosine_similarity(flat, right, dim=0) > 0.98


@pytest.mark.parametrize("bf16", [False, True])
def test_checkpointed_layers_give_the_same_step(tmp_path, bf16):
    runs = []
    for checkpointing in (False, True):
        network = tiny_network()
        trainer = make_trainer(
            tmp_path,
            network,
            uneven_sequences(),
            per_device_train_batch_size=4,
            bf16_autocast=bf16,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
        num_forwards = [0]
        network.model.layers[0].mlp.register_forward_pre_hook(
            lambda *_, count=num_forwards: count.__setitem__(0, count[0] + 1)
        )
        trainer.train()
        runs.append((parameters(network), num_forwards[0]))
    (plain, plain_forwards), (checkpointed, forwards) = runs
    assert torch.allclose(plain, checkpointed, atol=1e-6)
    assert (plain_forwards, forwards) == (1, 2)  # the backward pass ran it again
