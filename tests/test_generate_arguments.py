"""The drop-in beside transformers' own generate, over many combinations of its arguments.

Greedy, every call either gives the same ids, or is refused by name, or fails in both.
"""

import random
import warnings

import pytest
import torch
from test_generate import padded
from toys import EOS, FAMILIES, PAD, VOCAB, tiny_network, toy_tokenizer
from transformers import GenerationConfig, LogitsProcessorList, MinPLogitsWarper
from transformers.generation import (
    ConfidenceCriteria,
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StopStringCriteria,
)

import jacobi_forcing as jf
from jacobi_forcing.errors import JacobiForcingError

PROMPT = [5, 9, 14, 22, 7]


def ends_with(token):
    return lambda ids, scores, **_: ids[:, -1] == token


# Every entry is a choice of one argument, or of some that belong together.
LENGTHS = [
    {"max_new_tokens": 12},
    {"max_length": 18},
    {"max_new_tokens": 14, "max_length": 9},
    {},
    {"max_new_tokens": 1},
]
CRITERIA = [
    lambda: {},
    lambda: {"stopping_criteria": [MaxLengthCriteria(8)]},
    lambda: {"stopping_criteria": [MaxLengthCriteria(25)]},
    lambda: {"stopping_criteria": [MaxLengthCriteria(3)]},
    lambda: {"stopping_criteria": [EosTokenCriteria(9)]},
    lambda: {"stopping_criteria": [EosTokenCriteria([7, 30, 31])]},
    lambda: {"stopping_criteria": [EosTokenCriteria(torch.tensor([12, 13, 14]))]},
    lambda: {"stopping_criteria": [MaxLengthCriteria(11), EosTokenCriteria([4, 8])]},
    lambda: {"stopping_criteria": [MaxTimeCriteria(600.0)]},
    lambda: {"stopping_criteria": [StopStringCriteria(toy_tokenizer("abcdef"), ["w1", "w22"])]},
    lambda: {"stopping_criteria": [ends_with(17), ends_with(40)]},
    lambda: {"stopping_criteria": [lambda ids, scores, **_: ids.shape[1] >= 9]},
    lambda: {"stopping_criteria": [ConfidenceCriteria(0.4)]},
]
EOS_IDS = [
    {},
    {"eos_token_id": 21},
    {"eos_token_id": [21, 3, 50]},
    {"eos_token_id": (8, 44)},
    {"eos_token_id": torch.tensor(19)},
    {"eos_token_id": torch.tensor([19, 33])},
    {"eos_token_id": None},
    {"eos_token_id": -1},
]
PADS = [{}, {"pad_token_id": PAD}, {"pad_token_id": torch.tensor(6)}, {"pad_token_id": None}]
SCORES = [
    {},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 6},
    {"min_length": 9},
    {"suppress_tokens": [4, 9, EOS], "begin_suppress_tokens": [30]},
    {"suppress_tokens": torch.tensor([4, 9, 17])},
    {"bad_words_ids": [[9], [4, 7]], "forced_eos_token_id": 3},
    {"sequence_bias": [[[9], -4.0], [[7, 14], 8.0]]},
    {"exponential_decay_length_penalty": (2, 1.5), "forced_bos_token_id": 9},
    {"encoder_repetition_penalty": 1.4, "encoder_no_repeat_ngram_size": 2},
    {"remove_invalid_values": True, "renormalize_logits": True},
    {"prefix_allowed_tokens_fn": lambda row, ids: list(range(row % 2, VOCAB, 2))},
    {"logits_processor": LogitsProcessorList([MinPLogitsWarper(0.2)])},
    {"guidance_scale": 1.7},
    {"guidance_scale": 0.0},
]
OUTPUTS = [
    {},
    {"return_dict_in_generate": True},
    {"return_dict_in_generate": True, "output_scores": True},
    {"return_dict_in_generate": True, "output_logits": True},
    {"num_return_sequences": 1, "use_cache": False},
    {"num_return_sequences": 2},
    {"cache_implementation": "static"},
    {"num_beams": 2},
    {"prompt_lookup_num_tokens": 3},
    {"synced_gpus": True},
    {"use_model_defaults": True},
    {"negative_prompt_ids": torch.tensor([[5, 6]])},
]


def inputs(draw, network):
    """Prompts in one of the forms that `generate` takes."""
    ragged = [PROMPT, PROMPT[1:4], [*PROMPT, 30, 31]]
    kind = draw.randrange(9)
    if kind <= 3:
        return padded(ragged if kind % 2 else [PROMPT])
    if kind == 4:
        return {"inputs": torch.tensor([PROMPT])}
    if kind == 5:
        return padded(ragged) | {"attention_mask": padded(ragged)["attention_mask"].bool()}
    if kind == 6:
        return {"input_ids": torch.tensor(PROMPT)}  # without a batch
    if kind == 7:
        ids = torch.tensor([PROMPT])
        return {"inputs_embeds": network.get_input_embeddings()(ids).detach()}
    return {name: value.flip(1) for name, value in padded(ragged).items()}


def case(seed, network):
    """Arguments of a call, made anew each time: criteria and configurations may change."""
    draw = random.Random(seed)
    found = inputs(draw, network) | {"do_sample": False} | draw.choice(LENGTHS)
    # Most calls set few of them: whatever is refused hides what stands beside it.
    for choices, often in ((EOS_IDS, 0.5), (PADS, 0.4), (SCORES, 0.5), (OUTPUTS, 0.2)):
        found |= draw.choice(choices) if draw.random() < often else {}
    found |= draw.choice(CRITERIA)() if draw.random() < 0.5 else {}
    if draw.random() < 0.2:  # the same, as an object
        names = set(found).intersection(vars(GenerationConfig())) - {"num_return_sequences"}
        found["generation_config"] = GenerationConfig(**{name: found.pop(name) for name in names})
    return found


def outcome(network, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = network.generate(**arguments)
        except Exception as error:
            return error
    return getattr(found, "sequences", found)


@pytest.mark.parametrize(
    ("family", "seeds"),
    [
        ("qwen2", range(40)),
        *(pytest.param(name, range(40, 240), marks=pytest.mark.slow) for name in FAMILIES),
    ],
)
def test_the_same_ids_or_a_refusal_by_name(family, seeds):
    network, decoders = tiny_network(family), ["window", "jacobi", "multiblock"]
    same = refused = failed = 0
    for seed in seeds:
        right = outcome(network, case(seed, network))
        ours = {"custom_generate": jf.generate, "strategy": decoders[seed % 3], "block_size": 5}
        found = outcome(network, case(seed, network) | ours)
        about = f"seed {seed}: {list(case(seed, network))}: {right!r} {found!r}"
        if isinstance(found, JacobiForcingError):
            assert str(found).count("\n") == 0, about
            refused += 1
        elif isinstance(right, Exception):
            assert type(found) is type(right), about
            failed += 1
        else:
            assert not isinstance(found, Exception), about
            assert torch.equal(found, right), about
            same += 1
    assert same > len(seeds) / 3
    assert refused > len(seeds) / 10
    assert failed > len(seeds) / 20
